"""Sums that stay on the device during an epoch and are reduced over ranks once, at its end."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medaug.train.world import World


class Tally:
    """Means of several values over an epoch, one small addition per step and no wait."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._names: list[str] = []
        self._sums: Tensor | None = None

    def add(self, values: dict[str, Tensor], rows: int, taken: Tensor) -> None:
        """Add means over ``rows`` rows of this rank; a step that was not ``taken`` is left out.

        ``values``: scalars, the same names in every call.
        """
        stacked = torch.stack([v.detach().double() for v in values.values()])
        item = torch.where(taken, F.pad(stacked, (1, 0), value=1.0) * rows, 0.0)
        self._names = list(values)
        self._sums = item if self._sums is None else self._sums + item

    def means(self) -> dict[str, float]:
        """Name -> mean over all rows of all ranks; nothing if no step was taken."""
        if self._sums is None:
            return {}
        rows, *sums = self._world.reduce_sum(self._sums).tolist()
        return {k: s / rows for k, s in zip(self._names, sums, strict=True)} if rows else {}


class ClassSpread:
    """Deviation of rows within their class: counts, sums and sums of squares of summaries."""

    def __init__(self, n_classes: int, world: World) -> None:
        self._n_classes, self._world = n_classes, world
        self._sums: Tensor | None = None

    @torch.no_grad()
    def add(self, x: Tensor, label_N: Tensor, taken: Tensor) -> None:
        """Add rows x (N, ...) of this rank; those of a step not ``taken`` are left out."""
        y = summary(x).double()
        member = (label_N == torch.arange(self._n_classes, device=x.device)[:, None]).double()
        each = torch.cat([torch.ones_like(y[:, :1]), y, y.square()], dim=1)
        item = torch.where(taken, member @ each, 0.0)
        self._sums = item if self._sums is None else self._sums + item

    def deviation(self) -> float:
        """Root of the within-class variance, averaged over the summary's entries."""
        assert self._sums is not None, "no rows"
        sums = self._world.reduce_sum(self._sums)
        count, (total, squares) = sums[:, :1], sums[:, 1:].chunk(2, dim=1)
        within = (squares - total.square() / count.clamp_min(1)).sum(0) / count.sum()
        return float(within.mean().clamp_min(0).sqrt())


def summary(x: Tensor) -> Tensor:
    """A short vector of each row: channel means of a feature, an 8 x 8 thumbnail of an image."""
    if x.ndim == 2:
        return x
    if x.shape[1] >= 8:
        return x.mean((2, 3), dtype=torch.float32)
    return F.adaptive_avg_pool2d(x.float(), min(8, x.shape[-1])).flatten(1)
