"""Small stores whose rows are a function of their number, and the ranks that read them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medaug.store import Provenance, StoreSchema, StoreWriter
from medaug.train.world import World

PROVENANCE = Provenance("ingest", "0123456789ab", (), (), synthetic=False)
SMALL = StoreSchema((2, 3, 5), "float16")
ABOUT: dict[str, Any] = {"provenance": PROVENANCE, "classes": ("LGG", "HGG")}


def rank_of(size: int, rank: int = 0) -> World:
    return World(rank, size, rank, torch.device("cpu"))


ALONE = rank_of(1)


def rows_of(schema: StoreSchema, n: int, first: int = 0) -> dict[str, Any]:
    """Columns of rows ``first`` to ``first + n``, each a pure function of its number."""
    number = np.arange(first, first + n)
    x = (number[:, None] * 7 + np.arange(np.prod(schema.shape))) % 251
    columns: dict[str, Any] = {
        "x": x.reshape(n, *schema.shape).astype(
            np.uint8 if schema.dtype == "uint8" else np.float32
        ),
        "label": number % 2,
        "patient": [f"p-{i // 4}" for i in number],
        "volume": [f"v-{i // 2}" for i in number],
        "slice_index": number,
        "tumour_pixels": number * 3,
    }
    if schema.mask_shape:
        mask = (number[:, None] + np.arange(np.prod(schema.mask_shape))) % 2
        columns["mask"] = mask.reshape(n, *schema.mask_shape).astype(np.uint8)
    return columns


def write_rows(
    writer: StoreWriter, schema: StoreSchema, n: int, first: int = 0, chunk: int = 7
) -> None:
    for start in range(first, n, chunk):
        rows = rows_of(schema, min(chunk, n - start), start)
        writer.write(rows.pop("x"), **rows)


def contents(folder: Path) -> dict[str, bytes]:
    """Name and bytes of every file."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_process(work: Callable[..., object], *arguments: object) -> multiprocessing.Process:
    """Start ``work`` in a process of its own; forked, since importing torch takes seconds."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    return process
