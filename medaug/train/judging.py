"""A generator is judged while it trains, by all ranks together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from medaug.train.world import World

BLOCK = 64


class Quality(Protocol):
    """Judges generated rows during training; it must be cheap."""

    labels: Tensor
    """(N,) int64: the classes of the rows that it wants."""

    def summary(self, x: Tensor) -> Tensor:
        """Generated rows (n, *shape), in the units of the training rows, to vectors (n, d)."""
        ...

    def score(self, summary_ND: Tensor) -> dict[str, float]:
        """Scores, named ``val/…``, of the summaries of N rows."""
        ...


def judged(
    quality: Quality, make: Callable[[Tensor, Tensor], Tensor], world: World
) -> dict[str, float]:
    """Its scores, the same on every rank.

    ``make(rows, label)``: generated rows number ``rows`` (n,) of those that it wants, of classes
    ``label`` (n,). Each rank makes its share.
    """
    label = quality.labels
    mine = torch.arange(len(label), device=label.device)[world.share(len(label))]
    summaries = [quality.summary(make(rows, label[rows])) for rows in mine.split(BLOCK)]
    scores = quality.score(world.gather(torch.cat(summaries)))
    # The ranks' processors may round differently: all take the first one's word.
    values = torch.tensor(list(scores.values()), dtype=torch.float64, device=world.device)
    values = world.reduce_sum(values if world.is_main else torch.zeros_like(values))
    return dict(zip(scores, values.tolist(), strict=True))
