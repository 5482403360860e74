"""Tiny stores: features of two classes, non-negative like those after a ReLU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medaug.arms import ArmContext
from medaug.store import Provenance, Store, StoreSchema, StoreWriter
from medaug.train.world import World

SHAPE = (12, 6, 6)
MakeStore = Callable[..., Store]


def features(
    n: int, shape: tuple[int, ...] = SHAPE, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows near a few directions, as features are; class 1 is brighter in the first channels.

    Channel 3 is dead. A third of the rows are of class 1.
    """
    random = np.random.default_rng(seed)
    labels = (np.arange(n) % 3 == 0).astype(np.int64)
    directions = np.random.default_rng(99).normal(size=(4, *shape))
    x = (
        np.tensordot(random.normal(size=(n, 4)), directions, 1)
        + random.normal(size=(n, *shape)) / 4
    )
    x[:, : max(1, shape[0] // 3)] += 2.0 * labels.reshape(-1, *(1,) * len(shape))
    x = np.maximum(x, 0)
    if shape[0] > 3:
        x[:, 3] = 0
    return x.astype(np.float32), labels


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """``make_store(n)`` writes and opens a store of n rows; five rows to a patient."""

    def make(
        n: int, shape: tuple[int, ...] = SHAPE, seed: int = 0, dtype: str = "float32"
    ) -> Store:
        x, labels = features(n, shape, seed)
        path = tmp_path / f"store-{len(list(tmp_path.iterdir()))}"
        schema = StoreSchema(x.shape[1:], dtype)  # type: ignore[arg-type]
        provenance = Provenance("test", "0" * 12, (), (), synthetic=False)
        patients = [f"p-{label}-{i // 5}" for i, label in enumerate(labels)]
        index = np.arange(len(x))
        with StoreWriter(path, schema, provenance=provenance, classes=("LGG", "HGG")) as writer:
            writer.write(x, label=labels, patient=patients, volume=patients, slice_index=index)
        return Store.open(path)

    return make


@pytest.fixture
def ctx(make_store: MakeStore) -> ArmContext:
    train, val = make_store(60), make_store(45, seed=1)
    return ArmContext(train, val, seed=7, world=World.single())
