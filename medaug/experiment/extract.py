"""Stage ``extract``: slices and a U-Net -> features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from medaug.experiment.names import output_name
from medaug.experiment.segment import feature_spec, load_unet
from medaug.spec import ExtractTrial
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import ExtractResult
from medaug.store import Provenance
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.extract import extract_features
from medaug.train.world import World


def extract(
    config: ExtractTrial, world: World, artifacts: Artifacts, resume: Checkpoint | None
) -> Iterator[Progress]:
    """Store one block of the fold's U-Net for every slice but those of sealed test patients."""
    slices = artifacts.open_store(config.slices)
    assert slices.splits is not None
    slices = slices.select(~np.isin(slices.units, slices.splits.test))
    unet, about = load_unet(config.unet, artifacts)
    spec = feature_spec(config.features, about)
    out = artifacts.store_path(output_name(config))
    provenance = Provenance(
        stage="extract",
        config=config.key,
        parents=config.inputs,
        fitted_on=tuple(about["fitted_on"]),
        synthetic=False,
        encoder=config.unet,
    )
    for progress in extract_features(
        unet,
        spec,
        slices,
        tuple(about["normalisation"]),
        out,
        world,
        provenance=provenance,
    ):
        if progress.result is not None:
            if world.is_main:
                artifacts.share_store(out.name)
            world.barrier()
            shape = artifacts.open_store(out.name).schema.shape
            result = ExtractResult(output=out.name, rows=len(slices), shape=shape)
            progress = replace(progress, result=result)
        yield progress
