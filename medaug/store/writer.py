"""Writing a store: shards in order, each with its sidecar; the manifest when all is there.

A folder without ``manifest.json`` is no store yet. Killed at any moment, writing goes on at the
first shard that is not whole, and the finished store is the same to the byte: shards begin and
end at fixed row numbers and hold no times. Two processes that make the same store share its
shards: the first to finish one gives it its name, the other takes that one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from medaug.errors import IntegrityError, UserError
from medaug.storage.faults import storage_faults
from medaug.storage.files import (
    give_name,
    private_folder,
    remove_abandoned,
    temporary_name,
    write_whole,
)
from medaug.storage.manifest import read_sealed, sealed
from medaug.store.block import Block
from medaug.store.digest import digest_of
from medaug.store.manifest import MANIFEST, SHARD_BYTES, Plan, part_path, publish, shard_path
from medaug.store.schema import Provenance, Splits, StoreSchema
from medaug.store.shard import ShardFile
from medaug.store.sidecar import Sidecar, describe


class StoreWriter:
    """Writes rows in order into the store at ``path``; use it as a context manager.

    Leaving the block completes the store; leaving it by an exception keeps only whole shards.
    Whole shards of an earlier, interrupted writing are kept: begin at row ``rows_done``.

    With ``parts > 1`` each of that many processes writes shards of its own; when all have closed,
    one of them calls :func:`medaug.store.publish`. The rows of part 0 come first, then part 1 ...

    ``extra`` (any JSON) and ``splits`` (if a dict) go into the manifest and may be filled until
    the end.

    Raises:
        UserError: ``path`` is a finished store of another configuration.
        EnvironmentFault: storage fails.
    """

    def __init__(
        self,
        path: str | Path,
        schema: StoreSchema,
        *,
        provenance: Provenance,
        classes: Sequence[str],
        splits: Splits | Mapping[str, Any] | None = None,
        extra: dict[str, Any] | None = None,
        shard_bytes: int = SHARD_BYTES,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        assert 0 <= part < parts
        self.path = Path(path)
        self.extra: dict[str, Any] = {} if extra is None else extra
        self._plan = Plan(schema, provenance, tuple(classes), shard_bytes, parts)
        self._splits, self._part = splits, part
        self._pending: list[Block] = []
        self._shard: ShardFile | None = None
        self._publisher = ThreadPoolExecutor(1, "store-publish")
        self._publishing: Future[None] | None = None
        with storage_faults(self.path):
            private_folder(self.path)
            self._refuse_other_store()
            remove_abandoned(self.path)
            self._shards, self._rows_done, self._complete = self._keep_whole_shards()
        self._rows = self._rows_done
        self._rows_done_read = False

    @property
    def rows_done(self) -> int:
        """How many rows of this part are in whole shards: write those that follow."""
        self._rows_done_read = True
        return self._rows_done

    def write(
        self,
        x: np.ndarray | torch.Tensor,
        *,
        label: Any,
        patient: Any,
        volume: Any,
        slice_index: Any,
        tumour_pixels: Any = None,
        mask: np.ndarray | torch.Tensor | None = None,
    ) -> None:
        """Append n rows: x (n, *shape), mask (n, *mask_shape) of 0..255, and one value per row.

        ``label`` is -1 and ``tumour_pixels`` -1 (or None) where unknown; ``patient`` is a
        pseudonym, "" for synthetic rows. A single value stands for all rows.

        Raises UserError for another shape, and for a value that the store's dtype cannot hold
        (not finite, or out of range).
        """
        if self._complete:
            raise UserError(f"{self.path}: is complete; delete it to write it again")
        assert self._rows_done_read or not self._rows_done, "begin at row rows_done"
        columns = {
            "label": label,
            "patient": patient,
            "volume": volume,
            "slice_index": slice_index,
            "tumour_pixels": -1 if tumour_pixels is None else tumour_pixels,
        }
        plan = self._plan
        block = Block.of(
            x, mask, columns, schema=plan.schema, classes=plan.classes, first_row=self._rows
        )
        if not len(block):
            return
        self._pending.append(block)
        self._rows += len(block)
        with storage_faults(self.path, plan.shard_rows * plan.schema.row_bytes):
            self._write_full_batches()
        # What is left is less than a batch; a copy, because the caller may reuse its arrays.
        self._pending = [Block.join(self._pending)] if self._pending else []

    def close(self) -> None:
        """Write what is pending; with a single part, complete the store."""
        with storage_faults(self.path, self._plan.shard_rows * self._plan.schema.row_bytes):
            if self._pending:
                self._append(Block.join(self._pending))
                self._pending = []
            if self._shard:
                self._end_shard(self._shard)
            self._wait_for_shard()
            record = {"writer": self._plan.key, "shards": self._shards, "rows": self._rows}
            write_whole(part_path(self.path, self._part), sealed(record))
        if self._plan.parts == 1:
            publish(
                self.path,
                self._plan.schema,
                provenance=self._plan.provenance,
                classes=self._plan.classes,
                splits=self._splits,
                extra=self.extra,
                shard_bytes=self._plan.shard_bytes,
            )

    def abort(self) -> None:
        """Drop the shard that is not whole; what is whole stays for the next writer."""
        self._pending = []
        self._publisher.shutdown()
        if self._shard:
            self._shard.discard()
            self._shard = None

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.abort()

    def _write_full_batches(self) -> None:
        size = self._plan.batch_rows
        while self._pending and sum(map(len, self._pending)) >= size:
            if len(self._pending[0]) < size:
                self._pending = [Block.join(self._pending)]
            first = self._pending.pop(0)
            if len(first) > size:
                self._pending.insert(0, first.rows(size, len(first)))
            self._append(first.rows(0, size))

    def _append(self, batch: Block) -> None:
        if self._shard is None:
            final = shard_path(self.path, self._part, self._shards)
            self._shard = ShardFile(temporary_name(final), self._plan.schema, self._plan.key)
        self._shard.append(batch)
        if self._shard.rows == self._plan.shard_rows:
            self._end_shard(self._shard)

    def _end_shard(self, shard: ShardFile) -> None:
        """Publish a full shard in a thread, while the next is written: disks are slow to sync."""
        self._wait_for_shard()
        final = shard_path(self.path, self._part, self._shards)
        self._publishing = self._publisher.submit(self._publish_shard, shard, final)
        self._shard = None
        self._shards += 1

    def _wait_for_shard(self) -> None:
        if self._publishing:
            self._publishing.result()
        self._publishing = None

    def _publish_shard(self, shard: ShardFile, final: Path) -> None:
        try:
            self._name_shard(shard, final)
        except BaseException:
            shard.discard()
            raise

    def _name_shard(self, shard: ShardFile, final: Path) -> None:
        sidecar = shard.finish()
        while not give_name(shard.path, final):
            existing = self._verified(final)
            if existing is not None and existing.rows == sidecar.rows:
                shard.path.unlink()
                sidecar = existing
                break
            final.unlink(missing_ok=True)
        write_whole(final.with_suffix(".json"), sidecar.to_bytes())

    def _refuse_other_store(self) -> None:
        with contextlib.suppress(FileNotFoundError, IntegrityError):
            if read_sealed(self.path / MANIFEST)["writer"] != self._plan.key:
                raise UserError(
                    f"{self.path}: is a finished store of another configuration; "
                    "choose another name or delete it"
                )

    def _keep_whole_shards(self) -> tuple[int, int, bool]:
        """Shards of this part to keep, rows in them, and whether that is all of the part."""
        shards = rows = 0
        complete = -1
        with contextlib.suppress(FileNotFoundError, IntegrityError):
            record = read_sealed(part_path(self.path, self._part))
            complete = record["shards"] if record["writer"] == self._plan.key else -1
        while (path := shard_path(self.path, self._part, shards)).exists():
            sidecar = self._verified(path)
            is_last = shards + 1 == complete
            if sidecar is None or (sidecar.rows < self._plan.shard_rows and not is_last):
                break
            shards, rows = shards + 1, rows + sidecar.rows
        return shards, rows, shards == complete

    def _verified(self, path: Path) -> Sidecar | None:
        """The sidecar of an earlier shard, made anew from it; None, and both away, if it is bad."""
        schema, key = self._plan.schema, self._plan.key
        try:
            if not path.with_suffix(".json").exists():  # killed between the two
                sidecar = describe(path, schema, key)
                write_whole(path.with_suffix(".json"), sidecar.to_bytes())
                return sidecar
            sidecar = Sidecar.read(path)
            if (digest_of(path, sidecar.digest), sidecar.writer) == (sidecar.digest, key):
                return sidecar
        except (UserError, IntegrityError):
            pass
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
        return None
