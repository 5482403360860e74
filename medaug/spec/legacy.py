"""Runs that version 0.1 has made, in the terms of today's types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Data = Mapping[str, Any]


def is_old_trial(data: Data) -> bool:
    return "settings" in data


def upgraded_trial(data: Data, key: str) -> dict[str, Any]:
    """A trial's ``config.json`` of version 0.1; ``key`` is the name of its folder."""
    settings, inputs, labels = data["settings"], data.get("inputs", {}), data.get("labels", {})
    common = {name: data[name] for name in ("stage", "fold", "seed", "ranks") if name in data}
    common["recorded_key"] = key
    parts = {"segment": _segment, "extract": _extract, "generate": _generate}
    return common | parts.get(data["stage"], _classify)(settings, inputs, labels)


def _segment(settings: Data, inputs: Data, labels: Data) -> dict[str, Any]:
    return {
        "segmenter": settings["segmenter"],
        "weights_sha256": settings.get("weights_sha256"),
        "slices": inputs["slices"],
        "initial": inputs.get("initial"),
        "purpose": labels.get("purpose"),
    }


def _extract(settings: Data, inputs: Data, labels: Data) -> dict[str, Any]:
    return {"features": settings["features"], "slices": inputs["slices"], "unet": inputs["unet"]}


def _generate(settings: Data, inputs: Data, labels: Data) -> dict[str, Any]:
    return {
        "arm": labels["arm"],
        "maker": settings["arm"],
        "point": _point(labels),
        "n": settings["n"],
        "features": inputs["features"],
        "train_rows": settings.get("train_rows"),
        "generator_rows": settings.get("generator_rows", "train"),
        "slices": inputs.get("slices"),
        "unet": inputs.get("unet"),
        "encoding": settings.get("features"),
        "augment": settings.get("augment"),
    }


def _classify(settings: Data, inputs: Data, labels: Data) -> dict[str, Any]:
    return {
        "classifier": upgraded_classifier(settings["classifier"]),
        "arm": labels["arm"],
        "kind": labels["kind"],
        "synthetic": labels["synthetic"],
        "point": _point(labels),
        "features": inputs["features"],
        "rows": inputs.get("rows"),
        "maker": settings.get("arm"),
        "n_synthetic": settings["n_synthetic"],
        "real_rows": settings.get("real_rows", True),
        "train_rows": settings.get("train_rows"),
        "protocol": settings["protocol"],
    }


_NO_AXES = (
    *("arm", "kind", "synthetic", "n_synthetic", "train_rows", "purpose"),
    "shares_passes_with",
)


def _point(labels: Data) -> dict[str, Any]:
    return {key: value for key, value in labels.items() if key not in _NO_AXES}


def upgraded_classifier(data: Data) -> dict[str, Any]:
    """A classifier's settings, of version 0.1 or later."""
    settings = dict(data)
    if settings.pop("class_weights", False):
        settings["weighting"] = "class_weights"
    return settings


def upgraded_study(data: Data) -> dict[str, Any]:
    """A run's ``study.json``, of version 0.1 or later."""
    study = dict(data)
    if isinstance(study.get("classifier"), Mapping):
        study["classifier"] = upgraded_classifier(study["classifier"])
    source = study.get("data")
    if isinstance(source, Mapping) and source.get("layout") in _MADE_GREY:
        study["data"] = {"colour": "grey", **source}
    return study


_MADE_GREY = (
    *("class_folders", "csv_images", "image_list", "head_ct", "ct_ich", "medmnist", "table"),
    "monai_datalist",
)
"""Layouts of pictures, which a medaug without ``data.colour`` read as grey."""
