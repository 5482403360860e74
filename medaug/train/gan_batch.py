"""The rows of one step of a GAN, real and generated, of one replicate and of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from medaug.train.draws import Draws
from medaug.train.training_rows import Drawn


@dataclass(frozen=True)
class StepDraw:
    """What decides a step of one replicate before anything is computed: which real rows, and the
    random numbers."""

    rows: Drawn
    draws: Draws


@dataclass(frozen=True)
class GanBatch:
    """This rank's real rows of one step of one replicate, scaled, and what generated ones are
    made from."""

    real: Tensor
    real_label: Tensor
    fake_label: Tensor
    z: Tensor
    draws: Draws


@dataclass(frozen=True)
class StepInput:
    """Rows of one step of K replicates, as the networks see them: (K*n, …) each."""

    real: Tensor
    real_label: Tensor
    fake: Tensor
    """Off the generator's graph; it wants a gradient where the generator learns in this step."""
    fake_label: Tensor
    z: Tensor
    draws: tuple[Draws, ...]
    """Of each replicate."""

    @property
    def rows(self) -> int:
        """n: of one replicate, on this rank."""
        return len(self.real) // len(self.draws)

    @cached_property
    def both(self) -> Tensor:
        """(K*2*n, …): each replicate's real rows, then its generated ones."""
        return in_turn(self.real, self.fake.detach(), len(self.draws))

    @cached_property
    def both_labels(self) -> Tensor:
        """(K*2*n,): of :attr:`both`."""
        return in_turn(self.real_label, self.fake_label, len(self.draws))

    def split(self, parts: int) -> list[StepInput]:
        """The same rows in ``parts`` inputs; their lengths differ by at most one."""
        if parts == 1:
            return [self]
        n = self.rows
        return [self._part(slice(n * i // parts, n * (i + 1) // parts)) for i in range(parts)]

    def _part(self, rows: slice) -> StepInput:
        def cut(x: Tensor) -> Tensor:
            return joined([each[rows] for each in x.chunk(len(self.draws))])

        return StepInput(
            cut(self.real),
            cut(self.real_label),
            cut(self.fake),
            cut(self.fake_label),
            cut(self.z),
            tuple(replace(each, part=rows) for each in self.draws),
        )


def in_turn(a: Tensor, b: Tensor, k: int) -> Tensor:
    """Of (K*n, …) each: a's rows of the first replicate, b's of the first, a's of the second, …"""
    return torch.cat([rows for pair in zip(a.chunk(k), b.chunk(k), strict=True) for rows in pair])


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Rows end to end; one part as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
