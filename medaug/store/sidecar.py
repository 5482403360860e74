"""The sidecar of a shard: what is in it and where each row lies.

It says nothing that is not in the finished file, so whoever finds a shard without one can make it
(:func:`describe`); the writer notes the same while it writes. It holds the small columns, the byte
offsets of each record batch's tensors (taken once from the record-batch metadata), an xxh3 hash per
row and the file's digest. To open a store, only sidecars are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medaug.errors import IntegrityError, UserError
from medaug.storage.manifest import read_sealed, sealed
from medaug.store.digest import digest_of, promised_digest
from medaug.store.schema import FORMAT, INTEGERS, STRINGS, StoreSchema

try:
    import xxhash
except ImportError:  # a bare GPU machine: there only whole shards are checked
    xxhash = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Sidecar:
    """What the sidecar of a shard says. Arrays have one entry per row."""

    writer: str
    rows: int
    n_bytes: int
    digest: str
    """``blake3:`` or ``sha256:`` and hex digits."""
    x_at: np.ndarray
    """Byte offset of each row's tensor in the file, int64."""
    mask_at: np.ndarray
    """Byte offset of each row's mask, int64; empty without masks."""
    xxh3: np.ndarray
    """:func:`row_hash` of each row, uint64; 0 where the writer had no xxhash."""
    columns: dict[str, np.ndarray]
    """label, slice_index, tumour_pixels: int32; patient, volume: str."""

    def to_bytes(self) -> bytes:
        labels, counts = np.unique(self.columns["label"], return_counts=True)
        body: dict[str, Any] = {
            "format": FORMAT,
            "writer": self.writer,
            "rows": self.rows,
            "bytes": self.n_bytes,
            "digest": self.digest,
            "x_at": _runs(self.x_at),
            "mask_at": _runs(self.mask_at),
            "xxh3": self.xxh3.astype(">u8").tobytes().hex(),
            "class_counts": dict(zip(map(str, labels.tolist()), counts.tolist(), strict=True)),
        }
        body |= {name: self.columns[name].tolist() for name in INTEGERS}
        for name in STRINGS:
            values, codes = np.unique(self.columns[name], return_inverse=True)
            body[name] = {"values": values.tolist(), "codes": codes.tolist()}
        return sealed(body)

    @staticmethod
    def read(shard: Path) -> Sidecar:
        """The sidecar of ``shard``. Raises IntegrityError when it is not what was written."""
        path = shard.with_suffix(".json")
        try:
            body = read_sealed(path)
        except FileNotFoundError as fault:
            raise IntegrityError(f"{path}: missing; write the store again") from fault
        columns: dict[str, np.ndarray] = {}
        for name in INTEGERS:
            columns[name] = np.array(body[name], np.int32)
        for name in STRINGS:
            codes = np.array(body[name]["codes"], np.int64)
            columns[name] = np.array(body[name]["values"], np.str_)[codes]
        return Sidecar(
            writer=body["writer"],
            rows=body["rows"],
            n_bytes=body["bytes"],
            digest=promised_digest(body),
            x_at=_from_runs(body["x_at"]),
            mask_at=_from_runs(body["mask_at"]),
            xxh3=np.frombuffer(bytes.fromhex(body["xxh3"]), ">u8").astype(np.uint64),
            columns=columns,
        )


def describe(path: Path, schema: StoreSchema, key: str) -> Sidecar:
    """Read the Arrow file at ``path`` and say where its rows lie.

    Raises UserError when its Arrow schema is another than that of ``schema`` and ``key``,
    IntegrityError when it is no whole Arrow file.
    """
    try:
        with pa.memory_map(str(path)) as file:
            content = file.read_buffer()
        reader = pa.ipc.open_file(content)
        check_schema(path, reader.schema, schema.arrow(key))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except pa.ArrowException as fault:
        raise IntegrityError(f"{path}: not a whole Arrow file ({fault})") from fault
    x_at, x = _tensors(batches, "x", schema.x_bytes, content)
    mask_at, mask = np.zeros(0, np.int64), [None] * len(x)
    if schema.mask_shape:
        mask_at, mask = _tensors(batches, "mask", schema.mask_bytes, content)
    table = pa.Table.from_batches(batches, schema.arrow(key))
    columns = {name: table.column(name).to_numpy() for name in INTEGERS}
    columns |= {name: table.column(name).to_numpy().astype(np.str_) for name in STRINGS}
    return Sidecar(
        writer=key,
        rows=table.num_rows,
        n_bytes=content.size,
        digest=digest_of(path),
        x_at=x_at,
        mask_at=mask_at,
        xxh3=np.array([row_hash(*row) for row in zip(x, mask, strict=True)], np.uint64),
        columns=columns,
    )


def _tensors(
    batches: list[pa.RecordBatch], column: str, row_bytes: int, content: pa.Buffer
) -> tuple[np.ndarray, list[Any]]:
    """Byte offset in ``content`` of each row's tensor, and the tensor's bytes.

    The offsets are multiples of 8 and no more (IPC aligns bodies to 8 bytes).
    """
    offsets, tensors = [], []
    for batch in batches:
        values = batch.column(column).buffers()[-1]
        first = values.address - content.address
        for at in range(first, first + len(batch) * row_bytes, row_bytes):
            offsets.append(at)
            tensors.append(np.frombuffer(content, np.uint8, row_bytes, at))
    return np.array(offsets, np.int64), tensors


def check_schema(path: Path, found: pa.Schema, wanted: pa.Schema) -> None:
    """Raises UserError, naming the first difference, unless the shard has the store's columns.

    A store has tensors of fixed shape (float16, float32, uint8, uint16), int32 and strings; no
    other type is ever read, least of all one that could run code.
    """
    for name in dict.fromkeys([*wanted.names, *found.names]):
        is_, should = (s.field(name).type if name in s.names else None for s in (found, wanted))
        if is_ != should:
            raise UserError(
                f"{path}: column {name} is {is_ or 'missing'}, but this store has "
                f"{should or 'no such column'}; put back the shard that belongs here"
            )
    if not found.equals(wanted, check_metadata=True):
        raise UserError(f"{path}: was written for another store; put back its own shard")


def row_hash(x: np.ndarray, mask: np.ndarray | None = None) -> int:
    """xxh3 (64 bits) of a row's tensor bytes, seeded with that of its mask's; 0 without xxhash."""
    if xxhash is None:
        return 0
    seed = 0 if mask is None else xxhash.xxh3_64_intdigest(mask.data)
    return xxhash.xxh3_64_intdigest(x.data, seed)


def _runs(offsets: np.ndarray) -> list[list[int]]:
    """[first, step, count] of each stretch of equally spaced offsets."""
    runs: list[list[int]] = []
    for at in offsets.tolist():
        if runs and runs[-1][2] == 1:
            runs[-1][1:] = [at - runs[-1][0], 2]
        elif runs and at == runs[-1][0] + runs[-1][1] * runs[-1][2]:
            runs[-1][2] += 1
        else:
            runs.append([at, 0, 1])
    return runs


def _from_runs(runs: list[list[int]]) -> np.ndarray:
    parts = [first + step * np.arange(count) for first, step, count in runs]
    return np.concatenate([np.zeros(0, np.int64), *parts])
