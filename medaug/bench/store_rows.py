"""Rows to measure with, and a store of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from medaug.bench.peers import Rows
from medaug.bench.result import Size
from medaug.store import Provenance, StoreSchema, StoreWriter

Shape = tuple[int, int, int]


def shapes_of(size: Size) -> tuple[Shape, ...]:
    """A frozen network's features, 7 KB a row in float16, and the two ends of study A, 461 KB and
    3.7 MB; small ones to try it all."""
    if size == "tiny":
        return (16, 1, 1), (32, 15, 15), (4, 30, 30)
    return (3584, 1, 1), (1024, 15, 15), (128, 120, 120)


def row_bytes_of(shape: Shape) -> int:
    """Of a row in float16."""
    return 2 * math.prod(shape)


BLOCK = 32
PROVENANCE = Provenance("bench", "0" * 12, (), (), synthetic=True)


def name_of(shape: Shape) -> str:
    """As the study's paper writes it: 15x15x1024."""
    channels, height, width = shape
    return f"{height}x{width}x{channels}"


def made_rows(shape: Shape, n_bytes: int, multiple: int) -> Rows:
    """About ``n_bytes`` of normal numbers, float16, in a multiple of ``multiple`` rows."""
    n = max(1, n_bytes // (row_bytes_of(shape) * multiple)) * multiple
    x = np.random.default_rng(0).standard_normal((n, *shape), np.float32).astype(np.float16)
    return Rows(x, np.arange(n) % 2)


def write_store(path: Path, rows: Rows, *, times: int = 1, rest: int = 0) -> None:
    """A store of ``rows``, ``times`` over, and the first ``rest`` of them once more."""
    schema = StoreSchema(rows.x.shape[1:], "float16")
    with StoreWriter(path, schema, provenance=PROVENANCE, classes=("a", "b")) as writer:
        for _ in range(times):
            _write(writer, rows, len(rows))
        _write(writer, rows, rest)


def _write(writer: StoreWriter, rows: Rows, n: int) -> None:
    """The first ``n`` rows, some at a time as they come from an encoder."""
    for start in range(0, n, BLOCK):
        part = slice(start, min(start + BLOCK, n))
        index = np.arange(part.start, part.stop)
        writer.write(rows.x[part], label=rows.label[part], patient="", volume="", slice_index=index)
