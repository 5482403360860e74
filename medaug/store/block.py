"""Rows on their way to disk: checked, cast to the stored dtype, and laid out for Arrow."""

from __future__ import annotations

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
    """Consecutive rows on their way to disk: x (n, *shape) and mask in stored dtype, columns.

    x and mask are contiguous.
    """

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
        if wrong := set(own["label"].tolist()) - set(range(-1, len(classes))):
            names = ", ".join(classes)
            raise UserError(f"label {min(wrong)}: use -1 to {len(classes) - 1} ({names})")
        return Block(stored, _as_mask(mask, schema, n), own)

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, start: int, stop: int) -> Block:
        """A view of some rows."""
        part = slice(start, stop)
        mask = None if self.mask is None else self.mask[part]
        return Block(self.x[part], mask, {name: col[part] for name, col in self.columns.items()})

    @staticmethod
    def join(blocks: list[Block]) -> Block:
        """A copy of all rows: the arrays of ``blocks`` may change afterwards."""
        masks = [block.mask for block in blocks if block.mask is not None]
        names = blocks[0].columns
        return Block(
            np.concatenate([block.x for block in blocks]),
            np.concatenate(masks) if masks else None,
            {name: np.concatenate([block.columns[name] for block in blocks]) for name in names},
        )

    def record_batch(self, arrow: pa.Schema) -> pa.RecordBatch:
        """An Arrow record batch over the same memory."""
        arrays = []
        for field in arrow:
            tensor = {"x": self.x, "mask": self.mask}.get(field.name)
            if tensor is None:
                arrays.append(pa.array(self.columns[field.name], field.type))
                continue
            storage = field.type.storage_type
            flat = pa.py_buffer(tensor.reshape(-1))
            values = pa.Array.from_buffers(storage.value_type, tensor.size, [None, flat])
            rows = pa.FixedSizeListArray.from_arrays(values, type=storage)
            arrays.append(pa.ExtensionArray.from_storage(field.type, rows))
        return pa.RecordBatch.from_arrays(arrays, schema=arrow)


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
    cast = cast.contiguous()
    return cast.view(torch.uint16).numpy() if schema.dtype == "bfloat16" else cast.numpy()


def _as_tensor(x: np.ndarray | torch.Tensor) -> torch.Tensor:
    """``x`` on the CPU, sharing memory where it can; it is only read."""
    if isinstance(x, torch.Tensor):
        return x.detach().cpu()
    return torch.from_dlpack(np.ascontiguousarray(x))  # from_numpy warns of read-only arrays


def _holds(cast: torch.Tensor, given: torch.Tensor) -> bool:
    """Whether the cast lost no value: all finite for floats, all equal for integers."""
    if cast.is_floating_point():
        extremes = torch.stack(torch.aminmax(cast)) if cast.numel() else cast  # NaN goes through
        return bool(torch.isfinite(extremes).all())
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
    return cast.contiguous().numpy()


def _column(name: str, values: Any, n: int, dtype: Any) -> np.ndarray:
    column = np.asarray(values, dtype)
    if column.shape not in ((), (n,)):
        raise UserError(f"{name}: shape {column.shape} for {n} rows; give one value per row")
    return np.broadcast_to(column, (n,))
