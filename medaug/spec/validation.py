"""From plain data to one configuration record; a mistake is one line: where, what, and the fix."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from medaug.errors import UserError
from medaug.spec.base import Spec

S = TypeVar("S", bound=Spec)
KeyPath = tuple[str, ...]
Sources = Mapping[KeyPath, str]
"""Where each key was written: ``file:line``, or ``--set key``."""

_PLAINER = {
    "model_type": "should be a section; write 'key: value' lines below it",
    "dict_type": "should be a section; write 'key: value' lines below it",
    "model_attributes_type": "should be a section; write 'key: value' lines below it",
    "mapping_type": "should be a section; write 'key: value' lines below it",
    "tuple_type": "should be a list like [1, 2]",
}
"""By pydantic's type of error: what JSON calls an object, a study calls a section."""


def validated(
    spec: type[S], data: Mapping[str, Any], prefix: KeyPath = (), sources: Sources | None = None
) -> S:
    """``data`` as a ``spec``, by the rules of JSON: '012' is no number, 'no' is no boolean, true
    is not 1.

    Args:
        prefix: path of ``data`` inside the study.

    Raises:
        UserError: the first mistake, and how many more there are.
    """
    sources = sources or {}
    try:
        return spec.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
    # A default that depends on a key with a mistake is no mistake of its own.
    details = [detail for detail in details if detail["type"] != "default_factory_not_called"]
    # An unknown key is usually the cause of the complaint about a missing one: tell it first.
    details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
    path = tuple(str(part) for part in details[0]["loc"])
    what = _explain(details[0], spec, path)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    place = where((*prefix, *path), sources, hint=what)
    raise UserError(f"{place}: {what}{more}")


def where(path: KeyPath, sources: Sources, hint: str = "") -> str:
    """``file:line: a.b`` (or ``--set a.b``) for the nearest written ancestor of ``path``.

    A rule about several keys of a section is told at the first of them that ``hint`` names and
    that was written.
    """
    dotted = ".".join(path)
    for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)*", hint):
        named = (*path, *word.split("."))
        if named in sources:
            return f"{sources[named]}: {dotted}".rstrip(": ")
    for depth in range(len(path), -1, -1):
        source = sources.get(path[:depth])
        if source is not None:
            return source if source == f"--set {dotted}" else f"{source}: {dotted}".rstrip(": ")
    return dotted or "study"


def nearest(key: str, known: Iterable[str]) -> str:
    """``; did you mean …``, or all there is to choose from."""
    known = sorted(known)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; choose from {', '.join(known)}"


def _explain(detail: Any, spec: type[Spec], path: KeyPath) -> str:
    if detail["type"] == "extra_forbidden":
        return f"unknown key{nearest(path[-1], fields_at(spec, path[:-1]))}"
    if detail["type"] == "missing":
        return "is missing; add it"
    value = detail["input"]
    shown = f", got {value!r}" if isinstance(value, str | int | float | bool) else ""
    shown = ", got nothing" if value is None else shown
    if detail["type"] in _PLAINER:
        return f"{_PLAINER[detail['type']]}{shown}"
    if detail["type"] == "literal_error" and isinstance(value, str):
        expected = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        if close := difflib.get_close_matches(value, expected, n=1, cutoff=0.5):
            return f"unknown value '{value}'; did you mean '{close[0]}'?"
    if detail["type"] == "string_pattern_mismatch":
        return f"should be 1 to 64 of A-Z a-z 0-9 . _ -, with a letter or digit first{shown}"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    return f"{message}{shown}"


def fields_at(spec: type[BaseModel], path: KeyPath) -> list[str]:
    """Field names of the model nested at ``path`` inside ``spec``."""
    model: type[BaseModel] | None = spec
    for part in path:
        field = model.model_fields.get(part) if model else None
        model = _model_in(field.annotation) if field else None
    return list(model.model_fields) if model else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
