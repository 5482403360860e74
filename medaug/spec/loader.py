"""From a YAML file and ``--set`` options to a validated :class:`StudySpec`, with good errors."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from medaug.errors import UserError
from medaug.spec.base import Spec
from medaug.spec.study import ArmSpec, StudySpec

if TYPE_CHECKING:
    from medaug.spec.yaml_strict import Document, Lines

S = TypeVar("S", bound=Spec)

_SECRET = re.compile(r"passw|secret|token|api_?key|credential", re.IGNORECASE)
_USER_IN_URI = re.compile(r"://[^/@\s]+:[^/@\s]+@")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def load_study(
    path: Path, arms: Mapping[str, type[ArmSpec]], overrides: Iterable[str] = ()
) -> StudySpec:
    """Read a study; ``arms`` maps each arm kind to its configuration class.

    Raises:
        UserError: one line with file, line, key and the nearest valid key or the allowed range.
    """
    from medaug.spec.yaml_strict import parse_document

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; see jobs/ for examples") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from None
    document = parse_document(text, str(path))
    data, sources = _override(document, str(path), overrides)
    _refuse_secrets(data, (), sources)
    data = _expand_variables(data, (), sources)
    return build_study(data, arms, sources)


def build_study(
    data: Mapping[str, Any],
    arms: Mapping[str, type[ArmSpec]],
    sources: Mapping[tuple[str, ...], str] | None = None,
) -> StudySpec:
    """Validate plain data into a study; ``sources`` says where each key was written."""
    sources = sources or {}
    data = dict(data)
    built = {}
    if isinstance(data.get("arms"), Mapping):
        for name, value in data["arms"].items():
            built[name] = build_arm(name, value, arms, sources)
        data["arms"] = {name: {"kind": arm.kind} for name, arm in built.items()}
    return _validated(StudySpec, data, (), sources).model_copy(update={"arms": built})


def build_arm(
    name: str,
    value: Any,
    arms: Mapping[str, type[ArmSpec]],
    sources: Mapping[tuple[str, ...], str] | None = None,
) -> ArmSpec:
    """One arm from its mapping; ``kind`` defaults to the arm's name in the study."""
    sources = sources or {}
    if isinstance(value, ArmSpec):
        return value
    here = ("arms", name)
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"{_where(here, sources)}: wants a mapping, got {value!r}; write '{{}}'")
    value = {"kind": name, **(value or {})}
    arm_type = arms.get(value["kind"])
    if arm_type is None:
        raise UserError(
            f"{_where((*here, 'kind'), sources)}: unknown arm '{value['kind']}'"
            f"{_nearest(str(value['kind']), arms)}"
        )
    return _validated(arm_type, value, here, sources)


def _override(
    document: Document, source: str, overrides: Iterable[str]
) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    from medaug.spec.yaml_strict import parse_scalar

    data: dict[str, Any] = document.data
    lines: Lines = document.lines
    sources = {path: f"{source}:{line}" for path, line in lines.items()}
    sources[()] = source
    for item in overrides:
        key, equals, text = item.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            raise UserError(f"--set {item}: write --set section.key=value")
        target = data
        for part in path[:-1]:
            if target.get(part) is None:
                target[part] = {}
            target = target[part]
            if not isinstance(target, dict):
                raise UserError(f"--set {key}: {part} is a value, not a section")
        target[path[-1]] = parse_scalar(text)
        for depth in range(1, len(path) + 1):
            if depth == len(path) or path[:depth] not in sources:
                sources[path[:depth]] = f"--set {key}"
    return data, sources


def _validated(
    spec: type[S],
    data: Mapping[str, Any],
    prefix: tuple[str, ...],
    sources: Mapping[tuple[str, ...], str],
) -> S:
    """Validate by the rules of JSON: '012' is no number, 'no' is no boolean, true is not 1."""
    try:
        return spec.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
    # An unknown key is usually the cause of the complaint about a missing one: tell it first.
    details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
    path = tuple(str(part) for part in details[0]["loc"])
    what = _explain(details[0], spec, path)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    raise UserError(f"{_where((*prefix, *path), sources)}: {what}{more}")


def _explain(detail: Any, spec: type[Spec], path: tuple[str, ...]) -> str:
    if detail["type"] == "extra_forbidden":
        return f"unknown key{_nearest(path[-1], _fields_at(spec, path[:-1]))}"
    if detail["type"] == "missing":
        return "is missing; add it"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    value = detail["input"]
    shown = f", got {value!r}" if isinstance(value, str | int | float | bool) else ""
    return f"{message}{shown}"


def _fields_at(spec: type[BaseModel], path: tuple[str, ...]) -> list[str]:
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


def _refuse_secrets(
    value: Any, path: tuple[str, ...], sources: Mapping[tuple[str, ...], str]
) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_secrets(item, (*path, str(key)), sources)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_secrets(item, (*path, str(index)), sources)
    if path and _SECRET.search(path[-1]):
        raise UserError(
            f"{_where(path, sources)}: looks like a secret; keep it out of the study and give it "
            "through the environment (MLFLOW_TRACKING_PASSWORD, RAY_AUTH_TOKEN_PATH)"
        )
    if isinstance(value, str) and _USER_IN_URI.search(value):
        raise UserError(
            f"{_where(path, sources)}: holds a password; use MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD instead"
        )


def _expand_variables(
    value: Any, path: tuple[str, ...], sources: Mapping[tuple[str, ...], str]
) -> Any:
    """Replace ``${NAME}`` in text by the environment variable, which must exist."""
    if isinstance(value, dict):
        return {k: _expand_variables(v, (*path, k), sources) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand_variables(v, (*path, str(i)), sources) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise UserError(f"{_where(path, sources)}: ${{{name}}} is not set; export {name}")
        return os.environ[name]

    return _VARIABLE.sub(look_up, value)


def _where(path: tuple[str, ...], sources: Mapping[tuple[str, ...], str]) -> str:
    """``file:line: a.b`` (or ``--set a.b``) for the nearest written ancestor of ``path``."""
    for depth in range(len(path), -1, -1):
        source = sources.get(path[:depth])
        if source is not None:
            dotted = ".".join(path)
            return source if source == f"--set {dotted}" else f"{source}: {dotted}".rstrip(": ")
    return ".".join(path) or "study"


def _nearest(key: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; choose from {', '.join(known)}"
