"""What a store holds: tensor shape and dtype, where its rows come from, who may see them."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from medaug.errors import UserError

FORMAT = "medaug-store/1"
"""Written into every shard, sidecar and manifest; another major version is refused."""

DType = Literal["float16", "float32", "uint8", "bfloat16"]

INTEGERS = ("label", "slice_index", "tumour_pixels")
STRINGS = ("patient", "volume")
"""The columns beside the tensors: int32, and strings."""


@dataclass(frozen=True)
class _Types:
    arrow: pa.DataType
    numpy: np.dtype[Any]
    torch: torch.dtype


# Arrow has no bfloat16: its bits are stored as uint16, and the metadata say what they are.
TYPES: Mapping[str, _Types] = {
    "float16": _Types(pa.float16(), np.dtype(np.float16), torch.float16),
    "float32": _Types(pa.float32(), np.dtype(np.float32), torch.float32),
    "uint8": _Types(pa.uint8(), np.dtype(np.uint8), torch.uint8),
    "bfloat16": _Types(pa.uint16(), np.dtype(np.uint16), torch.bfloat16),
}


@dataclass(frozen=True)
class StoreSchema:
    """Shape and dtype of each row's tensor ``x``, and of its mask (uint8) if rows have one."""

    shape: tuple[int, ...]
    dtype: DType
    mask_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in TYPES:
            raise UserError(f"store dtype: {self.dtype!r}; use one of {', '.join(TYPES)}")
        for shape in (self.shape, self.mask_shape or (1,)):
            if not shape or min(shape) < 1:
                raise UserError(f"store shape: {shape}; every axis needs a length of 1 or more")

    @property
    def types(self) -> _Types:
        return TYPES[self.dtype]

    @property
    def x_bytes(self) -> int:
        """Bytes of one row's tensor."""
        return math.prod(self.shape) * self.types.numpy.itemsize

    @property
    def mask_bytes(self) -> int:
        """Bytes of one row's mask; 0 without one."""
        return math.prod(self.mask_shape) if self.mask_shape else 0

    @property
    def row_bytes(self) -> int:
        return self.x_bytes + self.mask_bytes

    def to_json(self) -> dict[str, Any]:
        mask_shape = list(self.mask_shape) if self.mask_shape else None
        return {"shape": list(self.shape), "dtype": self.dtype, "mask_shape": mask_shape}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> StoreSchema:
        mask_shape = tuple(body["mask_shape"]) if body["mask_shape"] else None
        return StoreSchema(tuple(body["shape"]), body["dtype"], mask_shape)

    def arrow(self, key: str) -> pa.Schema:
        """The Arrow schema of a shard; ``key`` names what the writer was asked to write."""
        columns = [("x", pa.fixed_shape_tensor(self.types.arrow, self.shape))]
        if self.mask_shape:
            columns.append(("mask", pa.fixed_shape_tensor(pa.uint8(), self.mask_shape)))
        columns += [
            ("label", pa.int32()),
            ("patient", pa.string()),
            ("volume", pa.string()),
            ("slice_index", pa.int32()),
            ("tumour_pixels", pa.int32()),
        ]
        return pa.schema(
            [pa.field(name, kind, nullable=False) for name, kind in columns],
            metadata={"format": FORMAT, "torch_dtype": self.dtype, "writer": key},
        )


@dataclass(frozen=True)
class Provenance:
    """Where the rows come from: what the leaderboard needs to know to trust them."""

    stage: str
    config: str
    """Signature of the configuration that made the store."""
    parents: tuple[str, ...]
    """Names of the stores and models it was made from."""
    fitted_on: tuple[str, ...]
    """Patients whose data any fitted model in the chain has seen; images (see
    :attr:`Store.units`) where the split is by image."""
    synthetic: bool
    encoder: str | None = None
    """Name of the model whose features the rows are; None when the rows are images."""

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "parents": list(self.parents),
            "fitted_on": sorted(set(self.fitted_on)),
        }

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Provenance:
        lists = {key: tuple(body[key]) for key in ("parents", "fitted_on")}
        return Provenance(**{**body, **lists})


@dataclass(frozen=True)
class Fold:
    """Patients of one fold: ``train`` fits, ``val`` chooses, ``eval`` is scored.

    Without ``val``, those who are scored choose; only published protocols did that.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    eval: tuple[str, ...]


@dataclass(frozen=True)
class Splits:
    """Which patient plays which role: per fold, plus the sealed ``test`` patients."""

    folds: tuple[Fold, ...]
    test: tuple[str, ...] = ()
    seed: int = 0
    unit: Literal["patient", "image"] = "patient"
    """``image``: roles list single images as ``patient/slice`` and a patient may be in several, as
    in published protocols that split at random."""

    def __post_init__(self) -> None:
        for number, fold in enumerate(self.folds):
            roles = Counter([*fold.train, *fold.val, *fold.eval, *self.test])
            if twice := [name for name, times in roles.items() if times > 1]:
                raise UserError(
                    f"splits: fold {number} has {self.unit} {min(twice)} twice; "
                    "each belongs to exactly one role"
                )

    def patients(self, role: str, fold: int | None) -> tuple[str, ...]:
        """Patients (or images) of ``role``: train, val, eval in ``fold``; or test, of no fold."""
        if role == "test":
            return self.test
        if role not in ("train", "val", "eval"):
            raise UserError(f"split {role!r}: use train, val, eval or test")
        if fold is None or not 0 <= fold < len(self.folds):
            raise UserError(f"split {role!r}: fold {fold}; use 0 to {len(self.folds) - 1}")
        patients: tuple[str, ...] = getattr(self.folds[fold], role)
        return patients

    def to_json(self) -> dict[str, Any]:
        """JSON with a ``hash`` that names this split."""
        body = {
            "folds": [{role: list(names) for role, names in asdict(f).items()} for f in self.folds],
            "test": list(self.test),
            "seed": self.seed,
            "unit": self.unit,
        }
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return {**body, "hash": hashlib.sha256(text.encode()).hexdigest()[:12]}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Splits:
        folds = (
            Fold(**{role: tuple(fold[role]) for role in ("train", "val", "eval")})
            for fold in body["folds"]
        )
        test, seed = tuple(body.get("test", ())), body.get("seed", 0)
        return Splits(tuple(folds), test, seed, body.get("unit", "patient"))
