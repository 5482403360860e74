"""Copying rows out of shards: from a memory map, or by ``preadv`` at byte offsets."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np

from medaug.errors import IntegrityError
from medaug.store.direct import open_direct, read_direct
from medaug.store.sidecar import Sidecar, row_hash

Access = Literal["map", "pread", "direct"]
"""Memory-mapped; read through the page cache; or past it, for more than memory holds."""


class Shard:
    """An open shard, either memory-mapped or read by offset. Threads may share it."""

    def __init__(self, path: Path, sidecar: Sidecar, access: Access) -> None:
        self.path, self.mapped = path, access == "map"
        self.checked = bytearray(sidecar.rows)
        """1 for each row that needs no check any more."""
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as fault:
            raise IntegrityError(f"{path}: missing; restore it or write the store again") from fault
        close = weakref.finalize(self, os.close, self._descriptor)
        # A map longer than the file would kill the process at the first touch (SIGBUS).
        if (found := os.fstat(self._descriptor).st_size) != sidecar.n_bytes:
            raise IntegrityError(f"{path}: has {found} of {sidecar.n_bytes} bytes; restore it")
        self._direct = open_direct(path, os.O_RDONLY) if access == "direct" else -1
        self.direct = self._direct >= 0
        if self.direct:
            weakref.finalize(self, os.close, self._direct)
        if self.mapped:
            content = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
            self._bytes = np.frombuffer(content, np.uint8)
            close()
        elif hasattr(os, "posix_fadvise"):
            # Else the kernel reads ahead of rows that lie nowhere near the next: 1.15 x the bytes.
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, at: int, into: np.ndarray, scratch: np.ndarray | None) -> None:
        """Copy the bytes from offset ``at`` into ``into`` (1-D uint8).

        ``scratch``, aligned and longer by two blocks, is for shards that are read directly.
        """
        if self.mapped:
            into[:] = self._bytes[at : at + into.size]
            return
        if scratch is not None and self.direct and read_direct(self._direct, at, into, scratch):
            return
        done = 0
        while done < into.size:
            got = os.preadv(self._descriptor, [into.data[done:]], at + done)
            if not got:
                raise IntegrityError(f"{self.path}: ends at byte {at + done}; restore it")
            done += got

    def check(self, row: int, xxh3: int, *tensors: np.ndarray) -> None:
        """Compare a row that was read with its hash; a mapped row only once: it is in memory."""
        found = row_hash(*tensors)
        if found != xxh3 and found and xxh3:  # 0: the reader or the writer had no xxhash
            raise IntegrityError(f"{self.path}: row {row} is not what was written; restore it")
        self.checked[row] = self.mapped


@dataclass(frozen=True)
class Rows:
    """The rows of a store or of a view of one: arrays with one entry per row."""

    place: np.ndarray
    """(n, 4) int64: index of the shard, row in it, byte offsets of tensor and mask (-1: none)."""
    source: np.ndarray
    """(n,) int64: which of the stores that were joined last; 0 in a store as opened."""
    xxh3: np.ndarray
    label: np.ndarray
    patient: np.ndarray
    volume: np.ndarray
    slice_index: np.ndarray
    tumour_pixels: np.ndarray

    @staticmethod
    def of(sidecars: Sequence[Sidecar]) -> Rows:
        """The rows of all shards in order."""
        joined = Rows.join([NO_ROWS, *map(_of_one, sidecars)], [0, *[1] * len(sidecars)])
        return replace(joined, source=np.zeros_like(joined.source))

    @staticmethod
    def join(parts: Sequence[Rows], shards: Sequence[int]) -> Rows:
        """All rows of ``parts``, which have so many ``shards`` each."""
        names = [field.name for field in fields(Rows)]
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        joined["source"] = np.repeat(np.arange(len(parts)), [len(part.label) for part in parts])
        first_shard = np.cumsum([0, *shards[:-1]])
        joined["place"][:, 0] += first_shard[joined["source"]]
        return Rows(**joined)

    def take(self, rows: np.ndarray) -> Rows:
        return Rows(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


NO_ROWS = Rows(
    place=np.zeros((0, 4), np.int64),
    source=np.zeros(0, np.int64),
    xxh3=np.zeros(0, np.uint64),
    label=np.zeros(0, np.int64),
    patient=np.zeros(0, np.str_),
    volume=np.zeros(0, np.str_),
    slice_index=np.zeros(0, np.int32),
    tumour_pixels=np.zeros(0, np.int32),
)


def _of_one(sidecar: Sidecar) -> Rows:
    place = np.zeros((sidecar.rows, 4), np.int64)
    place[:, 1] = np.arange(sidecar.rows)
    place[:, 2] = sidecar.x_at
    place[:, 3] = sidecar.mask_at if len(sidecar.mask_at) else -1
    columns = {**sidecar.columns, "label": sidecar.columns["label"].astype(np.int64)}
    return Rows(place=place, source=place[:, 0], xxh3=sidecar.xxh3, **columns)


def gather(
    shards: Sequence[Shard],
    rows: Rows,
    index: np.ndarray,
    x: np.ndarray,
    mask: np.ndarray | None,
    scratch: np.ndarray | None,
) -> None:
    """Copy rows ``index`` into ``x`` (n, x_bytes) and ``mask`` (n, mask_bytes), both uint8.

    ``scratch``: see :meth:`Shard.read`.

    Raises IntegrityError when a row's bytes do not have its hash.
    """
    for i, (at_shard, row, x_at, mask_at) in enumerate(rows.place[index].tolist()):
        shard = shards[at_shard]
        shard.read(x_at, x[i], scratch)
        if mask is not None:
            shard.read(mask_at, mask[i], scratch)
        if not shard.checked[row]:
            tensors = [x[i]] if mask is None else [x[i], mask[i]]
            shard.check(row, int(rows.xxh3[index[i]]), *tensors)
