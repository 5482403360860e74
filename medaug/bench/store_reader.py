"""The process under the memory limit: reads a store in a shuffled order and watches itself."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from medaug.bench.store_epoch import Epoch, as_json
from medaug.store import Batch, Store
from medaug.train.world import World

BATCH = 16
PARTS = 8
STEP_S = 0.1
"""What a training step takes here, on a device: a tenth of a second for 59 MB of rows."""
SETTLE_S = 0.5
"""Until what is being read ahead has arrived, and the disk can be measured alone."""
_CHUNK = 4 << 20


class PrivateMemory(threading.Thread):
    """The highest RssAnon of this process: what it owns, mapped files left out."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = private_bytes()
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, private_bytes())

    def stop(self) -> int:
        self._stop_asked.set()
        self.join()
        return max(self.peak_bytes, private_bytes())


def private_bytes() -> int:
    """RssAnon of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def read(path: Path) -> Epoch:
    """An epoch, shuffled, in parts; before each a part of the shards is read front to back."""
    imports = private_bytes()
    memory = PrivateMemory()
    memory.start()
    store = Store.open(path, verify=False, access="direct")  # as ``auto`` does if it does not fit
    shards = sorted(path.glob("*.arrow"))
    steps = -(-len(store) // BATCH)
    parts = min(PARTS, steps)
    batches = _shuffled(store, epoch=0)
    disk, own, n, read_bytes = [], [], 0, 0
    for part in range(parts):
        disk.append(_sequential(shards[part % len(shards) :: parts]))
        _forget(shards)
        wanted = steps * (part + 1) // parts - steps * part // parts
        before, started, rows = _read_from_disk(), time.perf_counter(), 0
        for batch in itertools.islice(batches, wanted):
            rows += len(batch.x)
        seconds = time.perf_counter() - started
        # Some of these rows were read ahead in the part before, and some of the next part's now.
        arrived = _read_from_disk() - before
        own.append((arrived or rows * store.schema.row_bytes) / 1e6 / seconds)
        time.sleep(SETTLE_S)
        read_bytes += _read_from_disk() - before
        n += rows
    assert n == len(store)
    batches.close()  # type: ignore[attr-defined]
    return Epoch(
        rows=n,
        row_bytes=store.schema.row_bytes,
        disk_mb_s=tuple(disk),
        own_mb_s=tuple(own),
        read_bytes=read_bytes,
        waiting=_waiting(store),
        peak_private_bytes=memory.stop(),
        own_private_bytes=imports,
        step_s=STEP_S,
    )


def _shuffled(store: Store, epoch: int) -> Iterator[Batch]:
    return store.batches(World.single(), BATCH, seed=0, epoch=epoch, drop_last=False)


def _waiting(store: Store) -> float:
    """Share of an epoch that the loop waits for batches, when a step takes ``STEP_S``."""
    started = time.perf_counter()
    steps = 0
    for _ in _shuffled(store, epoch=1):
        time.sleep(STEP_S)  # the device works, this process's cores are free
        steps += 1
        if steps == 1:
            started = time.perf_counter()  # the first batch has nothing to be read during
    total = time.perf_counter() - started
    return max(0.0, 1 - (steps - 1) * STEP_S / total) if steps > 1 else 0.0


def _sequential(shards: list[Path]) -> float:
    """MB/s of reading ``shards`` from the disk front to back, in large pieces."""
    _forget(shards)
    buffer = bytearray(_CHUNK)
    n_bytes, started = 0, time.perf_counter()
    for shard in shards:
        with open(shard, "rb", buffering=0) as file:
            while got := file.readinto(buffer):
                n_bytes += got
    return n_bytes / 1e6 / (time.perf_counter() - started)


def _forget(shards: list[Path]) -> None:
    """Drop the shards from the page cache."""
    for shard in shards:
        descriptor = os.open(shard, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _read_from_disk() -> int:
    """Bytes that this process had the disk read; 0 where the kernel does not count them."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    print(as_json(read(Path(sys.argv[1]))))
