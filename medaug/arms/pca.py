"""The space of the first principal components, where small generators work.

A block of 1024 x 15 x 15 numbers from a few thousand slices lies close to a few dozen directions.
Generators that fit there need little data; what lies outside (the residual) they do not make, so
their rows are smoother than real ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medaug.arms.base import ArmContext, FittedArm
from medaug.errors import UserError
from medaug.seeding import generator
from medaug.train.rows import MemoryRows, RowSource
from medaug.train.scaling import rows_per_read
from medaug.train.world import World

COMPONENTS_OF_FEATURES, COMPONENTS_OF_IMAGES = 64, 256
OVERSAMPLING = 10
PASSES = 4


@dataclass(frozen=True)
class PcaSpace:
    """``encode`` rows (N, *shape) to scores (N, k), ``decode`` scores to rows."""

    mean: Tensor
    """(d,) float32."""
    components: Tensor
    """(k, d) float32, orthonormal, by falling variance."""
    shape: tuple[int, ...]
    floor: float
    """0 where all training values were >= 0, else -inf. Decoded rows are cut off there: a sum of
    components may dip below what a post-ReLU feature can be. This moves their mean a little."""
    explained: float
    """Share of the training rows' variance."""

    @staticmethod
    def fit(rows: RowSource, k: int, seed: int, device: torch.device) -> tuple[PcaSpace, Tensor]:
        """The space of ``rows``, which are streamed, and their scores (n, k).

        Randomised subspace iteration (Halko, Martinsson & Tropp 2011, alg. 4.4) on the covariance:
        one pass over the rows for the mean and each iteration. It holds two matrices of
        d x (k + 10) numbers, however many rows there are. Every rank computes the same.

        Raises:
            UserError: fewer than two rows.
        """
        n, d = len(rows), int(np.prod(rows.schema.shape))
        if n < 2:
            raise UserError(f"arms: {n} training rows; principal components need two or more")
        k = min(k, n - 1, d)
        mean, floor, total = _moments(rows, device)
        width = min(k + OVERSAMPLING, d)
        source = generator(seed, "pca", device=device)
        basis = torch.randn(d, width, generator=source, device=device)
        for _ in range(PASSES):
            image = torch.zeros_like(basis)
            for x in _flat(rows, device):
                centred = x - mean
                image.addmm_(centred.T, centred @ basis)
            basis = torch.linalg.qr(image).Q
        scores = torch.cat([(x - mean) @ basis for x in _flat(rows, device)])
        turn = torch.linalg.svd(scores, full_matrices=False).Vh[:k]
        components = turn @ basis.T
        # A component's sign is arbitrary: its largest entry is made positive.
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        components = components * largest.sign()
        scores = scores @ turn.T * largest.sign().T
        explained = float(scores.double().square().sum() / max(total, 1e-300))
        space = PcaSpace(mean, components, rows.schema.shape, floor, min(explained, 1.0))
        return space, scores

    def encode(self, x: Tensor) -> Tensor:
        return (x.float().flatten(1) - self.mean) @ self.components.T

    def decode(self, scores_Nk: Tensor) -> Tensor:
        x = torch.addmm(self.mean, scores_Nk, self.components).clamp_min(self.floor)
        return x.view(-1, *self.shape)


class PcaArm(FittedArm):
    """A model of principal component scores: ``scores`` makes them, the space decodes them."""

    space: PcaSpace

    def enter(self, ctx: ArmContext) -> MemoryRows:
        """Fit the space to the training rows and return their scores."""
        images = ctx.train.provenance.encoder is None
        k = self.config.components or (COMPONENTS_OF_IMAGES if images else COMPONENTS_OF_FEATURES)
        self.space, scores = PcaSpace.fit(ctx.train, k, ctx.seed, ctx.world.device)
        self.n_classes, self.shape = len(ctx.train.classes), ctx.train.schema.shape
        self.remarks = {"pca_explained": self.space.explained}
        for label in range(self.n_classes):
            ctx.rows_of_class(label)
        return MemoryRows(scores, ctx.train.labels, ctx.train.classes)

    def scores(self, label: int, index: np.ndarray, seed: int) -> Tensor:
        """(n, k) scores of rows number ``index`` of a class."""
        raise NotImplementedError

    @torch.inference_mode()
    def block(self, label: int, index: np.ndarray, seed: int) -> Tensor:
        return self.space.decode(self.scores(label, index, seed))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {"pca.mean": self.space.mean, "pca.components": self.space.components}
        floor = None if self.space.floor == -np.inf else self.space.floor
        facts = {"n_classes": self.n_classes, "shape": list(self.shape), "floor": floor}
        return tensors, facts | {"explained": self.space.explained}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.n_classes, self.shape = facts["n_classes"], tuple(facts["shape"])
        floor = -np.inf if facts["floor"] is None else facts["floor"]
        mean, components = tensors["pca.mean"], tensors["pca.components"]
        self.space = PcaSpace(mean, components, self.shape, floor, facts["explained"])
        self.remarks = {"pca_explained": self.space.explained}


def _flat(rows: RowSource, device: torch.device) -> Iterator[Tensor]:
    """All rows in order, (n, d) float32."""
    world = World.single(device)
    size = rows_per_read(rows)
    for batch in rows.batches(world, size, seed=0, epoch=0, shuffle=False, drop_last=False):
        yield batch.x.to(device).float().flatten(1)


def _moments(rows: RowSource, device: torch.device) -> tuple[Tensor, float, float]:
    """Mean (d,), floor, and the sum of squared distances from the mean."""
    total: Tensor | float = 0.0
    squares, low = 0.0, torch.inf
    for x in _flat(rows, device):
        total = total + x.sum(0, dtype=torch.float64)
        squares += float(x.square().sum(dtype=torch.float64))
        low = min(low, float(x.min()))
    assert isinstance(total, Tensor)
    mean = total / len(rows)
    spread = squares - len(rows) * float(mean.square().sum())
    return mean.float(), 0.0 if low >= 0 else -torch.inf, spread
