"""Rows on their way to disk: checked, cast to the stored dtype, and laid out for Arrow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from medaug.errors import UserError
from medaug.store.schema import INTEGERS, STRINGS, StoreSchema


@dataclass
class Block:
    """Consecutive rows on their way to disk: x (n, *shape) and mask in stored dtype, columns."""

    x: np.ndarray
    mask: np.ndarray | None
    columns: dict[str, np.ndarray]

    @staticmethod
    def of(
        x: np.ndarray | torch.Tensor,
        mask: np.ndarray | torch.Tensor | None,
        columns: Mapping[str, Any],
        *,
        schema: StoreSchema,
        classes: tuple[str, ...],
        first_row: int,
    ) -> Block:
        """Rows as ``StoreWriter.write`` takes them; ``first_row`` is for messages.

        Raises UserError when they are not what the schema says, or a value would be lost.
        """
        stored = _as_stored(x, schema, first_row)
        n = len(stored)
        kinds: dict[str, Any] = dict.fromkeys(INTEGERS, np.int32)
        kinds |= dict.fromkeys(STRINGS, np.str_)
        own = {name: _column(name, columns[name], n, kind) for name, kind in kinds.items()}
        label = own["label"]
        if n and not -1 <= label.min() <= label.max() < len(classes):
            wrong = label[(label < -1) | (label >= len(classes))].min()
            names = ", ".join(classes)
            raise UserError(f"label {wrong}: use -1 to {len(classes) - 1} ({names})")
        return Block(stored, _as_mask(mask, schema, n), own)

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, start: int, stop: int) -> Block:
        """A view of some rows."""
        part = slice(start, stop)
        mask = None if self.mask is None else self.mask[part]
        return Block(self.x[part], mask, {name: col[part] for name, col in self.columns.items()})

    def record_batch(self, arrow: pa.Schema) -> pa.RecordBatch:
        """An Arrow record batch over the same memory."""
        arrays = []
        for field in arrow:
            tensor = {"x": self.x, "mask": self.mask}.get(field.name)
            if tensor is None:
                # A list, because NumPy's strings would import pandas.
                arrays.append(pa.array(self.columns[field.name].tolist(), field.type))
                continue
            storage = field.type.storage_type
            flat = pa.py_buffer(np.ascontiguousarray(tensor).reshape(-1))
            values = pa.Array.from_buffers(storage.value_type, tensor.size, [None, flat])
            rows = pa.FixedSizeListArray.from_arrays(values, type=storage)
            arrays.append(pa.ExtensionArray.from_storage(field.type, rows))
        return pa.RecordBatch.from_arrays(arrays, schema=arrow)


STAGED_BYTES = 2 << 20
"""Small rows are put together to this much, in whole record batches."""


class Staging:
    """Memory in which small rows wait until some record batches of them are together."""

    def __init__(self, schema: StoreSchema, batch_rows: int) -> None:
        self._capacity = batch_rows * max(1, STAGED_BYTES // (batch_rows * schema.row_bytes))
        self._schema, self.rows = schema, 0
        self._x: np.ndarray | None = None
        self._mask: np.ndarray | None = None
        self._columns: list[dict[str, np.ndarray]] = []

    @property
    def full(self) -> bool:
        return self.rows == self._capacity

    def put(self, block: Block, most: int) -> int:
        """Copy as many rows of ``block`` as there is room for, ``most`` in all; their number."""
        schema, n = self._schema, min(len(block), min(self._capacity, most) - self.rows)
        if self._x is None:
            self._x = np.empty((self._capacity, *schema.shape), schema.types.numpy)
            if schema.mask_shape:
                self._mask = np.empty((self._capacity, *schema.mask_shape), np.uint8)
        here = slice(self.rows, self.rows + n)
        self._x[here] = block.x[:n]
        if self._mask is not None and block.mask is not None:
            self._mask[here] = block.mask[:n]
        self._columns.append({name: col[:n].copy() for name, col in block.columns.items()})
        self.rows += n
        return n

    def take_all(self) -> Block:
        """The rows so far, in memory that the next :meth:`put` uses again."""
        n, columns = self.rows, self._columns
        self.rows, self._columns = 0, []
        x = np.empty((0, *self._schema.shape)) if self._x is None else self._x[:n]
        mask = None if self._mask is None else self._mask[:n]
        names = columns[0] if columns else ()
        return Block(x, mask, {name: np.concatenate([c[name] for c in columns]) for name in names})


def _as_stored(x: np.ndarray | torch.Tensor, schema: StoreSchema, first_row: int) -> np.ndarray:
    """``x`` in the dtype of the shards; bfloat16 as the uint16 of its bits."""
    given = _as_tensor(x)
    if given.shape[1:] != schema.shape:
        raise UserError(f"rows of shape {tuple(given.shape[1:])}; the store has {schema.shape}")
    cast = given.to(schema.types.torch)
    if not _holds(cast, given):
        row = next(i for i in range(len(given)) if not _holds(cast[i : i + 1], given[i : i + 1]))
        raise UserError(
            f"row {first_row + row}: a value is not finite or does not fit {schema.dtype}; "
            "rescale it or use another dtype"
        )
    return cast.view(torch.uint16).numpy() if schema.dtype == "bfloat16" else cast.numpy()


def _as_tensor(x: np.ndarray | torch.Tensor) -> torch.Tensor:
    """``x`` on the CPU, sharing memory where it can; it is only read."""
    if isinstance(x, torch.Tensor):
        return x.detach().cpu()
    return torch.from_dlpack(np.ascontiguousarray(x))  # from_numpy warns of read-only arrays


def _holds(cast: torch.Tensor, given: torch.Tensor) -> bool:
    """Whether the cast lost no value: all finite for floats, all equal for integers."""
    if cast.is_floating_point():
        extremes = torch.aminmax(cast) if cast.numel() else ()  # NaN goes through
        return all(math.isfinite(extreme.item()) for extreme in extremes)
    return cast.dtype == given.dtype or torch.equal(cast.to(given.dtype), given)


def _as_mask(mask: Any, schema: StoreSchema, n: int) -> np.ndarray | None:
    wanted = None if schema.mask_shape is None else (n, *schema.mask_shape)
    found = None if mask is None else tuple(mask.shape)
    if found != wanted:
        raise UserError(f"mask: shape {found}, but the store wants {wanted}")
    if mask is None:
        return None
    given = _as_tensor(mask)
    cast = given.to(torch.uint8)
    if not _holds(cast, given):
        raise UserError("mask: values are not whole numbers from 0 to 255")
    return cast.numpy()


def _column(name: str, values: Any, n: int, dtype: Any) -> np.ndarray:
    column = np.asarray(values, dtype)
    if column.shape not in ((), (n,)):
        raise UserError(f"{name}: shape {column.shape} for {n} rows; give one value per row")
    return np.broadcast_to(column, (n,))
