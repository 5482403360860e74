"""Rows scaled for a generator: fitted on its training rows, kept with it, undone on its output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from medaug.train.rows import RowSource
from medaug.train.world import World


@dataclass(frozen=True)
class ChannelStatistics:
    """Of all rows, per channel (axis 1), float64 (C,)."""

    mean: torch.Tensor
    std: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    @staticmethod
    def of(rows: RowSource, world: World) -> ChannelStatistics:
        """One pass over ``rows``, shared by the ranks; the same on every rank."""
        channels = rows.schema.shape[0]
        sums = torch.zeros(3, channels, dtype=torch.float64, device=world.device)
        limits = torch.full((2, channels), -torch.inf, device=world.device)
        for batch in rows.batches(
            world, rows_per_read(rows), seed=0, epoch=0, shuffle=False, drop_last=False
        ):
            if not len(batch.x):  # a last batch with fewer rows than ranks
                continue
            x = batch.x.to(world.device).float().view(len(batch.x), channels, -1)
            count = x.new_full((channels,), len(x) * x.shape[2])
            axes = (0, 2)
            total = x.sum(axes, dtype=torch.float64)
            sums += torch.stack([count, total, x.square().sum(axes, dtype=torch.float64)])
            limits = torch.maximum(limits, torch.stack([-x.amin(axes), x.amax(axes)]))
        count, total, squares = world.reduce_sum(sums).cpu()
        minus_low, high = world.gather(limits[None]).amax(0).double().cpu()
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        return ChannelStatistics(mean, variance.sqrt(), -minus_low, high)


@dataclass(frozen=True)
class FeatureScale:
    """``encode``: (x - shift) / spread per channel; ``decode``: its inverse, kept >= ``floor``.

    A channel that is constant in the training rows (a dead ReLU) has spread 0: it is encoded as 0
    and decoded as that constant. ``floor`` is 0 where all training values were >= 0 (post-ReLU
    features, intensities), else -inf: generated rows keep to it.
    """

    shift: torch.Tensor
    """(C,) float32, as ``spread``."""
    spread: torch.Tensor
    floor: float

    @staticmethod
    def fit(
        rows: RowSource, how: Literal["standardise", "minmax", "none"], world: World
    ) -> FeatureScale:
        """``standardise`` to mean 0 and deviation 1, ``minmax`` to [-1, 1], ``none`` as is."""
        seen = ChannelStatistics.of(rows, world)
        if how == "standardise":
            shift, spread = seen.mean, torch.where(seen.high > seen.low, seen.std, 0)
        elif how == "minmax":
            shift, spread = (seen.high + seen.low) / 2, (seen.high - seen.low) / 2
        else:
            shift, spread = torch.zeros_like(seen.mean), torch.ones_like(seen.mean)
        floor = 0.0 if seen.low.min() >= 0 else -torch.inf
        return FeatureScale(shift.float().to(world.device), spread.float().to(world.device), floor)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Rows (N, C, ...) of any dtype, scaled, float32."""
        divisor = torch.where(self.spread > 0, self.spread, 1)
        # The difference of half and float is a float of its own: no copy of x comes first.
        return (x - self._shaped(self.shift, x)).div_(self._shaped(divisor, x))

    def decode(self, y: torch.Tensor) -> torch.Tensor:
        """Scaled rows (N, C, ...) back in the units of the training rows, float32."""
        x = torch.addcmul(self._shaped(self.shift, y), y.float(), self._shaped(self.spread, y))
        return x.clamp_min(self.floor)

    def tensors(self) -> dict[str, torch.Tensor]:
        floor = torch.tensor(self.floor, device=self.shift.device)
        return {"shift": self.shift, "spread": self.spread, "floor": floor}

    @staticmethod
    def of(tensors: Mapping[str, torch.Tensor]) -> FeatureScale:
        """From what :meth:`tensors` gave."""
        return FeatureScale(tensors["shift"], tensors["spread"], float(tensors["floor"]))

    @staticmethod
    def _shaped(per_channel: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return per_channel.view(-1, *(1,) * (x.ndim - 2))


def channels_last(x: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rows (N, C, H, W) in ``dtype`` with channels innermost in memory; other rows as they are.

    On a CPU torch converts and transposes in one strided pass that takes three times as long as
    one after the other, the latter in blocks, which it does for matrices only.
    """
    x = x.to(dtype)
    if x.ndim != 4 or x.device.type != "cpu" or not x.is_contiguous():
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    rows = x.new_empty(len(x), x.shape[2] * x.shape[3], x.shape[1])
    for row, matrix in zip(rows, x.flatten(2), strict=True):
        row.copy_(matrix.mT)
    return rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def rows_per_read(rows: RowSource, values: int = 1 << 24) -> int:
    """How many rows hold about ``values`` numbers: bounds the memory of a pass over any store."""
    return max(1, min(1024, values // math.prod(rows.schema.shape)))
