"""Writing one shard: an uncompressed Arrow IPC file whose tensors are aligned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from medaug.store.block import Block
from medaug.store.hashed_file import HashedFile
from medaug.store.schema import INTEGERS, STRINGS, StoreSchema
from medaug.store.sidecar import Sidecar, row_hash

ALIGNMENT = 64
"""Tensors begin at multiples of this; Arrow's writer promises 8, and copying then takes longer."""


class ShardFile:
    """A shard being written, and what its sidecar will say."""

    def __init__(self, path: Path, schema: StoreSchema, key: str) -> None:
        self.path, self.rows = path, 0
        self._schema, self._key = schema, key
        self._arrow = schema.arrow(key)
        self._file = HashedFile(path)
        self._sink = pa.PythonFile(self._file, "w")
        self._writer = pa.ipc.new_file(self._sink, self._arrow)
        self._headers = _headers(schema.mask_shape is not None)
        self._end = len(b"ARROW1\0\0") + self._arrow.serialize().size
        self._x_at: list[int] = []
        self._mask_at: list[int] = []
        self._xxh3: list[int] = []
        self._columns: list[dict[str, np.ndarray]] = []

    def append(self, block: Block) -> None:
        """Write ``block`` as one record batch."""
        header = self._headers[self._end % ALIGNMENT]
        batch = block.record_batch(self._arrow)
        self._writer.write_batch(batch, custom_metadata={"pad": header.pad})
        self._describe(block, self._end + header.bytes)
        self._end = self._sink.tell()
        self.rows += len(block)

    def finish(self) -> Sidecar:
        """Complete the file durably; its sidecar, which is what ``describe`` reads from it."""
        self._writer.close()
        digest = self._file.finish()
        names = self._columns[0]
        return Sidecar(
            writer=self._key,
            rows=self.rows,
            n_bytes=self._file.size,
            digest=digest,
            x_at=np.array(self._x_at, np.int64),
            mask_at=np.array(self._mask_at, np.int64),
            xxh3=np.array(self._xxh3, np.uint64),
            columns={n: np.concatenate([part[n] for part in self._columns]) for n in names},
        )

    def discard(self) -> None:
        """Give up: close and remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _describe(self, block: Block, body_at: int) -> None:
        """Note the rows of a record batch whose body begins at ``body_at``: x first, then mask."""
        n, x_bytes, mask_bytes = len(block), self._schema.x_bytes, self._schema.mask_bytes
        x = block.x.reshape(n, -1).view(np.uint8)
        self._x_at += range(body_at, body_at + n * x_bytes, x_bytes)
        if block.mask is None:
            self._xxh3 += map(row_hash, x)
        else:
            mask_at = body_at + -(-n * x_bytes // 8) * 8  # buffers begin at multiples of 8
            self._mask_at += range(mask_at, mask_at + n * mask_bytes, mask_bytes)
            self._xxh3 += map(row_hash, x, block.mask.reshape(n, -1))
        self._columns.append({name: column.copy() for name, column in block.columns.items()})


@dataclass(frozen=True)
class _Header:
    """What comes before the body of a record batch."""

    pad: str
    """Goes into its metadata so that the body begins aligned."""
    bytes: int


@cache
def _headers(with_mask: bool) -> dict[int, _Header]:
    """The header of a record batch, by its position in the file modulo ALIGNMENT.

    Its length depends on the pad and on the number of columns, not on their content.
    """
    four = np.zeros((1, 4), np.uint8)
    columns = {name: np.zeros(1, np.int32) for name in INTEGERS}
    columns |= {name: np.zeros(1, np.str_) for name in STRINGS}
    arrow = StoreSchema((4,), "uint8", (4,) if with_mask else None).arrow("")
    batch = Block(four, four if with_mask else None, columns).record_batch(arrow)
    headers = {}
    for pad in (" " * n for n in range(0, ALIGNMENT, 8)):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, arrow) as stream:
            stream.write_batch(batch, custom_metadata={"pad": pad})
        message = pa.ipc.read_message(sink.getvalue().slice(arrow.serialize().size))
        n_bytes = 8 + message.metadata.size  # 8: the lengths before it
        headers[-n_bytes % ALIGNMENT] = _Header(pad, n_bytes)
    assert len(headers) == ALIGNMENT // 8
    return headers
