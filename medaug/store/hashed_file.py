"""A new file that is written in large steps and hashed on the way."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from medaug.store.digest import Digest
from medaug.store.direct import aligned_bytes, open_direct, write_direct

STEP_BYTES = 8 << 20
"""Bytes of a step: where a file goes through the page cache, it is then held in large folios, and
warm reads take a quarter less CPU time than after writes of one row each."""

STEPS = 4
"""Steps in memory: one being filled, the others on their way to the hash and the disk."""


class HashedFile:
    """A new file; one thread hashes each step, and one writes it, while the next is filled.

    Whole steps go to the disk directly, where the file system can: the copy into the page cache
    would take half as long as the hash. What is left at the end goes through the page cache. More
    threads, smaller steps or a length set beforehand write no faster.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._direct = open_direct(path, os.O_WRONLY)
        self._digest = Digest()
        self._hasher = ThreadPoolExecutor(1, "shard-digest")
        self._writer = ThreadPoolExecutor(1, "shard-write")
        self._under_way: deque[tuple[Future[None], Future[None]]] = deque()
        self._memory = [memoryview(step) for step in aligned_bytes(STEPS, STEP_BYTES)]
        self._steps = self._filled = 0

    @property
    def closed(self) -> bool:
        """Asked by Arrow before it writes."""
        return self._descriptor < 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._steps * STEP_BYTES + self._filled

    def write(self, data: bytes | pa.Buffer) -> int:
        """Append ``data``, which may change afterwards."""
        content = memoryview(data).cast("B")
        done = 0
        while done < len(content):
            part = content[done : done + STEP_BYTES - self._filled]
            step = self._memory[self._steps % STEPS]
            step[self._filled : self._filled + len(part)] = part
            done, self._filled = done + len(part), self._filled + len(part)
            if self._filled == STEP_BYTES:
                self._send(step)
                self._steps, self._filled = self._steps + 1, 0
                self._wait(STEPS - 1)
        return len(content)

    def finish(self) -> str:
        """Write what is left, durably, and close; the digest of all."""
        self._send(self._memory[self._steps % STEPS][: self._filled])
        self._wait(0)
        os.fsync(self._descriptor)
        self.close()
        return str(self._digest)

    def close(self) -> None:
        """Give up what is not written yet."""
        self._hasher.shutdown(cancel_futures=True)
        self._writer.shutdown(cancel_futures=True)
        for descriptor in (self._descriptor, self._direct):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._direct = -1

    def _send(self, step: memoryview) -> None:
        hashing = self._hasher.submit(self._digest.update, step)
        writing = self._writer.submit(self._write, step, self._steps * STEP_BYTES)
        self._under_way.append((hashing, writing))

    def _wait(self, most: int) -> None:
        """Until at most so many steps are under way; the oldest memory is free again then."""
        while len(self._under_way) > most:
            for work in self._under_way.popleft():
                work.result()

    def _write(self, step: memoryview, at: int) -> None:
        whole = len(step) == STEP_BYTES
        if whole and self._direct >= 0 and write_direct(self._direct, step, at):
            return
        done = 0
        while done < len(step):
            done += os.pwrite(self._descriptor, step[done:], at + done)
        if hasattr(os, "posix_fadvise"):
            # The disk begins now, and fsync finds little to do. What is still on its way to the
            # disk stays in the page cache, whatever the advice is called.
            os.posix_fadvise(self._descriptor, at, done, os.POSIX_FADV_DONTNEED)
