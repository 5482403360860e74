"""Writing: a store with all its hashes next to ``np.save`` of the same bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medaug.bench.peers import Rows
from medaug.bench.result import Figure, Size
from medaug.bench.store_rows import Shape, made_rows, name_of, write_store
from medaug.bench.timing import interleaved

OF_SYNCED = {3 << 20: 0.9, 256 << 10: 0.7}
"""Of ``np.save`` + fsync, as durable without hashes: for rows from so many bytes. None for smaller
ones: there it is Python, between their batches, that takes the time."""
_SIZES: Mapping[Size, tuple[int, int]] = {
    "full": (768 << 20, 7),
    "quick": (128 << 20, 3),
    "tiny": (1 << 20, 1),
}
"""Bytes, and rounds."""


def write_figures(shape: Shape, size: Size, folder: Path) -> list[Figure]:
    """MB/s of medaug (a digest a shard, xxh3 a row, fsync), of ``np.save``, and of that + fsync."""
    n_bytes, rounds = _SIZES[size]
    rows = made_rows(shape, n_bytes, 1)
    subjects = {
        "medaug": lambda: _write(folder / "written", rows),
        "np.save": lambda: _save(folder / "saved.npy", rows.x, sync=False),
        "np.save + fsync": lambda: _save(folder / "saved.npy", rows.x, sync=True),
    }
    timings = interleaved(subjects, rounds)
    part, saved = f"write {name_of(shape)}", "np.save"
    figures = []
    for name, timing in timings.items():
        rate = rows.x.nbytes / 1e6 / timing.wall.median
        ratio = timing.speed_wall(timings[saved])
        figures.append(Figure(part, name, rate, "MB/s", ratio, f"{saved} (wall)"))
    own = timings["medaug"]
    rate = rows.x.nbytes / 1e6 / own.wall.median
    synced, durable = own.speed_wall(timings["np.save + fsync"]), "np.save + fsync (wall)"
    target = next((of for size, of in OF_SYNCED.items() if rows.x[0].nbytes >= size), None)
    figures.append(Figure(part, "medaug", rate, "MB/s", synced, durable, target))
    cpu = own.speed_cpu(timings[saved])
    figures.append(Figure(part, "medaug", rate, "MB/s", cpu, f"{saved} (CPU)"))
    shutil.rmtree(folder / "written", ignore_errors=True)
    (folder / "saved.npy").unlink(missing_ok=True)
    return figures


def _write(path: Path, rows: Rows) -> None:
    shutil.rmtree(path, ignore_errors=True)
    write_store(path, rows)


def _save(path: Path, x: np.ndarray, *, sync: bool) -> None:
    path.unlink(missing_ok=True)
    np.save(path, x)
    if sync:
        with path.open("rb") as file:
            os.fsync(file.fileno())
