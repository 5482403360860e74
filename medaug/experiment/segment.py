"""Stage ``segment``: slices and masks -> U-Net."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file

from medaug.data.normalisation import normalisation
from medaug.experiment.lineage import UNKNOWN, choosing_rows, seen_by_weights
from medaug.experiment.names import output_name
from medaug.models.unet import UNet, adapt_input
from medaug.spec import FeatureSpec, SegmentTrial
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import SegmentResult
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.segment import train_segmenter
from medaug.train.world import World


def segment(
    config: SegmentTrial, world: World, artifacts: Artifacts, resume: Checkpoint | None
) -> Iterator[Progress]:
    """Train a U-Net on the fold's training patients; publish the epoch with the best IoU."""
    spec = config.segmenter
    slices = artifacts.open_store(config.slices)
    train = slices.split("train", config.fold)
    mean_std = normalisation(slices, config.fold)
    fitted_on, made_from = set(train.units.tolist()), {}
    given = spec.pretrain.weights if config.initial is None and spec.pretrain else None
    if given is not None:
        seen = seen_by_weights(given, slices, config.fold)
        fitted_on |= set(seen or ())
        made_from = {"made_from": UNKNOWN} if seen is None else {}
    epochs = train_segmenter(
        spec,
        train,
        choosing_rows(slices, config.fold),
        mean_std,
        world,
        config.seed,
        initial=_initial_weights(config, artifacts, slices.schema.shape[0]),
        resume=resume,
    )
    for progress in epochs:
        if (unet := progress.result) is not None:
            description = {
                "base": spec.base,
                "precision": unet.precision,
                "normalisation": mean_std,
                "fitted_on": sorted(fitted_on),
                "parents": list(config.inputs),
                **made_from,
            }
            if world.is_main:
                artifacts.save_model(output_name(config), unet.weights, description)
            result = SegmentResult(
                output=output_name(config),
                scores=unet.scores,
                best_epoch=unet.best_epoch,
                history=tuple(unet.history),
                precision=unet.precision,
            )
            progress = replace(progress, result=result)
        yield progress


def _initial_weights(
    config: SegmentTrial, artifacts: Artifacts, channels: int
) -> dict[str, torch.Tensor] | None:
    """Of the pre-training, or of a file, for images of so many channels."""
    spec = config.segmenter
    if config.initial is not None:
        weights = artifacts.load_model(config.initial)[0]
    elif spec.pretrain is None or spec.pretrain.weights is None:
        return None
    else:
        weights = load_file(spec.pretrain.weights)
    return adapt_input(weights, spec.input_adapter, channels)


def feature_spec(spec: FeatureSpec, about: Mapping[str, Any]) -> FeatureSpec:
    """How features are made with the U-Net that ``about`` describes.

    Precision ``auto`` is the one that it was trained in: features that are made on another node,
    or of generated images in another trial, are then made in the same way. Of one trained in fp16
    they are float32: an activation of a scan not seen before may be larger than 65,504.
    """
    if spec.precision != "auto":
        return spec
    trained_in = about.get("precision", "fp32")
    return spec.model_copy(update={"precision": "fp32" if trained_in == "fp16" else trained_in})


def load_unet(name: str, artifacts: Artifacts) -> tuple[UNet, dict[str, Any]]:
    """A published U-Net and its description (``normalisation``, ``fitted_on``, …)."""
    tensors, about = artifacts.load_model(name)
    unet = UNet(tensors["conv1.0.weight"].shape[1], about["base"])
    unet.load_state_dict(tensors)
    return unet, about
