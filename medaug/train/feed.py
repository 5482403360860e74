"""Rows on their way into a classifier: what can be computed once, and kept, is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from medaug.store import Store
from medaug.store.sampler import epoch_batches
from medaug.train.resident import ResidentRows, Sender, epoch_rows
from medaug.train.scaling import FeatureScale, channels_last
from medaug.train.world import World

READ_ROWS = 64

QUIET = 0.1
"""A channel's spread is taken to be at least this share of the root mean square over channels."""

_WITHOUT_STATE = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d, nn.Flatten, nn.Identity)


def fit_scale(real: Store, world: World) -> FeatureScale:
    """Per-channel standardisation by the real training rows, for a classifier.

    Almost silent channels stay almost silent (:data:`QUIET`): a ReLU that fired at one pixel of
    the training rows must not shout a hundred standard deviations on validation rows.
    """
    scale = FeatureScale.fit(real, "standardise", world)
    if len(real.schema.shape) == 1:  # numbers of their own units, where loudness says nothing
        return scale
    loudness = scale.spread.square().mean().sqrt()
    return replace(scale, spread=scale.spread.clamp_min(QUIET * loudness))


def split_fixed(network: nn.Module) -> tuple[nn.Sequential, nn.Module]:
    """(layers at the start that give the same output for a row for ever, the layers after them).

    For the linear probe the first is the pooling of the whole map: done once per row, not once
    per row and epoch.
    """
    if not isinstance(network, nn.Sequential):
        return nn.Sequential(), network
    layers = list(network)
    n = next((i for i, layer in enumerate(layers) if not isinstance(layer, _WITHOUT_STATE)), 0)
    return nn.Sequential(*layers[:n]), nn.Sequential(*layers[n:])


class Feed:
    """The rows of ``store``, scaled and through ``fixed``, in float32 on the rank's device."""

    def __init__(
        self, store: Store, scale: FeatureScale, fixed: nn.Sequential, world: World
    ) -> None:
        self._store, self._scale, self._fixed, self._world = store, scale, fixed, world
        self.labels = torch.from_numpy(store.labels).to(world.device)
        self._send = Sender(world.device)
        starts = range(0, len(store), READ_ROWS)
        chunks = (store.read(slice(start, start + READ_ROWS)).x for start in starts)
        once = (self._once(x.to(world.device)) for x in chunks)
        self._kept = ResidentRows.of(once, len(store), world.device)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        steps: int,
        weights: np.ndarray | None = None,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This rank's share (x, label) of each global batch, in the order of ``Store.batches``."""
        if self._kept is None:
            for batch in self._store.batches(
                self._world, batch_size, seed=seed, epoch=epoch, steps=steps, weights=weights
            ):
                x, label = self._send(batch.x, batch.label)
                yield self._each(self._once(x)), label
            return
        plan = epoch_batches(
            len(self), batch_size, seed=seed, epoch=epoch, steps=steps, weights=weights
        )
        for rows in epoch_rows(plan, self._world.share(batch_size), self._world.device):
            yield self._each(self._kept.take(rows)), self.labels.index_select(0, rows)

    def in_order(self, batch_size: int) -> Iterator[torch.Tensor]:
        """This rank's contiguous share of all rows, x in batches; joined by ``World.gather``."""
        share = self._world.share(len(self))
        for start in range(share.start, share.stop, batch_size):
            rows = slice(start, min(start + batch_size, share.stop))
            if self._kept is None:
                (x,) = self._send(self._store.read(rows).x)
                yield self._each(self._once(x))
            else:
                yield self._each(self._kept.slice(rows))

    def _once(self, x: torch.Tensor) -> torch.Tensor:
        """What is kept: the stored row, or the output of the fixed layers."""
        return self._fixed(self._scale.encode(x)) if len(self._fixed) else x

    def _each(self, x: torch.Tensor) -> torch.Tensor:
        """What is done each time."""
        if len(self._fixed):
            return x
        return channels_last(self._scale.encode(x))
