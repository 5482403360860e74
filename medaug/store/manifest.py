"""The manifest: written last, it makes a folder of shards a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medaug.errors import IntegrityError
from medaug.spec.base import signature
from medaug.storage.faults import storage_faults
from medaug.storage.files import write_whole
from medaug.storage.manifest import read_sealed, sealed
from medaug.store.schema import FORMAT, Provenance, Splits, StoreSchema
from medaug.store.sidecar import Sidecar

MANIFEST = "manifest.json"
SHARD_BYTES = 192 << 20
BATCH_BYTES = 256 << 10
"""Rows of this size or more get a record batch each; smaller ones share one of this size."""


@dataclass(frozen=True)
class Plan:
    """All that decides a store's bytes, besides the rows themselves."""

    schema: StoreSchema
    provenance: Provenance
    classes: tuple[str, ...]
    shard_bytes: int = SHARD_BYTES
    parts: int = 1

    @cached_property
    def key(self) -> str:
        """Twelve hex digits, written into every shard; shards of another plan are not kept."""
        return signature(
            {
                "format": FORMAT,
                "schema": self.schema.to_json(),
                "provenance": self.provenance.to_json(),
                "classes": list(self.classes),
                "shard_bytes": self.shard_bytes,
                "parts": self.parts,
            }
        )

    @property
    def batch_rows(self) -> int:
        """Rows of each record batch."""
        return max(1, BATCH_BYTES // self.schema.row_bytes)

    @property
    def shard_rows(self) -> int:
        """Rows of each shard: whole record batches. A part's last shard may have fewer."""
        batches = self.shard_bytes // (self.schema.row_bytes * self.batch_rows)
        return self.batch_rows * max(1, batches)


def shard_path(path: Path, part: int, shard: int) -> Path:
    return path / f"part-{part:03d}-shard-{shard:05d}.arrow"


def part_path(path: Path, part: int) -> Path:
    """The record that a part is complete, and of how many shards."""
    return path / f"part-{part:03d}.json"


def publish(
    path: str | Path,
    schema: StoreSchema,
    *,
    provenance: Provenance,
    classes: Sequence[str],
    splits: Splits | Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
    parts: int = 1,
) -> None:
    """Complete the store at ``path``: one process, when the writers of all ``parts`` have closed.

    Takes what the writers took. Compares every sidecar with its shard's size and writes the
    manifest. Raises IntegrityError naming what is missing or does not fit.
    """
    path = Path(path)
    plan = Plan(schema, provenance, tuple(classes), shard_bytes, parts)
    if splits is not None and not isinstance(splits, Splits):
        splits = Splits.from_json(splits)
    with storage_faults(path):
        shards, counts, patients = _inventory(path, plan)
        body = {
            "format": FORMAT,
            "writer": plan.key,
            "schema": schema.to_json(),
            "classes": list(classes),
            "rows": sum(shard["rows"] for shard in shards),
            "bytes": sum(shard["bytes"] for shard in shards),
            "class_counts": counts,
            "patients": patients,
            "provenance": provenance.to_json(),
            "splits": None if splits is None else splits.to_json(),
            "extra": dict(extra or {}),
            "shards": shards,
        }
        write_whole(path / MANIFEST, sealed(body))


def _inventory(path: Path, plan: Plan) -> tuple[list[dict[str, Any]], dict[str, int], list[str]]:
    """The shards of all parts in order, rows of each class, and the patients."""
    shards = []
    counts = np.zeros(1 + len(plan.classes), np.int64)  # label -1 comes first
    patients: set[str] = set()
    for file in _shard_files(path, plan):
        sidecar = Sidecar.read(file)
        n_bytes = file.stat().st_size if file.exists() else 0
        if (sidecar.writer, sidecar.n_bytes) != (plan.key, n_bytes):
            raise IntegrityError(f"{file}: does not fit its sidecar; write the store again")
        counts += np.bincount(sidecar.columns["label"] + 1, minlength=len(counts))
        patients.update(sidecar.columns["patient"].tolist())
        about = {"file": file.name, "rows": sidecar.rows, "bytes": sidecar.n_bytes}
        shards.append({**about, "digest": sidecar.digest})
    names = ("unknown", *plan.classes)
    return shards, dict(zip(names, counts.tolist(), strict=True)), sorted(patients - {""})


def _shard_files(path: Path, plan: Plan) -> Iterator[Path]:
    for part in range(plan.parts):
        record = part_path(path, part)
        if not record.exists():
            raise IntegrityError(f"{record}: missing, so part {part} of {plan.parts} has not ended")
        body = read_sealed(record)
        if body["writer"] != plan.key:
            raise IntegrityError(f"{record}: was written for another store")
        yield from (shard_path(path, part, shard) for shard in range(body["shards"]))
