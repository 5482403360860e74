"""Small slice stores with a split, for the tests of encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medaug.store import Fold, Provenance, Splits, Store, StoreSchema, StoreWriter

MADE = Provenance("encode", "0" * 12, ("slices",), (), synthetic=False)
PATIENTS, PER_PATIENT = 9, 3


def pictures(
    n: int, size: int = 40, channels: int = 1, high: float = 1.0, seed: int = 0
) -> np.ndarray:
    """(n, channels, size, size) float32 from 0 to ``high``: a blob each, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    centre, radius = (
        rng.uniform(0.3, 0.7, (2, n, channels, 1, 1)),
        rng.uniform(0.1, 0.3, (n, 1, 1, 1)),
    )
    blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / radius**2)
    image = np.clip(0.8 * blob + 0.1 * rng.random(blob.shape), 0, 1) * high
    return image.astype(np.float32)


def slice_store(path: Path, dtype: str = "float32", **how: Any) -> Store:
    """27 images of 9 patients; the last two are sealed, two folds share the others."""
    n = PATIENTS * PER_PATIENT
    x = pictures(n, **how)
    if dtype == "uint8":
        x = np.round(x * 255).astype(np.uint8)
    names = [f"p-{i}" for i in range(PATIENTS)]
    folds = (
        Fold(tuple(names[:4]), (names[4],), tuple(names[5:7])),
        Fold(tuple(names[3:7]), (names[2],), tuple(names[:2])),
    )
    number = np.arange(n) // PER_PATIENT
    schema = StoreSchema(x.shape[1:], dtype)  # type: ignore[arg-type]
    made = Provenance("slices", "0" * 12, (), (), synthetic=False)
    splits = Splits(folds, tuple(names[7:]))
    with StoreWriter(path, schema, provenance=made, classes=("no", "yes"), splits=splits) as writer:
        writer.write(
            x,
            label=number % 2,
            patient=[names[i] for i in number],
            volume=[names[i] for i in number],
            slice_index=np.arange(n) % PER_PATIENT,
        )
    return Store.open(path)
