"""Stage ``extract``: slices or their views, and a U-Net or an encoder -> features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from medaug.arms.classical import ClassicalArm
from medaug.encoders import encode_store, encoder_of, unsealed
from medaug.experiment.names import output_name
from medaug.experiment.rows import arm_of
from medaug.experiment.segment import feature_spec, load_unet
from medaug.experiment.stores import shared
from medaug.spec import ExtractTrial
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import ExtractResult
from medaug.store import Provenance, Store
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.extract import extract_features
from medaug.train.world import World


def extract(
    config: ExtractTrial, world: World, artifacts: Artifacts, resume: Checkpoint | None
) -> Iterator[Progress]:
    """Store the feature of every slice but those of sealed test patients."""
    slices = artifacts.open_store(config.slices)
    out = artifacts.store_path(output_name(config))
    writing = features_of(config, slices, out, world, artifacts)
    yield from shared(writing, out, world, artifacts, ExtractResult)


def features_of(
    config: ExtractTrial,
    slices: Store,
    out: Path,
    world: World,
    artifacts: Artifacts,
    *,
    rows: Store | None = None,
) -> Iterator[Progress]:
    """Write the trial's features of ``slices`` to ``out``, but not of sealed test patients; or
    those of ``rows`` instead, to which nothing is fitted."""
    provenance = Provenance(
        stage="extract",
        config=config.key,
        parents=config.inputs,
        fitted_on=(),
        synthetic=False,
        encoder=config.unet,
    )
    if config.encoder is not None:
        encoder = encoder_of(config.encoder)
        yield from encode_store(
            *(encoder, slices, out, world),
            provenance=provenance,
            fold=config.fold if encoder.fitted else None,
            rows=rows,
            change=_view(config),
        )
        return
    assert config.unet is not None
    assert config.features is not None
    unet, about = load_unet(config.unet, artifacts)
    yield from extract_features(
        unet,
        feature_spec(config.features, about),
        unsealed(slices) if rows is None else rows,
        tuple(about["normalisation"]),
        out,
        world,
        provenance=replace(provenance, fitted_on=tuple(about["fitted_on"])),
        extra={"made_from": about["made_from"]} if "made_from" in about else None,
    )


def _view(config: ExtractTrial) -> Callable[[torch.Tensor, np.ndarray], torch.Tensor] | None:
    """What is done to the images first, if anything is."""
    if config.maker is None:
        return None
    arm = arm_of(config.maker)
    assert isinstance(arm, ClassicalArm)
    return partial(arm.view, number=config.view)
