"""A slice store through an encoder: the feature store that arms and classifiers work on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from medaug.encoders.base import BLOCK, Encoder, unsealed
from medaug.store import Provenance, Store, StoreSchema
from medaug.train.checkpoint import Progress
from medaug.train.extract import SHARD_BYTES, write_features
from medaug.train.world import World


def encode_store(
    encoder: Encoder,
    slices: Store,
    out: Path,
    world: World,
    *,
    provenance: Provenance,
    fold: int | None = None,
    rows: Store | None = None,
    shard_bytes: int = SHARD_BYTES,
    change: Callable[[torch.Tensor, np.ndarray], torch.Tensor] | None = None,
) -> Iterator[Progress]:
    """Open ``encoder`` for ``slices`` and write a row for each, but not of sealed test patients;
    or for each of ``rows`` instead, to which nothing is fitted.

    Rows are float32 (D, 1, 1): D channels of one place, so whatever takes a U-Net's block takes
    them. Columns, splits, resuming and ranks are as in :func:`medaug.train.extract.write_features`.
    ``provenance`` is the stage's; whose data the encoder has seen, and its name, are put in here.
    ``change`` transforms images (N, C, S, S) of the given rows before they are encoded.
    The manifest's ``extra["encoder"]`` holds the configuration, the intensity that was chosen, the
    lineage, and whether it is fitted.

    Raises:
        UserError: weights or an extra are missing, or a fitted encoder has too few rows.
        IntegrityError: weights do not have the hash that was promised.
        EnvironmentFault: storage or a hub fails.
    """
    encoder.open(slices, world, fold)
    seen = replace(
        provenance,
        fitted_on=encoder.fitted_on,
        encoder=encoder.name,
        synthetic=False,
    )
    about = {
        "config": encoder.config.canonical(),
        "identity": encoder.identity(),
        "intensity": encoder.intensity,
        "lineage": encoder.lineage,
        "fitted": encoder.fitted,
        "fold": fold if encoder.fitted else None,
    }

    def as_block(images_NCHW: torch.Tensor) -> torch.Tensor:
        return encoder.encode(images_NCHW)[:, :, None, None]

    yield from write_features(
        as_block,
        StoreSchema((encoder.dim, 1, 1), "float32"),
        unsealed(slices) if rows is None else rows,
        out,
        world,
        batch_size=BLOCK,
        provenance=seen,
        extra={"encoder": about},
        shard_bytes=shard_bytes,
        change=change,
    )
