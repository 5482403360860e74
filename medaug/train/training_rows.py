"""Rows that a generator is trained on: scaled, on the device if they fit there, and dealt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

import torch
from torch import Tensor

from medaug.store.sampler import Order, epoch_batches
from medaug.train.resident import ResidentRows, Sender, epoch_rows
from medaug.train.rows import RowSource
from medaug.train.scaling import FeatureScale, channels_last, rows_per_read
from medaug.train.world import World

Drawn = Tensor | tuple[Tensor, Tensor]
"""Rows of a step: (n,) int64 numbers of those on the device, or (x, label) as they were sent."""


class TrainingRows:
    """The rows of ``source`` as the first layer wants them: scaled, and under ``precision`` bf16
    rounded, which autocast would do in any case."""

    def __init__(
        self, source: RowSource, scale: FeatureScale, precision: str, world: World
    ) -> None:
        self.source, self.scale, self.world = source, scale, world
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        device = world.device
        self._send = Sender(device)
        self._labels = torch.from_numpy(source.labels).to(device)
        in_order = source.batches(
            World.single(), rows_per_read(source), seed=0, epoch=0, shuffle=False, drop_last=False
        )
        chunks = (self._scaled(batch.x.to(device)) for batch in in_order)
        self.kept = ResidentRows.of(chunks, len(source), device)
        """None where they do not fit; then they are sent step by step."""

    def batches(self, batch_size: int, **order: Unpack[Order]) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's share (x, label) of each global batch, on the device."""
        return map(self.take, self.draws(batch_size, **order))

    def draws(self, batch_size: int, **order: Unpack[Order]) -> Iterator[Drawn]:
        """This rank's share of each global batch, for :meth:`take`."""
        if self.kept is None:
            for batch in self.source.batches(self.world, batch_size, **order):
                x, label = self._send(batch.x, batch.label)
                yield x, label
            return
        plan = epoch_batches(len(self.source), batch_size, **order)
        yield from epoch_rows(plan, self.world.share(batch_size), self.world.device)

    def take(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """(x, label) of rows that were drawn, on the device."""
        if isinstance(drawn, tuple):
            x, label = drawn
            return self._scaled(x), label
        assert self.kept is not None
        return self.kept.take(drawn), self._labels.index_select(0, drawn)

    def _scaled(self, x: Tensor) -> Tensor:
        return channels_last(self.scale.encode(x), self.dtype)
