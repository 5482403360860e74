"""Reading a store: a view of rows in shards, and batches of them in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from medaug.errors import IntegrityError, UserError
from medaug.spec.base import signature
from medaug.storage.manifest import read_sealed
from medaug.store.cache import NodeCache, default_folder
from medaug.store.digest import promised_digest
from medaug.store.gather import Access, Rows, Shard
from medaug.store.manifest import MANIFEST
from medaug.store.memory import free_ram_bytes
from medaug.store.ring import Batch, Buffer, Ring
from medaug.store.sampler import Order, Ranks, epoch_batches
from medaug.store.schema import FORMAT, Provenance, Splits, StoreSchema
from medaug.store.sidecar import Sidecar
from medaug.store.verify import verify_shards
from medaug.store.waiting import timed


class Store:
    """Rows of fixed shape with their labels and patients; read-only. Made by :meth:`open`.

    ``split``, ``select`` and ``concat`` give views: no tensor is read before ``read`` or
    ``batches``.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        manifest: Mapping[str, Any],
        shards: tuple[Shard, ...],
        rows: Rows,
    ) -> None:
        self.path, self.name, self.manifest = path, name, manifest
        self._shards, self._rows = shards, rows
        self.schema = StoreSchema.from_json(manifest["schema"])
        self._ring = Ring(self.schema, shards, rows)

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether ``path`` holds a finished store: a manifest that is intact."""
        try:
            read_sealed(Path(path) / MANIFEST)
        except (OSError, IntegrityError):
            return False
        return True

    @staticmethod
    def open(
        path: str | Path,
        *,
        verify: bool = True,
        access: Access | Literal["auto"] = "auto",
        cache: NodeCache | None = None,
    ) -> Store:
        """Open the finished store at ``path``.

        ``verify`` compares every shard with its digest, once per node and file version; each
        row's own hash is checked when it is read in any case. ``access``: ``map`` the shards into
        memory, or ``pread`` rows from them, or past the page cache (``direct``); ``auto`` maps
        what fits into half of the free RAM, and reads directly what is larger than it.
        A URI (``s3://bucket/name``), or any path with ``cache``, is fetched to the node first.

        Raises:
            UserError: there is no finished store, or one of another format or with other columns.
            IntegrityError: a shard, a sidecar or the manifest is not what was written.
        """
        name = Path(path).name  # its own, wherever it is fetched to
        if cache is not None or "://" in str(path):
            path = (cache or NodeCache(default_folder())).fetch(path)
        path = Path(path)
        if not (path / MANIFEST).exists():
            raise UserError(f"{path}: no {MANIFEST}, so no finished store; run its stage (again)")
        manifest = read_sealed(path / MANIFEST)
        if manifest.get("format") != FORMAT:
            raise UserError(
                f"{path}: written as {manifest.get('format')}, this medaug reads {FORMAT}; "
                "write the store again"
            )
        try:
            schema = StoreSchema.from_json(manifest["schema"])
            arrow = schema.arrow(manifest["writer"])
            files = [path / shard["file"] for shard in manifest["shards"]]
            about = [(shard["bytes"], promised_digest(shard)) for shard in manifest["shards"]]
        except (KeyError, TypeError) as fault:  # its hash is right, so it was made by hand
            raise IntegrityError(
                f"{path / MANIFEST}: is no store's manifest ({fault}); write the store again"
            ) from fault
        if verify:
            verify_shards([(f, *what) for f, what in zip(files, about, strict=True)], arrow)
        sidecars = [
            _sidecar(file, promised, schema)
            for file, promised in zip(files, manifest["shards"], strict=True)
        ]
        if access == "auto":
            access = _access_to(manifest["bytes"])
        shards = (Shard(f, sidecar, access) for f, sidecar in zip(files, sidecars, strict=True))
        return Store(path, name, manifest, tuple(shards), Rows.of(sidecars))

    def __len__(self) -> int:
        return len(self._rows.label)

    def __repr__(self) -> str:
        return f"<Store {self.name}: {len(self)} rows {self.schema.dtype}{self.schema.shape}>"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.manifest["classes"])

    @cached_property
    def provenance(self) -> Provenance:
        return Provenance.from_json(self.manifest["provenance"])

    @cached_property
    def splits(self) -> Splits | None:
        body = self.manifest["splits"]
        return None if body is None else Splits.from_json(body)

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64; -1 where unknown."""
        return self._rows.label

    @property
    def patients(self) -> np.ndarray:
        """(n,) str: pseudonyms; "" for synthetic rows."""
        return self._rows.patient

    @property
    def volumes(self) -> np.ndarray:
        """(n,) str."""
        return self._rows.volume

    @property
    def slice_index(self) -> np.ndarray:
        """(n,) int32."""
        return self._rows.slice_index

    @property
    def tumour_pixels(self) -> np.ndarray:
        """(n,) int32; -1 where unknown."""
        return self._rows.tumour_pixels

    @property
    def units(self) -> np.ndarray:
        """(n,) str: what the split divides: patients, or single images as ``patient/slice``."""
        if self.splits is None or self.splits.unit == "patient":
            return self.patients
        rows = zip(self.patients.tolist(), self.slice_index.tolist(), strict=True)
        return np.array([f"{patient}/{index}" for patient, index in rows], dtype=str)

    def split(self, role: str, fold: int | None = None) -> Store:
        """The rows of the patients who are ``train``, ``val`` or ``eval`` in ``fold``, or ``test``.

        Raises UserError when the store has no splits, or no such role or fold.
        """
        if self.splits is None:
            raise UserError(f"{self.name}: the store has no splits; split the store it came from")
        return self.select(np.isin(self.units, self.splits.patients(role, fold)))

    def select(self, rows: np.ndarray) -> Store:
        """A view of ``rows``: row numbers in any order (repeats allowed), or a boolean mask."""
        rows = _row_numbers(rows, len(self))
        return Store(self.path, self.name, self.manifest, self._shards, self._rows.take(rows))

    def labelled(self, labels: np.ndarray) -> Store:
        """A view of the same rows with other ``labels`` (n,) int64."""
        if labels.shape != (len(self),):
            raise UserError(f"rows: {len(labels)} labels for {len(self)} rows")
        rows = replace(self._rows, label=labels.astype(np.int64))
        return Store(self.path, self.name, self.manifest, self._shards, rows)

    @staticmethod
    def concat(*stores: Store) -> Store:
        """A view of all rows of ``stores``, in order.

        Raises UserError unless they have one schema, the same classes and one encoder.
        """
        first, *others = stores
        if not others:
            return first
        encoders = {s.provenance.encoder for s in stores} - {None}
        for other in others:
            if (other.schema, other.classes) != (first.schema, first.classes) or len(encoders) > 1:
                raise UserError(
                    f"{first.name} and {other.name}: rows of different kinds do not mix"
                )
        shards = tuple(shard for store in stores for shard in store._shards)
        rows = Rows.join([s._rows for s in stores], [len(s._shards) for s in stores])
        names = list(dict.fromkeys(store.name for store in stores))
        manifest = {
            "format": FORMAT,
            "schema": first.schema.to_json(),
            "classes": list(first.classes),
            "provenance": _joined_provenance(stores, names).to_json(),
            "splits": None,
            "extra": {},
        }
        return Store(first.path, "+".join(names), manifest, shards, rows)

    def read(self, rows: Any = slice(None)) -> Batch:
        """The given rows (numbers, slice or mask) in a batch of their own memory."""
        index = _row_numbers(rows, len(self))
        buffer = Buffer(self.schema, len(index))
        buffer.fill(self._shards, self._rows, index)
        return buffer.batch(index, self._rows.label[index])

    def batches(
        self, world: Ranks, batch_size: int, *, start: int = 0, **order: Unpack[Order]
    ) -> Iterator[Batch]:
        """This rank's share of each global batch of ``batch_size`` rows, from batch ``start`` on.

        Which rows these are is a pure function of (seed, epoch): see
        :func:`medaug.store.sampler.epoch_batches` for ``shuffle``, ``drop_last``, ``weights``,
        ``steps``, and for ``quotas``: rows of each batch from each store joined by :meth:`concat`.

        A batch is valid until the next one is drawn: its memory is used again.
        """
        plan = epoch_batches(len(self), batch_size, source=self._rows.source, **order)
        mine = [rows[world.share(len(rows))] for rows in plan[start:]]
        return timed(self._batches(mine))

    def _batches(self, plan: list[np.ndarray]) -> Iterator[Batch]:
        for buffer, index in zip(self._ring.batches(plan), plan, strict=True):
            yield buffer.batch(index, self._rows.label[index])


def _access_to(n_bytes: int) -> Access:
    """How to read a store of so many bytes. Of one that is larger than free RAM, the page cache
    would hold too little when a row is drawn again, and take twice as long to read."""
    free = free_ram_bytes()
    if 2 * n_bytes <= free:
        return "map"
    return "pread" if n_bytes <= free else "direct"


def _sidecar(file: Path, promised: Mapping[str, Any], schema: StoreSchema) -> Sidecar:
    sidecar = Sidecar.read(file)
    fits = (sidecar.digest, sidecar.rows) == (promised_digest(promised), promised["rows"])
    for at, n_bytes in ((sidecar.x_at, schema.x_bytes), (sidecar.mask_at, schema.mask_bytes)):
        fits &= bool(((at >= 0) & (at <= sidecar.n_bytes - n_bytes)).all())
    if not fits:
        raise IntegrityError(f"{file.with_suffix('.json')}: is not the sidecar of this shard")
    return sidecar


def _row_numbers(rows: Any, n: int) -> np.ndarray:
    if isinstance(rows, slice):
        return np.arange(n)[rows]
    index = np.atleast_1d(np.asarray(rows))
    if index.dtype == bool:
        if index.shape != (n,):
            raise UserError(f"rows: a mask of {index.shape} for {n} rows")
        return np.flatnonzero(index)
    index = index.astype(np.int64)
    if len(index) and not (index.min() >= 0 and index.max() < n):
        raise UserError(f"rows: {index.min()} to {index.max()}, but there are {n} rows")
    return index


def _joined_provenance(stores: tuple[Store, ...], names: list[str]) -> Provenance:
    all_ = [store.provenance for store in stores]
    encoders = [p.encoder for p in all_ if p.encoder]
    return Provenance(
        stage="concat",
        config=signature({"concat": names}),
        parents=tuple(names),
        fitted_on=tuple(sorted({patient for p in all_ for patient in p.fitted_on})),
        synthetic=any(p.synthetic for p in all_),
        encoder=encoders[0] if encoders else None,
    )
