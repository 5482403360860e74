"""Memory for batches that is used again, and reading ahead into it.

A fresh tensor per batch costs ten times the copy (page faults); a few buffers in turn cost none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from medaug.store.direct import aligned_bytes, scratch_bytes
from medaug.store.gather import Rows, Shard, gather
from medaug.store.schema import StoreSchema

READ_AHEAD_BYTES = 256 << 20
"""Bound of the memory for batches in use and read ahead, if two of them fit into it."""


@dataclass
class Batch:
    """Rows read from a store: n rows in their order of drawing."""

    x: torch.Tensor
    """(n, *shape) in the store's dtype."""
    label: torch.Tensor
    """(n,) int64; -1 where unknown."""
    row: torch.Tensor
    """(n,) int64: row numbers in the store (view) that was read."""
    mask: torch.Tensor | None
    """(n, *mask_shape) uint8."""


class Buffer:
    """Memory for a batch, as tensors and as the bytes that rows are copied into."""

    def __init__(self, schema: StoreSchema, rows: int) -> None:
        self.x_bytes = aligned_bytes(rows, schema.x_bytes)
        self.x = torch.from_numpy(self.x_bytes).view(schema.types.torch).view(rows, *schema.shape)
        self.mask: torch.Tensor | None = None
        self.mask_bytes: np.ndarray | None = None
        if schema.mask_shape:
            self.mask_bytes = aligned_bytes(rows, schema.mask_bytes)
            self.mask = torch.from_numpy(self.mask_bytes).view(rows, *schema.mask_shape)
        self._scratch_bytes = scratch_bytes(max(schema.x_bytes, schema.mask_bytes))
        self._scratch: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x_bytes)

    def batch(self, index: np.ndarray, labels: np.ndarray) -> Batch:
        """The first rows of this memory as a batch."""
        n, x, mask = len(index), self.x, self.mask
        if n < len(self):
            x, mask = x[:n], None if mask is None else mask[:n]
        return Batch(x, torch.from_numpy(labels), torch.from_numpy(index), mask)

    def fill(self, shards: tuple[Shard, ...], rows: Rows, index: np.ndarray) -> None:
        """Read rows ``index`` into the first places."""
        n = len(index)
        mask = None if self.mask_bytes is None else self.mask_bytes[:n]
        if self._scratch is None and any(shard.direct for shard in shards):
            self._scratch = aligned_bytes(1, self._scratch_bytes)[0]
        gather(shards, rows, index, self.x_bytes[:n], mask, self._scratch)


class Ring:
    """Reads the batches of a plan into a few buffers in turn."""

    def __init__(self, schema: StoreSchema, shards: tuple[Shard, ...], rows: Rows) -> None:
        self._schema, self._shards, self._rows = schema, shards, rows
        self._spare: list[Buffer] = []

    def batches(self, plan: list[np.ndarray]) -> Iterator[Buffer]:
        """A buffer with each batch of ``plan``; it is valid until the next is drawn.

        Rows in memory are copied when their batch is drawn; a thread would cost more than it
        brings. Rows on disk are read ahead by a few threads.
        """
        longest = max(map(len, plan), default=0)
        mapped = all(shard.mapped for shard in self._shards)
        n = 1 if mapped else _buffers_within_budget(longest * self._schema.row_bytes)
        buffers, self._spare = self._spare, []  # taken: two loops at a time do not share
        if len(buffers) != n or len(buffers[0]) < longest:
            buffers = [Buffer(self._schema, longest) for _ in range(n)]
        if mapped:
            for index in plan:
                self._fill(buffers[0], index)
                yield buffers[0]
        else:
            yield from self._read_ahead(plan, buffers)
        # Only here, when the last batch has been given up by asking for one more: a loop that
        # was left early may hold on to its batch.
        self._spare = buffers

    def _read_ahead(self, plan: list[np.ndarray], buffers: list[Buffer]) -> Iterator[Buffer]:
        """A thread per buffer; each batch is read by one of them (handing over rows costs more)."""
        under_way: deque[Future[None]] = deque()
        pool = ThreadPoolExecutor(len(buffers), "store-read")
        try:
            for drawn in range(len(plan)):
                for coming in range(drawn + len(under_way), min(drawn + len(buffers), len(plan))):
                    buffer = buffers[coming % len(buffers)]
                    under_way.append(pool.submit(self._fill, buffer, plan[coming]))
                under_way.popleft().result()
                yield buffers[drawn % len(buffers)]
        finally:
            pool.shutdown(cancel_futures=True)

    def _fill(self, buffer: Buffer, index: np.ndarray) -> None:
        buffer.fill(self._shards, self._rows, index)


def _buffers_within_budget(batch_bytes: int) -> int:
    """One batch in use and 1 to 3 read ahead."""
    return int(np.clip(READ_AHEAD_BYTES // max(1, batch_bytes), 2, 4))
