"""Random numbers of one step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medaug.seeding import generator
from medaug.train.world import World


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

    def normal(self, what: str, *shape: int) -> Tensor:
        """(n, *shape) float32 from N(0, 1)."""
        return self._share(torch.randn(self.batch_size, *shape, **self._from(what)))

    def uniform(self, what: str, *shape: int) -> Tensor:
        """(n, *shape) float32 from U(0, 1)."""
        return self._share(torch.rand(self.batch_size, *shape, **self._from(what)))

    def labels(self, what: str, n_classes: int) -> Tensor:
        """(n,) int64, every class equally likely."""
        return self._share(torch.randint(n_classes, (self.batch_size,), **self._from(what)))

    def _from(self, what: str) -> dict:
        device = self.world.device
        return {"generator": generator(self.seed, what, self.step, device=device), "device": device}

    def _share(self, x: Tensor) -> Tensor:
        mine = x[self.world.share(self.batch_size)]
        return mine if self.part is None else mine[self.part]
