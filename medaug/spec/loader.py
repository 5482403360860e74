"""From a YAML file and ``--set`` options to a validated :class:`StudySpec`, with good errors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medaug.errors import UserError
from medaug.regular import open_regular
from medaug.spec.axes import check_axes
from medaug.spec.classifier import build_classifier
from medaug.spec.early_stop import check_grace, check_metric
from medaug.spec.encoder import ENCODER_SPECS
from medaug.spec.folder import OF_A_PATH
from medaug.spec.study import ArmSpec, StudySpec, WrittenArm
from medaug.spec.validation import KeyPath, Sources, nearest, validated, where

if TYPE_CHECKING:
    from medaug.spec.yaml_strict import Document

ArmTypes = Mapping[str, type[ArmSpec]]
"""Arm kind -> its configuration class."""
Choices = Mapping[str, Collection[str]]
"""Dotted key -> the values that another room knows."""

_SECRET = re.compile(r"passw|secret|token|api_?key|credential", re.IGNORECASE)
_USER_IN_URI = re.compile(r"://[^/@\s]+:[^/@\s]+@")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_DOTTED = ("grid", "space")
"""Sections of ``sweep`` whose keys have dots themselves."""
NOT_OF_RESULTS = ("resources", "tracking")
"""Sections that no result depends on: a run that has begun may go on with others."""


def load_study(
    path: Path,
    arms: ArmTypes | Callable[[], ArmTypes],
    overrides: Iterable[str] = (),
    choices: Choices | Callable[[], Choices] | None = None,
) -> StudySpec:
    """Read a study; ``arms`` maps each arm kind to its configuration class.

    ``arms`` and ``choices`` may be functions: they are called when all that can be judged without
    them is found right, as what they import may take seconds.

    Raises:
        UserError: one line with file, line, key and the nearest valid key or the allowed range.
    """
    from medaug.spec.yaml_strict import parse_document

    document = parse_document(_text_of(path), str(path))
    data, sources = _override(document, str(path), overrides)
    _refuse_secrets(data, (), sources)
    data = _expand_variables(data, (), sources)
    study = build_study(data, arms, sources)
    for key, known in ((choices() if callable(choices) else choices) or {}).items():
        _check_choice(study, key, known, sources)
    return study


def _text_of(path: Path) -> str:
    from medaug.spec.yaml_strict import MAX_BYTES

    try:
        with open_regular(path, pipes=True) as file:
            content = file.read(MAX_BYTES + 1)  # more is refused by who parses it
        return content.decode("utf-8", "strict" if len(content) <= MAX_BYTES else "replace")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; see jobs/ for examples") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a study's YAML file") from None


def build_study(
    data: Mapping[str, Any],
    arms: ArmTypes | Callable[[], ArmTypes],
    sources: Sources | None = None,
) -> StudySpec:
    """Validate plain data into a study; ``sources`` says where each key was written."""
    sources = sources or {}
    data = dict(data)
    given: dict[str, dict[str, Any]] = {}
    if isinstance(data.get("arms"), Mapping):
        given = {name: _written(name, value, sources) for name, value in data["arms"].items()}
        data["arms"] = {name: {"kind": str(value["kind"])} for name, value in given.items()}
    judges = _build_classifiers(data, sources)
    if isinstance(encoder := data.get("encoder"), Mapping) and "kind" in encoder:
        kind = str(encoder["kind"])
        if kind not in ENCODER_SPECS:
            raise _unknown("encoder", kind, ENCODER_SPECS, where(("encoder", "kind"), sources))
        own = validated(ENCODER_SPECS[kind], encoder, ("encoder",), sources)
        data["encoder"] = own.canonical()
    study = validated(StudySpec, data, (), sources).model_copy(update=judges)
    if study.classifier != study.classifiers.get(study.classifier.kind, study.classifier):
        raise UserError(
            f"{where(('classifiers', study.classifier.kind), sources)}: is the name of the one in "
            "classifier too; give it another"
        )
    check_metric(study, sources)
    types = arms() if callable(arms) else arms
    built = {name: build_arm(name, value, types, sources) for name, value in given.items()}
    study = study.model_copy(update={"arms": built})
    check_axes(study, given, sources)
    check_grace(study, given, sources)
    return study


def _build_classifiers(data: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """The fields ``classifier`` and ``classifiers`` of a study, as far as ``data`` give them; there
    they are left with their kinds only. A classifier's kind decides which keys it has."""
    built: dict[str, Any] = {}
    several = data.get("classifiers")
    if isinstance(several, Mapping) and several:
        given = {
            name: {"kind": name, **value} if isinstance(value, Mapping) else value
            for name, value in ((n, {} if v is None else v) for n, v in several.items())
        }
        built["classifiers"] = {
            name: build_classifier(value, ("classifiers", name), sources)
            for name, value in given.items()
        }
        data["classifiers"] = {n: {"kind": each.kind} for n, each in built["classifiers"].items()}
        built["classifier"] = next(iter(built["classifiers"].values()))
    if (single := data.get("classifier")) is not None:
        built["classifier"] = build_classifier(single, ("classifier",), sources)
        data["classifier"] = {"kind": built["classifier"].kind}
    return built


def written_study(data: Mapping[str, Any]) -> StudySpec:
    """The study that a run has in ``study.json``, to be read and not to be run: its arms are as
    they were written, so nobody has to load them.

    Raises:
        UserError: it is no study.
    """
    given = data.get("arms", {})
    plain = {**data, "arms": {name: {"kind": arm.get("kind", name)} for name, arm in given.items()}}
    judges = _build_classifiers(plain, {})
    study = validated(StudySpec, plain)
    arms = {name: validated(WrittenArm, {"kind": name, **arm}) for name, arm in given.items()}
    return study.model_copy(update={"arms": arms, **judges})


def build_arm(name: str, value: Any, arms: ArmTypes, sources: Sources | None = None) -> ArmSpec:
    """One arm from its mapping; ``kind`` defaults to the arm's name in the study."""
    sources = sources or {}
    value = _written(name, value, sources)
    kind = value["kind"]
    if kind not in arms:
        raise _unknown("arm", str(kind), arms, where(("arms", name, "kind"), sources))
    arm = validated(arms[kind], value, ("arms", name), sources)
    for package, extra in arm.needs.items():
        if find_spec(package) is None:  # found without being imported
            raise UserError(
                f"{where(('arms', name), sources)}: {kind} needs the package {package}; "
                f"pip install 'medaug[{extra}]'"
            )
    return arm


def _unknown(what: str, kind: str, known: Collection[str], here: str) -> UserError:
    """Of a word that may be misspelt, or a package's that is not installed here."""
    hint = nearest(kind, known)
    package = "" if "did you mean" in hint else ", or install the package that adds it"
    return UserError(f"{here}: unknown {what} '{kind}'{hint}{package}")


def _written(name: str, value: Any, sources: Sources) -> dict[str, Any]:
    """An arm's keys as they were given, with its kind."""
    if isinstance(value, ArmSpec):
        value = value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, str) and name in OF_A_PATH:
        value = {"path": value}
    if value is not None and not isinstance(value, Mapping):
        here = where(("arms", name), sources)
        raise UserError(f"{here}: wants a mapping, got {value!r}; write '{{}}'")
    return {"kind": name, **(value or {})}


def _check_choice(study: StudySpec, key: str, known: Collection[str], sources: Sources) -> None:
    values: dict[str, Any] = {key: attrgetter(key)(study)}
    if key == "classifier.kind":
        values |= {f"classifiers.{name}.kind": s.kind for name, s in study.classifiers.items()}
    for path, value in values.items():
        if value not in known:
            raise _unknown("value", value, known, where(tuple(path.split(".")), sources))


def resumed_study(
    data: Mapping[str, Any],
    arms: ArmTypes | Callable[[], ArmTypes],
    overrides: Iterable[str] = (),
) -> StudySpec:
    """The study that a run has in ``study.json``, with the ``--set`` options of its resume.

    Raises:
        UserError: an option sets what the run's results depend on, or is no valid value.
    """
    overrides = list(overrides)
    check_resumable(overrides)
    data = {**data, **{name: dict(data.get(name) or {}) for name in NOT_OF_RESULTS}}
    sources: dict[KeyPath, str] = {}
    _put(data, sources, overrides)
    for name in NOT_OF_RESULTS:
        _refuse_secrets(data[name], (name,), sources)
        data[name] = _expand_variables(data[name], (name,), sources)
    return build_study(data, arms, sources)


def check_resumable(overrides: Iterable[str]) -> None:
    """Raises UserError for the first ``--set`` option that a run which has begun cannot take."""
    for item in overrides:
        key = item.partition("=")[0].strip()
        if key == "storage":
            raise UserError("--set storage: give it to `medaug resume` as --storage")
        if key.partition(".")[0] not in NOT_OF_RESULTS:
            raise UserError(
                f"--set {key}: of a run that has begun, only resources.* and tracking.* can be "
                "set, all else decides its results; leave it out, or `medaug run` the changed "
                "study under another --name"
            )


def _override(
    document: Document, source: str, overrides: Iterable[str]
) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    sources = {path: f"{source}:{line}" for path, line in document.lines.items()}
    sources[()] = source
    _put(document.data, sources, overrides)
    return document.data, sources


def _put(data: dict[str, Any], sources: dict[KeyPath, str], overrides: Iterable[str]) -> None:
    """Put values of ``--set`` options into ``data``, and where they are from into ``sources``."""
    from medaug.spec.yaml_strict import parse_scalar

    for item in overrides:
        key, equals, text = item.partition("=")
        key = key.strip()
        path = tuple(key.split("."))
        if path[:1] == ("sweep",) and path[1:2] and path[1] in _DOTTED and len(path) > 2:
            path = (*path[:2], ".".join(path[2:]))
        if not equals or not all(path):
            raise UserError(f"--set {item}: write --set section.key=value")
        target = data
        for part in path[:-1]:
            if target.get(part) is None:
                target[part] = {}
            target = target[part]
            if not isinstance(target, dict):
                raise UserError(f"--set {key}: {part} is a value, not a section")
        target[path[-1]] = parse_scalar(text, f"--set {item}")
        # What the file said below this key is gone, and so are its lines.
        for old in [old for old in sources if old[: len(path)] == path]:
            del sources[old]
        for depth in range(1, len(path) + 1):
            sources.setdefault(path[:depth], f"--set {key}")


def _refuse_secrets(value: Any, path: KeyPath, sources: Sources) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_secrets(item, (*path, str(key)), sources)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_secrets(item, (*path, str(index)), sources)
    if path and _SECRET.search(path[-1]):
        raise UserError(
            f"{where(path, sources)}: looks like a secret; keep it out of the study and give it "
            "through the environment (MLFLOW_TRACKING_PASSWORD, RAY_AUTH_TOKEN_PATH)"
        )
    if isinstance(value, str) and _USER_IN_URI.search(value):
        raise UserError(
            f"{where(path, sources)}: holds a password; use MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD instead"
        )


def _expand_variables(value: Any, path: KeyPath, sources: Sources) -> Any:
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
            raise UserError(f"{where(path, sources)}: ${{{name}}} is not set; export {name}")
        return os.environ[name]

    return _VARIABLE.sub(look_up, value)
