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

PRIVATE = "(private)"
"""Stands for a place on the user's disks or network: such names may tell who a patient is."""

LONGEST_PARAM = 6000
LONGEST_TAG = 5000
LONGEST_NAME = 250


def study_params(study: StudySpec) -> dict[str, str]:
    """Every setting of a study by its dotted name, places left out."""
    return _as_params(flatten(study.model_dump()), private_names(study))


def trial_params(config: TrialConfig, study: StudySpec) -> dict[str, str]:
    """A trial's settings by the names that they have in ``study``, its labels, fold and seed."""
    names = {
        "arm": f"arms.{config.labels.get('arm')}",
        "augment": "segmenter.augment",
        "n_synthetic": "sweep.n_synthetic",
        "train_rows": "sweep.train_rows",
    }
    settings = {names.get(name, name): value for name, value in config.settings.items()}
    own = {**config.labels, "fold": config.fold, "seed": config.seed}
    return _as_params(flatten(settings) | own, private_names(study))


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


def trial_title(config: TrialConfig) -> str:
    """For people: ``classify acgan ngf=64 +300 of 120 fold 0 seed 1``."""
    labels = dict(config.labels)
    for known in ("kind", "synthetic", "shares_passes_with"):
        labels.pop(known, None)
    arm, added, size = (labels.pop(name, None) for name in ("arm", "n_synthetic", "train_rows"))
    parts = [config.stage, *([arm] if arm else []), *(f"{k}={v}" for k, v in labels.items())]
    parts += [f"+{added}"] if added else []
    parts += [f"of {size}"] if size is not None else []
    return " ".join([*parts, f"fold {config.fold}", f"seed {config.seed}"])
