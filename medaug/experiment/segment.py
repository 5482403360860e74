"""Stage ``segment``: slices and masks -> U-Net."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file

from medaug.data.slices import normalisation
from medaug.experiment.lineage import choosing_rows
from medaug.experiment.names import output_name
from medaug.models.unet import UNet, adapt_input
from medaug.spec import SegmenterSpec, TrialConfig
from medaug.storage.artifacts import Shelf
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.segment import train_segmenter
from medaug.train.world import World


def segment(
    config: TrialConfig, world: World, shelf: Shelf, resume: Checkpoint | None
) -> Iterator[Progress]:
    """Train a U-Net on the fold's training patients; publish the epoch with the best IoU."""
    spec = SegmenterSpec.model_validate(config.settings["segmenter"])
    slices = shelf.open_store(config.inputs["slices"])
    train = slices.split("train", config.fold)
    mean_std = normalisation(slices, config.fold)
    epochs = train_segmenter(
        spec,
        train,
        choosing_rows(slices, config.fold),
        mean_std,
        world,
        config.seed,
        initial=_initial_weights(spec, config, shelf),
        resume=resume,
    )
    for progress in epochs:
        if (unet := progress.result) is not None:
            description = {
                "base": spec.base,
                "normalisation": mean_std,
                "fitted_on": sorted(set(train.units.tolist())),
                "parents": list(config.inputs.values()),
            }
            if world.is_main:
                shelf.save_model(output_name(config), unet.weights, description)
            result = {
                "output": output_name(config),
                "scores": unet.scores,
                "best_epoch": unet.best_epoch,
                "history": unet.history,
            }
            progress = replace(progress, result=result)
        yield progress


def _initial_weights(
    spec: SegmenterSpec, config: TrialConfig, shelf: Shelf
) -> dict[str, torch.Tensor] | None:
    if "initial" in config.inputs:
        return shelf.load_model(config.inputs["initial"])[0]
    if spec.pretrain is None or spec.pretrain.weights is None:
        return None
    weights = load_file(spec.pretrain.weights)
    return adapt_input(weights, spec.input_adapter) if spec.in_channels == 4 else weights


def load_unet(name: str, shelf: Shelf) -> tuple[UNet, dict[str, Any]]:
    """A published U-Net and its description (``normalisation``, ``fitted_on``, …)."""
    tensors, about = shelf.load_model(name)
    unet = UNet(tensors["conv1.0.weight"].shape[1], about["base"])
    unet.load_state_dict(tensors)
    return unet, about
