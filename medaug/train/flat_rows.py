"""Rows of a store in memory as vectors: what linear classifiers take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medaug.metrics.generative import gap_gmp
from medaug.store import Store

READ_ROWS = 256
MOST_IMAGE_CHANNELS = 4
"""Rows of more channels are feature maps."""

Pool = Literal["auto", "none", "gap_gmp"]


def as_vectors(x: np.ndarray, pool: Pool = "auto") -> np.ndarray:
    """Rows (n, ...) as vectors (n, d), in the way that ``LinearSpec.pool`` says."""
    return gap_gmp(x) if _pooled(x.shape[1:], pool) else x.reshape(len(x), -1)


def vector_length(shape: tuple[int, ...], pool: Pool = "auto") -> int:
    """d of :func:`as_vectors` for rows of ``shape``."""
    return 2 * shape[0] if _pooled(shape, pool) else int(np.prod(shape))


def _pooled(shape: tuple[int, ...], pool: Pool) -> bool:
    if len(shape) != 3:
        return False
    feature_maps = shape[0] > MOST_IMAGE_CHANNELS and shape[1] * shape[2] > 1
    return pool == "gap_gmp" or (pool == "auto" and feature_maps)


@dataclass(frozen=True, eq=False)
class FlatRows:
    """Rows in memory, as linear classifiers take them."""

    x: np.ndarray
    """(n, d) of any float type."""
    label: np.ndarray
    """(n,) int64, an index into ``classes``."""
    patient: np.ndarray
    """(n,) str."""
    classes: tuple[str, ...]

    @staticmethod
    def of(rows: Store, pool: Pool = "auto") -> FlatRows:
        """All of a store's rows as vectors (see ``LinearSpec.pool``), float32."""
        x = np.empty((len(rows), vector_length(rows.schema.shape, pool)), np.float32)
        for part, block in blocks_of(rows):
            x[part] = as_vectors(block, pool)
        return FlatRows(x, rows.labels, rows.patients, rows.classes)

    def __len__(self) -> int:
        return len(self.label)


def blocks_of(rows: Store) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows, what is in them (n, *shape) float32) of a store, in order."""
    for start in range(0, len(rows), READ_ROWS):
        part = slice(start, min(start + READ_ROWS, len(rows)))
        yield part, rows.read(part).x.float().numpy()
