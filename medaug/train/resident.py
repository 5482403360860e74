"""Training rows where they are used: kept on the device if they fit, else sent while it computes.

One class for all that is trained on rows: GANs, flows, classifiers, U-Nets. A step takes its rows
by number from memory that does not move, so the host never waits for the device in it, and a step
can be captured as a graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

CPU_BYTES = 256 << 20
"""So much of the host's memory one kept set of rows may take; shards are mapped, so reading more
again costs little."""
DEVICE_SHARE = 0.5
"""Of the device's free memory, for one kept set of rows: the networks need the rest."""
SLOTS = 3
"""Pinned buffers: one being filled, one on its way, one in use."""


def memory_for_rows(device: torch.device) -> int:
    """Bytes that one kept set of rows may take on ``device`` now.

    On a GPU a share of what is free, within what this process may use of it at all
    (``torch.cuda.set_per_process_memory_fraction``).
    """
    if device.type != "cuda":
        return CPU_BYTES
    free, total = torch.cuda.mem_get_info(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total
    left = allowed - torch.cuda.memory_reserved(device)
    return int(DEVICE_SHARE * max(0, min(free, left)))


class ResidentRows:
    """Rows (n, …) in one block of memory on a device, maps with channels innermost.

    :meth:`take` gives rows by number without waiting for anything.
    """

    def __init__(self, kept: Tensor) -> None:
        self._kept = kept

    @staticmethod
    def of(
        chunks: Iterable[Tensor], n: int, device: torch.device, budget: int | None = None
    ) -> ResidentRows | None:
        """The rows of ``chunks``, n in all, of one shape and dtype, on any device; None where they
        would take more than ``budget`` bytes (None: :func:`memory_for_rows`). Then no more than
        the first chunk is drawn. The block is made once: at no time are there two copies.
        """
        budget = memory_for_rows(device) if budget is None else budget
        kept: Tensor | None = None
        done = 0
        for chunk in chunks:
            x = _innermost(chunk)
            if kept is None:
                if math.prod(x.shape[1:]) * x.element_size() * n > budget:
                    return None
                kept = torch.empty((n, *x.shape[1:]), dtype=x.dtype, device=device)
            kept[done : done + len(x)].copy_(x)
            done += len(x)
        if kept is None:
            return None
        assert done == n, f"{done} rows instead of {n}"
        return ResidentRows(kept)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        return self._kept.nbytes

    def take(self, rows: Tensor) -> Tensor:
        """Rows by number, int64 on the device; maps (N, C, H, W) with channels innermost."""
        return _outermost(self._kept.index_select(0, rows))

    def slice(self, rows: slice) -> Tensor:
        """A view of rows side by side."""
        return _outermost(self._kept[rows])


def epoch_rows(plan: Sequence[np.ndarray], share: slice, device: torch.device) -> Iterator[Tensor]:
    """This rank's rows of each batch of an epoch, as views of one tensor on the device: all row
    numbers of the epoch are sent at once."""
    if not plan:
        return iter(())
    mine = [torch.from_numpy(np.ascontiguousarray(rows[share])) for rows in plan]
    return iter(torch.cat(mine).to(device).split([len(rows) for rows in mine]))


class Sender:
    """Copies batches to a GPU through pinned buffers on a stream of its own.

    A batch of a store is valid only until the next one is drawn, so it is copied to a pinned buffer
    first; a buffer is not used again before its copy has arrived. On a CPU there is nothing to do.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._slots: list[_Slot] = []
        self._turn = 0
        if device.type == "cuda":
            self._slots = [_Slot() for _ in range(SLOTS)]
            self._stream = torch.cuda.Stream(device)

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """``tensors`` on the device; whatever is queued after this call finds them there."""
        if not self._slots:
            return [x.to(self.device) for x in tensors]
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % len(self._slots)
        pinned = slot.filled(tensors)
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            sent = [x.to(self.device, non_blocking=True) for x in pinned]
            slot.sent = torch.cuda.Event()
            slot.sent.record(self._stream)
        computing.wait_event(slot.sent)
        for x in sent:
            x.record_stream(computing)  # it was allocated on the other stream
        return sent


class _Slot:
    """Pinned memory for one batch, as large as the largest so far."""

    def __init__(self) -> None:
        self.sent: torch.cuda.Event | None = None
        self._buffers: list[Tensor] = []

    def filled(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Copies of ``tensors`` in it, once what it held before has been sent."""
        if self.sent is not None:
            self.sent.synchronize()
        while len(self._buffers) < len(tensors):
            self._buffers.append(torch.empty(0, dtype=torch.uint8))
        copies = []
        for i, x in enumerate(tensors):
            if self._buffers[i].numel() < x.nbytes:
                self._buffers[i] = torch.empty(x.nbytes, dtype=torch.uint8, pin_memory=True)
            copy = self._buffers[i][: x.nbytes].view(x.dtype).view(x.shape)
            copies.append(copy.copy_(x))
        return copies


def _innermost(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def _outermost(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x
