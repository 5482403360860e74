"""Writing one shard: an uncompressed Arrow IPC file whose tensors are aligned."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
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
    """A shard being written."""

    def __init__(self, path: Path, arrow: pa.Schema) -> None:
        self.path, self.rows = path, 0
        self._arrow = arrow
        self._file = HashedFile(path)
        self._sink = pa.PythonFile(self._file, "w")
        self._writer = pa.ipc.new_file(self._sink, arrow)
        self._pads = _alignment_pads("mask" in arrow.names)
        self._end = len(b"ARROW1\0\0") + arrow.serialize().size

    def append(self, block: Block) -> None:
        """Write ``block`` as one record batch."""
        pad = self._pads[self._end % ALIGNMENT]
        self._writer.write_batch(block.record_batch(self._arrow), custom_metadata={"pad": pad})
        self._end = self._sink.tell()
        self.rows += len(block)

    def finish(self) -> str:
        """Complete the file durably; its SHA-256."""
        self._writer.close()
        return self._file.finish()

    def discard(self) -> None:
        """Give up: close and remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class HashedFile:
    """A new file that is written in large steps; a thread hashes each while it is written."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._sha256 = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1, "shard-sha256")
        self._hashing: Future[None] | None = None
        self._step, self._spare = (memoryview(bytearray(WRITE_BYTES)) for _ in range(2))
        self._filled = self._written = 0

    @property
    def closed(self) -> bool:
        """Asked by Arrow before it writes."""
        return self._descriptor < 0

    def write(self, data: bytes | pa.Buffer) -> int:
        """Append ``data``, which may change afterwards."""
        content = memoryview(data).cast("B")
        for at in range(0, len(content), WRITE_BYTES):
            self._append(content[at : at + WRITE_BYTES])
        return len(content)

    def finish(self) -> str:
        """Write what is left, durably, and close; the SHA-256 of all."""
        self._write_step()
        os.fsync(self._descriptor)  # in the time that the hash needs
        self._wait_for_hash()
        self.close()
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Give up what is not written yet."""
        self._hasher.shutdown()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _append(self, content: memoryview) -> None:
        """At most WRITE_BYTES of ``content``."""
        fits = content[: WRITE_BYTES - self._filled]
        self._step[self._filled : self._filled + len(fits)] = fits
        self._filled += len(fits)
        if self._filled == WRITE_BYTES:
            self._write_step()
            self._filled = len(content) - len(fits)
            self._step[: self._filled] = content[len(fits) :]

    def _write_step(self) -> None:
        """Write what has been collected; its hash is done when the step after it is full."""
        step = self._step[: self._filled]
        self._wait_for_hash()
        self._hashing = self._hasher.submit(self._sha256.update, step)
        self._step, self._spare, self._filled = self._spare, self._step, 0
        done = 0
        while done < len(step):
            done += os.write(self._descriptor, step[done:])
        if hasattr(os, "posix_fadvise"):
            # The disk begins now, and fsync finds little to do. What is still on its way to the
            # disk stays in the page cache, whatever the advice is called.
            os.posix_fadvise(self._descriptor, self._written, done, os.POSIX_FADV_DONTNEED)
        self._written += done

    def _wait_for_hash(self) -> None:
        if self._hashing:
            self._hashing.result()
        self._hashing = None


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
