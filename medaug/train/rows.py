"""What a generator is trained on: rows in a store, or a matrix of codes in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Unpack

import numpy as np
import torch

from medaug.store import Batch, StoreSchema
from medaug.store.sampler import Order, epoch_batches
from medaug.train.world import World


class RowSource(Protocol):
    """The part of :class:`medaug.store.Store` that training a generator needs."""

    schema: StoreSchema

    def __len__(self) -> int: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64."""
        ...

    def batches(self, world: World, batch_size: int, **order: Unpack[Order]) -> Iterator[Batch]: ...


class MemoryRows:
    """Vectors x (n, k) float32 with labels (n,), read in the same order as a store would be."""

    def __init__(self, x_ND: torch.Tensor, labels: np.ndarray, classes: tuple[str, ...]) -> None:
        self.x, self.labels, self.classes = x_ND.float(), labels, classes
        self.schema = StoreSchema(tuple(x_ND.shape[1:]), "float32")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def patients(self) -> np.ndarray:
        """(n,) names: each row is a patient of its own."""
        return np.arange(len(self)).astype(str)

    def read(self, rows: slice) -> Batch:
        """Rows in order, as :meth:`medaug.store.Store.read` gives them."""
        row = torch.arange(len(self))[rows]
        return Batch(self.x[rows], torch.from_numpy(self.labels)[rows], row, None)

    def batches(self, world: World, batch_size: int, **order: Unpack[Order]) -> Iterator[Batch]:
        """This rank's share of each global batch (see :meth:`medaug.store.Store.batches`)."""
        plan = epoch_batches(len(self), batch_size, **order)
        for rows in plan:
            mine = torch.from_numpy(rows[world.share(len(rows))])
            yield Batch(self.x[mine], torch.from_numpy(self.labels)[mine], mine, None)
