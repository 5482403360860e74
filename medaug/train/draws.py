"""Random numbers of one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from medaug.seeding import seed_of
from medaug.train.world import World

Fill = Callable[..., Any]
"""(tensor, generator=…): draws its numbers in place."""


@dataclass(frozen=True)
class Draws:
    """Random numbers of one step: drawn for the global batch, then cut to this rank's share.

    So two ranks draw what one rank with the same global batch draws.
    """

    seed: int
    step: int
    batch_size: int
    world: World
    part: slice | None = None
    """Of this rank's share: where a batch is taken part by part."""
    held: HeldDraws | None = field(default=None, compare=False)
    """Where they are drawn beforehand, into memory that does not move."""

    def normal(self, what: str, *shape: int) -> Tensor:
        """(n, *shape) float32 from N(0, 1)."""
        return self._drawn(what, shape, torch.float32, Tensor.normal_)

    def uniform(self, what: str, *shape: int) -> Tensor:
        """(n, *shape) float32 from U(0, 1)."""
        return self._drawn(what, shape, torch.float32, Tensor.uniform_)

    def labels(self, what: str, n_classes: int) -> Tensor:
        """(n,) int64, every class equally likely."""

        def fill(x: Tensor, generator: torch.Generator) -> None:
            x.random_(0, n_classes, generator=generator)

        return self._drawn(what, (), torch.int64, fill)

    def _drawn(self, what: str, shape: tuple[int, ...], dtype: torch.dtype, fill: Fill) -> Tensor:
        if self.held is not None and what in self.held:
            return self._share(self.held[what])
        device = self.world.device
        x = torch.empty((self.batch_size, *shape), dtype=dtype, device=device)
        self.fill(what, x, fill, torch.Generator(device))
        if self.held is not None:
            self.held.keep(what, x, fill)
        return self._share(x)

    def fill(self, what: str, x: Tensor, fill: Fill, generator: torch.Generator) -> None:
        """Draw in place, with ``generator``, the numbers of that name: equal names, equal ones."""
        fill(x, generator=generator.manual_seed(seed_of(self.seed, what, self.step)))

    def _share(self, x: Tensor) -> Tensor:
        mine = x[self.world.share(self.batch_size)]
        return mine if self.part is None else mine[self.part]


class HeldDraws:
    """The random numbers that one replicate's steps draw, in tensors that every step uses again.

    A step that is replayed reads them where they lie, and draws nothing by itself: its generators
    would have to be seeded anew for each step, which a recording cannot do.
    """

    def __init__(self, device: torch.device) -> None:
        self._generator = torch.Generator(device)
        self._kept: dict[str, tuple[Tensor, Fill]] = {}
        self.sealed = False
        """While a step is recorded: what it draws now for the first time would not stay."""

    def __contains__(self, what: str) -> bool:
        return what in self._kept

    def __getitem__(self, what: str) -> Tensor:
        return self._kept[what][0]

    def keep(self, what: str, x: Tensor, fill: Fill) -> None:
        assert not self.sealed, f"{what} is first drawn in a step that is recorded"
        self._kept[what] = x, fill

    def draw(self, draws: Draws) -> None:
        """All that steps have asked for so far, for another step: ``draws``."""
        for what, (x, fill) in self._kept.items():
            draws.fill(what, x, fill, self._generator)
