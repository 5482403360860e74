"""Writing one shard: an uncompressed Arrow IPC file whose tensors are aligned."""

from __future__ import annotations

import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from medaug.store.block import Block
from medaug.store.schema import INTEGERS, STRINGS, StoreSchema

WRITE_BYTES = 8 << 20
"""Shards are written in steps of this size: the page cache then holds them in large folios, and
warm reads take a quarter less CPU time than after writes of one row each."""

ALIGNMENT = 64
"""Tensors begin at multiples of this; Arrow's writer promises 8, and copying then takes longer."""


class ShardFile:
    """A shard being written; its SHA-256 follows in a thread, reading what reached the file."""

    def __init__(self, path: Path, arrow: pa.Schema) -> None:
        self.path, self.rows = path, 0
        self._arrow = arrow
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._sink = pa.BufferedOutputStream(pa.OSFile(str(path), "wb"), WRITE_BYTES)
        self._writer = pa.ipc.new_file(self._sink, arrow)
        self._pads = _alignment_pads("mask" in arrow.names)
        self._end = len(b"ARROW1\0\0") + arrow.serialize().size
        self._sha256 = hashlib.sha256()
        self._hashed = 0
        self._hasher = ThreadPoolExecutor(1, "shard-sha256")
        self._on_disk = 0

    def append(self, block: Block) -> None:
        """Write ``block`` as one record batch."""
        pad = self._pads[self._end % ALIGNMENT]
        self._writer.write_batch(block.record_batch(self._arrow), custom_metadata={"pad": pad})
        self._end = self._sink.tell()
        self.rows += len(block)
        on_disk = os.fstat(self._descriptor).st_size
        if on_disk > self._on_disk:
            self._hasher.submit(self._hash_to, on_disk)
            self._on_disk = on_disk

    def finish(self) -> str:
        """Complete the file durably; its SHA-256."""
        self._writer.close()
        self._sink.close()
        last = self._hasher.submit(self._hash_to, os.fstat(self._descriptor).st_size)
        os.fsync(self._descriptor)  # in the time that the hash needs
        last.result()
        self._close()
        return self._sha256.hexdigest()

    def discard(self) -> None:
        """Give up: close and remove the file."""
        self._hasher.shutdown(cancel_futures=True)
        with contextlib.suppress(OSError):  # what is buffered may still not fit on the disk
            self._sink.close()
        self._close()
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        self._hasher.shutdown()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _hash_to(self, end: int) -> None:
        while self._hashed < end:
            chunk = os.pread(self._descriptor, min(end - self._hashed, 1 << 20), self._hashed)
            assert chunk, "the file ends before what was written to it"
            self._sha256.update(chunk)
            self._hashed += len(chunk)


@cache
def _alignment_pads(with_mask: bool) -> dict[int, str]:
    """What to put into a record batch's metadata so that its body begins aligned.

    By position of the batch modulo ALIGNMENT. The length of the metadata depends on this text and
    on the number of columns, not on their content.
    """
    four = np.zeros((1, 4), np.uint8)
    columns = {name: np.zeros(1, np.int32) for name in INTEGERS}
    columns |= {name: np.zeros(1, np.str_) for name in STRINGS}
    arrow = StoreSchema((4,), "uint8", (4,) if with_mask else None).arrow("")
    batch = Block(four, four if with_mask else None, columns).record_batch(arrow)
    pads = {}
    for text in (" " * n for n in range(0, ALIGNMENT, 8)):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, arrow) as stream:
            stream.write_batch(batch, custom_metadata={"pad": text})
        message = pa.ipc.read_message(sink.getvalue().slice(arrow.serialize().size))
        pads[-(8 + message.metadata.size) % ALIGNMENT] = text  # 8: the lengths before it
    assert len(pads) == ALIGNMENT // 8
    return pads
