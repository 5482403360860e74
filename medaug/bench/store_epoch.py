"""An epoch over more data than memory holds, in a process of its own under a memory limit.

5,110 rows of 120x120x128 in float16 (18.8 GB), globally shuffled, in a control group of 1 GiB that
counts the page cache too. Where no group can be made (no root, no cgroups) the same is measured
without a limit, and says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from medaug.bench.result import Figure, Size
from medaug.bench.store_rows import made_rows, name_of, row_bytes_of, shapes_of, write_store
from medaug.bench.timing import Spread
from medaug.errors import EnvironmentFault
from medaug.store import Store

LIMIT_BYTES = 1 << 30
OF_DISK, AMPLIFICATION, PRIVATE_MIB, WAITING = 0.8, 1.05, 512, 0.02
_ROWS: Mapping[Size, int] = {"full": 5110, "quick": 640, "tiny": 64}


@dataclass(frozen=True)
class Epoch:
    """What the process under the limit saw. Made in :mod:`medaug.bench.store_reader`."""

    rows: int
    row_bytes: int
    disk_mb_s: Sequence[float]
    """Sequential reads of some shards, before each part of the epoch."""
    own_mb_s: Sequence[float]
    """Of each part of the epoch, with nothing done to the batches."""
    read_bytes: int
    """From the disk, in the epoch."""
    peak_private_bytes: int
    """RssAnon of the whole process, torch included."""
    own_private_bytes: int
    """RssAnon before the store was opened: what imports alone take."""
    step_s: float
    """How long a step of the second epoch takes once it has its batch."""
    waiting: float
    """Share of the second epoch in which the loop waited for data."""


def epoch_figures(size: Size, folder: Path) -> tuple[list[Figure], list[str]]:
    """Figures and notes. Raises EnvironmentFault when the disk has no room."""
    n, shape = _ROWS[size], shapes_of(size)[-1]
    row_bytes = row_bytes_of(shape)
    _require_room(folder, int(n * row_bytes * 1.05))
    path = folder / "large"
    base = made_rows(shape, 32 * row_bytes, 1)
    started = time.perf_counter()
    whole, rest = divmod(n, len(base))
    write_store(path, base, times=whole, rest=rest)
    written_s = time.perf_counter() - started
    started = time.perf_counter()
    assert len(Store.open(path)) == n
    verified_s = time.perf_counter() - started
    with _memory_group(LIMIT_BYTES) as group:
        epoch = _read_in(path, group)
    shutil.rmtree(path)
    notes = [
        f"epoch: {n} rows, {n * row_bytes / 1e9:.1f} GB, written with hashes at "
        f"{n * row_bytes / 1e6 / written_s:,.0f} MB/s; the first opening on a node compares "
        f"digests ({verified_s:.1f} s), later ones do not",
        "epoch: memory limit 1 GiB, page cache included"
        if group
        else "epoch: NO memory limit (a control group needs root); private memory still counts",
    ]
    return _figures(f"epoch {name_of(shape)} x {n}", epoch), notes


def _figures(part: str, epoch: Epoch) -> list[Figure]:
    n_bytes = epoch.rows * epoch.row_bytes
    pairs = zip(epoch.own_mb_s, epoch.disk_mb_s, strict=True)
    ratios = Spread.of([own / disk for own, disk in pairs])
    disk, own = Spread.of(epoch.disk_mb_s).median, Spread.of(epoch.own_mb_s).median
    seconds = sum(n_bytes / len(epoch.own_mb_s) / 1e6 / speed for speed in epoch.own_mb_s)
    peak, imports = epoch.peak_private_bytes / 2**20, epoch.own_private_bytes / 2**20
    wait = f"of steps of {1000 * epoch.step_s:.0f} ms"
    return [
        Figure(part, "disk, sequential", disk, "MB/s"),
        Figure(part, "medaug, shuffled", own, "MB/s", ratios, "disk, sequential", OF_DISK),
        Figure(part, "medaug, shuffled", seconds, "s"),
        Figure(
            part,
            "read amplification",
            epoch.read_bytes / n_bytes if epoch.read_bytes else None,
            "x",
            target=AMPLIFICATION,
            better="lower",
            note="" if epoch.read_bytes else "the kernel counted no reads: files in memory?",
        ),
        Figure(
            part,
            "peak private memory",
            peak,
            "MiB",
            target=PRIVATE_MIB,
            better="lower",
            note=f"{imports:.0f} MiB of it torch and other imports",
        ),
        Figure(
            part,
            "waiting for data",
            epoch.waiting,
            "share",
            target=WAITING,
            better="lower",
            note=wait,
        ),
    ]


def _read_in(path: Path, group: Path | None) -> Epoch:
    """Run the reader in ``group``; raises EnvironmentFault with what it said when it fails."""
    command = [sys.executable, "-m", "medaug.bench.store_reader", str(path)]
    if group is not None:
        # The shell enters the group before Python takes any memory.
        command = [
            "/bin/sh",
            "-c",
            f'echo $$ > "{group}/cgroup.procs" && exec "$@"',
            "sh",
            *command,
        ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise EnvironmentFault(f"the reader under the memory limit ended: {lines[-1]}")
    body = json.loads(done.stdout)
    return Epoch(**body)


@contextlib.contextmanager
def _memory_group(limit_bytes: int) -> Iterator[Path | None]:
    """A memory control group (version 1 or 2) with this limit, or None where none can be made."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    top, limit = (v1, "memory.limit_in_bytes") if v1.is_dir() else (v2, "memory.max")
    group = top / f"medaug-bench-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(limit_bytes))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield None
        return
    try:
        yield group
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """The kernel lets a group go a moment after its last process."""
    until = time.monotonic() + 10
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            if time.monotonic() > until:
                return
            time.sleep(0.05)


def _require_room(folder: Path, need_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need_bytes:
        raise EnvironmentFault(
            f"need {need_bytes / 1e9:.1f} GB, have {free / 1e9:.1f} GB at {folder}; "
            "name another folder (--folder) or use --quick"
        )


def as_json(epoch: Epoch) -> str:
    return json.dumps(asdict(epoch))
