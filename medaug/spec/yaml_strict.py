"""YAML without its surprises: one document, unique keys, no aliases, no guessed types.

PyYAML alone reads ``lr: 1e-4`` as a string, ``no`` as False, ``012`` as ten, ``1:30`` as ninety,
and silently keeps the last of two equal keys. Here numbers are what JSON calls numbers (plus
``.5`` and ``1e-4``), only ``true`` and ``false`` are booleans, and everything else is text, which
then fails the typed schema where a number is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

from medaug.errors import UserError

MAX_BYTES = 1_000_000
MAX_NODES = 10_000
MAX_DEPTH = 40

Lines = dict[tuple[str, ...], int]


class _Loader(yaml.SafeLoader):
    """SafeLoader with a fresh, short list of implicit types."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"(?:~|null|)", ["~", "n", ""]),
    ("bool", r"(?:true|false)", list("tf")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
        r"|[-+]?\.inf|\.nan",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^{_pattern}$"), _first)
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{tag}" for tag in ("null", "bool", "int", "float", "str", "map", "seq")
}


@dataclass(frozen=True)
class Document:
    """A parsed mapping and the line (from 1) on which each key path stands."""

    data: dict[str, Any]
    lines: Lines


def parse_scalar(text: str, source: str) -> Any:
    """The value of ``--set key=TEXT``: a scalar or a flow list such as ``[64, 256]``."""
    try:
        return _parse(f"value: {text}", source).data["value"]
    except _BadSyntax:
        raise UserError(f"{source}: is no value; quote text, close brackets: '[1, 2]'") from None


def parse_document(text: str, source: str) -> Document:
    """Parse one YAML mapping strictly; every refusal is a UserError naming source and line."""
    if len(text.encode()) > MAX_BYTES:
        raise UserError(f"{source}: larger than {MAX_BYTES} bytes; a study is a page, not a file")
    return _parse(text, source)


class _BadSyntax(UserError):
    """What PyYAML could not read at all."""


def _syntax(error: yaml.MarkedYAMLError, source: str) -> _BadSyntax:
    """PyYAML's words and place; for its commonest complaints, those of the line to correct."""
    mark, problem = error.problem_mark or error.context_mark, error.problem or "cannot be read"
    fix = "check the YAML syntax"
    if "\\t" in str(error):
        fix = "indent with spaces, not tabs"
    elif "could not find expected ':'" in problem:  # told at the line after the one without it
        mark, fix = error.context_mark or mark, "write 'key: value'"
    elif "mapping values are not allowed" in problem:
        fix = "is it indented like its neighbours, with a ':' in the line above?"
    elif error.context_mark and "while parsing a flow" in (error.context or ""):
        mark, fix = error.context_mark, "close the bracket that opens here"
    return _BadSyntax(f"{source}:{mark.line + 1}: {problem}; {fix}" if mark else f"{source}: {fix}")


def _parse(text: str, source: str) -> Document:
    try:
        _refuse_bombs(yaml.parse(text, Loader=_Loader), source)
        documents = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, source) from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: {' '.join(str(error).split())}; check the encoding") from None
    if not documents or documents[0] is None:
        raise UserError(f"{source}: is empty; see jobs/demo.yaml for an example")
    if len(documents) > 1:
        raise UserError(f"{source}: holds {len(documents)} documents; keep one")
    root = documents[0]
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{source}:1: is not a mapping; write 'key: value' lines")
    lines: Lines = {}
    return Document(_mapping(root, (), lines, source), lines)


def _refuse_bombs(events: Iterator[yaml.events.Event], source: str) -> None:
    depth = nodes = 0
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 1
        nodes += isinstance(event, NodeEvent)
        depth += isinstance(event, CollectionStartEvent)
        depth -= isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise UserError(f"{source}:{line}: YAML aliases are not allowed; write the value out")
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise UserError(
                f"{source}:{line}: more than {MAX_DEPTH} levels or {MAX_NODES} nodes; simplify it"
            )


def _mapping(
    node: yaml.MappingNode, path: tuple[str, ...], lines: Lines, source: str
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{source}:{line}: a key must be plain text")
        key = key_node.value
        here = (*path, key)
        if key in result:
            raise UserError(
                f"{source}:{line}: {'.'.join(here)} was already given on line {lines[here]}; "
                "keep one of the two"
            )
        lines[here] = line
        result[key] = _value(value_node, here, lines, source)
    return result


def _value(node: yaml.Node, path: tuple[str, ...], lines: Lines, source: str) -> Any:
    if node.tag not in _PLAIN_TAGS:
        line = node.start_mark.line + 1
        raise UserError(f"{source}:{line}: tag {node.tag} is not allowed; write plain values")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines, source)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            here = (*path, str(index))
            lines[here] = item.start_mark.line + 1
            items.append(_value(item, here, lines, source))
        return items
    return _SCALARS[node.tag.rsplit(":", 1)[1]](node.value)


_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text == "true",
    "int": int,
    "float": lambda text: float(text.replace(".inf", "inf").replace(".nan", "nan")),
    "str": str,
}
