"""A cheap look at a generator while it trains: the Fréchet distance to validation patients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from medaug.metrics.generative import Projection, frechet_distance
from medaug.train.rows import RowSource
from medaug.train.scaling import rows_per_read
from medaug.train.tally import summary
from medaug.train.world import World

Decode = Callable[[Tensor], Tensor]
MOST_COMPONENTS = 32
ROWS_PER_COMPONENT = 10
"""Fewer bias the distance upwards: by .11 per dimension at 4, .03 at 18."""
FEWEST, MOST_ROWS = 64, 256
"""Generated rows per class."""
BLOCK = 64


class FrechetProbe:
    """``val/fd``: mean over classes of the Fréchet distance between generated and validation rows.

    Rows are pooled to short vectors, and these projected to the standardised principal components
    of the *training* rows' vectors. It ranks epochs, widths and arms of one study; it is no score
    of a generator: see ``medaug.metrics.quality`` for those, and their value between real patients.

    ``decode`` turns what a generator makes (principal component scores) into rows.
    """

    def __init__(
        self, train: RowSource, val: RowSource, world: World, decode: Decode | None
    ) -> None:
        self.device, self.decode = world.device, decode
        counts = _counts(val)
        self.classes = np.flatnonzero(counts)
        smallest = int(counts[self.classes].min())
        k = max(2, min(MOST_COMPONENTS, smallest // ROWS_PER_COMPONENT))
        self.project = Projection(self._summaries(train), k)
        real = self.project(self._summaries(val))
        self.real = [real[val.labels == label] for label in self.classes]
        self.per_class = int(np.clip(counts.max(), FEWEST, MOST_ROWS))
        self.labels = torch.from_numpy(self.classes.repeat(self.per_class)).to(self.device)

    def summary(self, x: Tensor) -> Tensor:
        return summary(x if self.decode is None else self.decode(x))

    def score(self, summary_ND: Tensor) -> dict[str, float]:
        fake = np.split(self.project(summary_ND.cpu().numpy()), len(self.classes))
        distances = map(frechet_distance, self.real, fake)
        return {"val/fd": float(np.mean(list(distances)))}

    def judge(self, block: Callable[[int, np.ndarray], Tensor]) -> dict[str, float]:
        """Score what ``block(label, index)`` makes: rows number ``index`` of a class."""
        blocks = np.split(np.arange(self.per_class), range(BLOCK, self.per_class, BLOCK))
        parts = [self.summary(block(int(c), index)) for c in self.classes for index in blocks]
        return self.score(torch.cat(parts))

    def _summaries(self, rows: RowSource) -> np.ndarray:
        world = World.single(self.device)
        batches = rows.batches(
            world, rows_per_read(rows), seed=0, epoch=0, shuffle=False, drop_last=False
        )
        parts = [summary(batch.x.to(self.device).float()) for batch in batches]
        return torch.cat(parts).cpu().numpy()


def probe(
    train: RowSource, val: RowSource, world: World, decode: Decode | None = None
) -> FrechetProbe | None:
    """A probe, or None where there is too little to compare (a class of one validation row)."""
    counts = _counts(val)
    if len(train) < 3 or not len(counts[counts > 0]) or counts[counts > 0].min() < 2:
        return None
    return FrechetProbe(train, val, world, decode)


def _counts(rows: RowSource) -> np.ndarray:
    """Rows per class."""
    return np.bincount(rows.labels[rows.labels >= 0], minlength=len(rows.classes))
