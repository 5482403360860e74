"""Sums that stay on the device during an epoch and are reduced over ranks once, at its end.

Values may have a leading axis of K replicates that are trained together: then they are summed side
by side and read one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

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

    def add(self, values: dict[str, Tensor], rows: int, skipped: Tensor) -> None:
        """Add means over ``rows`` rows of this rank; a step that was ``skipped`` is left out.

        ``values``: scalars or (K,), ``skipped`` likewise; the same names in every call.
        """
        each = [v.detach() for v in values.values()]
        if self._sums is None:
            self._names = list(values)
            self._one = torch.ones_like(each[0])
            self._sums = each[0].new_zeros(*each[0].shape, 1 + len(each), dtype=torch.double)
        item = torch.stack([self._one, *each], dim=-1).masked_fill(skipped[..., None], 0.0)
        self._sums.add_(item, alpha=rows)

    def clear(self) -> None:
        """Begin anew, in the same memory: a captured step adds to where it lies."""
        if self._sums is not None:
            self._sums.zero_()

    @staticmethod
    def of_one(parts: Sequence[tuple[Tally, int]], world: World) -> Tally:
        """What tallies of several groups of replicates hold of one, which is number i of each."""
        one = Tally(world)
        found = [(tally, i) for tally, i in parts if tally._sums is not None]
        for tally, i in found:
            assert tally._sums is not None
            mine = tally._sums[i]
            one._names = tally._names
            one._sums = mine if one._sums is None else one._sums + mine
        return one

    def means(self) -> dict[str, float]:
        """Name -> mean over all rows of all ranks; nothing if no step was taken."""
        if self._sums is None:
            return {}
        rows, *sums = self._world.reduce_sum(self._sums).tolist()
        return {k: s / rows for k, s in zip(self._names, sums, strict=True)} if rows else {}


class ClassSpread:
    """Deviation within their class of K replicates' real and generated rows: counts, sums and sums
    of squares of summaries."""

    def __init__(self, n_classes: int, replicates: int, world: World) -> None:
        self._k, self._world = replicates, world
        self._one_hot = torch.eye(n_classes, dtype=torch.double, device=world.device)
        self._one = torch.ones(1, dtype=torch.double, device=world.device)
        self._sums: Tensor | None = None

    def clear(self) -> None:
        """Begin anew, as :meth:`Tally.clear`."""
        if self._sums is not None:
            self._sums.zero_()

    @torch.no_grad()
    def add(self, x: Tensor, label: Tensor, skipped: Tensor) -> None:
        """Add rows x (K*2*n, ...) of this rank with labels (K*2*n,), each replicate's real ones
        before its generated ones; those of replicates whose step was ``skipped`` (K,) are left
        out."""
        y = summary(x).double().view(self._k, 2, len(x) // (2 * self._k), -1)
        each = torch.cat([self._one.expand(*y.shape[:-1], 1), y, y.square()], dim=-1)
        each = each.masked_fill(skipped[:, None, None, None], 0.0)
        of_class = self._one_hot.index_select(0, label).view(2 * self._k, -1, len(self._one_hot))
        if self._sums is None:
            self._sums = each.new_zeros(self._k, 2, len(self._one_hot), each.shape[-1])
        self._sums.flatten(0, 1).baddbmm_(of_class.mT, each.flatten(0, 1))

    @staticmethod
    def deviations(parts: Sequence[tuple[ClassSpread, int]], world: World) -> tuple[float, float]:
        """(of real rows, of generated ones): root of the within-class variance, averaged over the
        summary's entries. ``parts``: of which replicate in each of several groups."""
        mine = [spread._sums[i] for spread, i in parts if spread._sums is not None]
        assert mine, "no rows"
        sums = world.reduce_sum(mine[0] if len(mine) == 1 else torch.stack(mine).sum(0))
        count, (total, squares) = sums[..., :1], sums[..., 1:].chunk(2, dim=-1)
        within = (squares - total.square() / count.clamp_min(1)).sum(1) / count.sum(1)
        real, fake = within.mean(-1).clamp_min(0).sqrt().tolist()
        return real, fake


def summary(x: Tensor) -> Tensor:
    """A short vector of each row: channel means of a feature, an 8 x 8 thumbnail of an image."""
    if x.ndim == 2:
        return x
    if x.shape[1] >= 8:
        return x.mean((2, 3), dtype=torch.float32)
    return F.adaptive_avg_pool2d(x.float(), min(8, x.shape[-1])).flatten(1)
