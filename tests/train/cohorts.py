"""Small stores for the tests of training loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medaug.store import Provenance, Store, StoreSchema, StoreWriter

PROVENANCE = Provenance("test", "0" * 12, (), (), synthetic=False)
SIZE = 32


def slices(path: Path, patients: int, per_patient: int = 5, seed: int = 0) -> Store:
    """Noisy images (1, 32, 32) of a bright disc, its mask; the last slice of each is empty."""
    rng = np.random.default_rng(seed)
    n = patients * per_patient
    y, x = np.mgrid[:SIZE, :SIZE]
    centre, radius = rng.uniform(10, 22, (2, n, 1, 1)), rng.uniform(4, 8, (n, 1, 1))
    mask = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    number = np.arange(n)
    mask[number % per_patient == per_patient - 1] = False
    image = 100 + 20 * rng.standard_normal((n, SIZE, SIZE)) + 80 * mask
    schema = StoreSchema((1, SIZE, SIZE), "float32", (SIZE, SIZE))
    with StoreWriter(path, schema, provenance=PROVENANCE, classes=("LGG", "HGG")) as writer:
        writer.write(
            image[:, None].astype(np.float32),
            mask=mask.astype(np.uint8),
            label=number // per_patient % 2,
            patient=[f"p-{i:012x}" for i in number // per_patient],
            volume=[f"p-{i:012x}" for i in number // per_patient],
            slice_index=number % per_patient,
            tumour_pixels=mask.sum((1, 2)),
        )
    return Store.open(path)


def features(
    path: Path,
    n: int,
    shape: tuple[int, ...] = (6, 4, 4),
    *,
    difference: float = 1.0,
    positives: float = 0.5,
    classes: int = 2,
    seed: int = 0,
    unlabelled: bool = False,
) -> Store:
    """Gaussian rows of fp16 whose class k is shifted by ``difference`` * k in channel 0."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) * classes // n if positives == 0.5 else np.arange(n) < positives * n
    label = rng.permutation(label.astype(np.int32))
    x = rng.standard_normal((n, *shape)) * 3
    x[:, 0] += 3 * difference * label.reshape(-1, *[1] * (len(shape) - 1))
    names = ("LGG", "HGG", "other")[:classes]
    with StoreWriter(
        path, StoreSchema(shape, "float16"), provenance=PROVENANCE, classes=names
    ) as writer:
        writer.write(
            x.astype(np.float16),
            label=-1 if unlabelled else label,
            patient=[f"p-{i // 4:012x}" for i in range(n)],
            volume="v",
            slice_index=np.arange(n),
        )
    return Store.open(path)
