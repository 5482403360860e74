"""What MLflow is told of a study's and a trial's settings: dotted spec names, nothing private."""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medaug.spec import StudySpec, TrialConfig
from medaug.spec.per_class import per_class_title

PRIVATE = "(private)"
"""Stands for a place on the user's disks or network: such names may tell who a patient is."""

LONGEST_PARAM = 6000
LONGEST_TAG = 5000
LONGEST_NAME = 250


def study_params(study: StudySpec) -> dict[str, str]:
    """Every setting of a study by its dotted name, places left out."""
    return _as_params(flatten(study.model_dump()), private_names(study))


def trial_params(config: TrialConfig, study: StudySpec) -> dict[str, str]:
    """A trial's settings by the names that they have in ``study``, what it is about (arm, point of
    the grid, added rows …), fold and seed."""
    usual = {
        name
        for name, field in type(config).model_fields.items()
        if name not in ("fold", "seed") and getattr(config, name) == field.default
    }
    own = config.model_dump(mode="json", exclude=_UNTOLD | usual)
    names = {
        "maker": f"arms.{own.get('arm')}",
        "augment": "segmenter.augment",
        "encoding": "features",
    }
    settings = {
        names.get(name, name): value for name, value in own.items() if isinstance(value, Mapping)
    }
    point = settings.pop("point", {})
    if "per_class" in settings:
        own["per_class"] = per_class_title(settings.pop("per_class"))
    plain = {key: value for key, value in own.items() if key not in (*settings, *names, "point")}
    told = {**plain, **point}
    for axis in ("n_synthetic", "per_class", "train_rows"):
        if axis in plain:
            told[f"sweep.{axis}"] = plain[axis]
    return _as_params(flatten(settings) | told, private_names(study))


_UNTOLD = {"stage", "ranks", "recorded_key", "features", "rows", "slices", "unet", "initial"} | {
    "together_with",
    "bundle",
}
"""Names of stores and models, and how a trial is run."""


def private_names(study: StudySpec) -> frozenset[str]:
    """Dotted names of the settings that are paths, and of the URI, which may hold a password."""
    settings = flatten(study.model_dump())
    paths = {name for name, value in settings.items() if isinstance(value, Path)}
    return frozenset({*paths, "tracking.uri"})


def flatten(value: Any, name: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``; an empty mapping is a value."""
    if not isinstance(value, Mapping) or (name and not value):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flatten(inner, f"{name}.{key}" if name else str(key))
    return flat


def _as_params(settings: Mapping[str, Any], private: frozenset[str]) -> dict[str, str]:
    return {
        safe_name(name): PRIVATE if name in private and value is not None else as_text(value)
        for name, value in settings.items()
    }


def as_text(value: Any) -> str:
    """As YAML would write it: ``null``, ``true``, ``[1, 2]``; text as it is."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:LONGEST_PARAM]


def safe_name(name: str) -> str:
    """``name`` with what MLflow refuses in names replaced; class names may hold anything."""
    allowed = re.sub(r"[^\w\-. :/]", "_", name)
    relative = posixpath.normpath(allowed).lstrip("/.")
    return relative[:LONGEST_NAME] or "_"


def finite(metrics: Mapping[str, Any]) -> tuple[dict[str, float], list[str]]:
    """(the numbers, the names of those that are NaN or infinite); what is no number is left out.

    MLflow stores an infinity as 1.8e308, which ruins every chart it is in.
    """
    numbers = {
        safe_name(name): float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    good = {name: value for name, value in numbers.items() if math.isfinite(value)}
    return good, sorted(numbers.keys() - good.keys())
