"""Writing one shard: an uncompressed Arrow IPC file whose tensors are aligned."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from medaug.store.block import Block
from medaug.store.schema import INTEGERS, STRINGS, StoreSchema

STEP_BYTES = 4 << 20
"""Shards are written in steps of this size: the page cache then holds them in large folios, and
warm reads take a quarter less CPU time than after writes of one row each."""

STEPS = 4
"""So many steps may be on their way: the hash, which is one chain, always has work."""

ALIGNMENT = 64
"""Tensors begin at multiples of this; Arrow's writer promises 8, and copying then takes longer."""


class Steps:
    """The memory through which a writer's shards go, and the thread that hashes it.

    One for all shards of a writer: fresh memory costs a page fault every 4 KB.
    """

    def __init__(self) -> None:
        self._hasher = ThreadPoolExecutor(1, "shard-sha256")
        self._used: deque[tuple[memoryview, Future[None] | None]] = deque()
        self._n = 0

    def take(self) -> memoryview:
        """Memory of STEP_BYTES whose former content has been hashed."""
        if self._n < STEPS:
            self._n += 1
            return memoryview(bytearray(STEP_BYTES))
        step, hashing = self._used.popleft()
        if hashing:
            hashing.result()
        return step

    def hash(self, sha256: hashlib._Hash, step: memoryview, n_bytes: int) -> Future[None]:
        """Add the first ``n_bytes`` of ``step`` to ``sha256``, in order; ``step`` is given back."""
        hashing = self._hasher.submit(sha256.update, step[:n_bytes])
        self._used.append((step, hashing))
        return hashing

    def give_back(self, step: memoryview) -> None:
        """``step`` will not be written."""
        self._used.append((step, None))

    def close(self) -> None:
        """Wait for the thread, which ends."""
        self._hasher.shutdown()


class ShardFile:
    """A shard being written."""

    def __init__(self, path: Path, arrow: pa.Schema, steps: Steps) -> None:
        self.path, self.rows = path, 0
        self._arrow = arrow
        self._file = HashedFile(path, steps)
        self._sink = pa.PythonFile(self._file, "w")
        self._writer = pa.ipc.new_file(self._sink, arrow)
        self._pads = _alignment_pads("mask" in arrow.names)
        self._end = len(b"ARROW1\0\0") + arrow.serialize().size

    def append(self, block: Block, batch_rows: int) -> None:
        """Write ``block`` in record batches of ``batch_rows``; it may change afterwards."""
        for start in range(0, len(block), batch_rows):
            # (A slice of an Arrow batch is padded with what lies behind it.)
            batch = block.rows(start, start + batch_rows).record_batch(self._arrow)
            pad = self._pads[self._end % ALIGNMENT]
            self._writer.write_batch(batch, custom_metadata={"pad": pad})
            self._end = self._file.n_bytes
        self.rows += len(block)

    def end(self) -> None:
        """Write what is left: the file then has all its bytes."""
        self._writer.close()
        self._file.end()

    def sync(self) -> str:
        """Make the ended file durable and close it; its SHA-256."""
        return self._file.sync()

    def discard(self) -> None:
        """Give up: close and remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class HashedFile:
    """A new file that is written in large steps, each hashed by a thread meanwhile."""

    def __init__(self, path: Path, steps: Steps) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._sha256 = hashlib.sha256()
        self._steps = steps
        self._hashing: Future[None] | None = None
        self._step: memoryview | None = None
        self._filled = self._written = 0

    @property
    def closed(self) -> bool:
        """Asked by Arrow before it writes."""
        return self._descriptor < 0

    @property
    def n_bytes(self) -> int:
        """Bytes so far, those that wait for their step included."""
        return self._written + self._filled

    def write(self, data: bytes | pa.Buffer) -> int:
        """Append ``data``, which may change afterwards."""
        content = memoryview(data).cast("B")
        at = 0
        while at < len(content):
            if self._step is None:
                self._step = self._steps.take()
            part = content[at : at + STEP_BYTES - self._filled]
            self._step[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            at += len(part)
            if self._filled == STEP_BYTES:
                self._write_step()
        return len(content)

    def end(self) -> None:
        """Write what is left."""
        self._write_step()

    def sync(self) -> str:
        """Make what was written durable, and close; the SHA-256 of all."""
        os.fsync(self._descriptor)  # in the time that the hash needs
        if self._hashing:
            self._hashing.result()  # the last of one thread: all others are done
        self.close()
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Give up what is not written yet."""
        if self._step is not None:
            self._steps.give_back(self._step)
            self._step = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _write_step(self) -> None:
        """Write what has been collected, and have it hashed."""
        if self._step is None:
            return
        step, n_bytes = self._step, self._filled
        self._step, self._filled = None, 0
        self._hashing = self._steps.hash(self._sha256, step, n_bytes)
        done = 0
        while done < n_bytes:
            done += os.write(self._descriptor, step[done:n_bytes])
        if hasattr(os, "posix_fadvise"):
            # The disk begins now, and fsync finds little to do. What is still on its way to the
            # disk stays in the page cache, whatever the advice is called.
            os.posix_fadvise(self._descriptor, self._written, done, os.POSIX_FADV_DONTNEED)
        self._written += done


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
