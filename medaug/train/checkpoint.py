"""The ledger: a trial's own record of where it was, which survives anything.

A checkpoint is a directory ``ep_000007/{weights.safetensors, state.pt, MANIFEST.json}``. It is
written under a temporary name, synced, and renamed when complete; the manifest holds the size and
SHA-256 of each file and of itself. What does not match is never loaded, and nothing is unpickled
(``torch.load(weights_only=True)``, after the hash check). In the copy of a bucket, a checkpoint is
committed when the bucket has its manifest, which is sent last.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from medaug.errors import IntegrityError, UserError
from medaug.storage import storage_at
from medaug.storage.faults import DISK_FULL, storage_fault
from medaug.storage.files import private_folder, sync_folder, write_new
from medaug.storage.locks import one_at_a_time
from medaug.storage.manifest import MANIFEST, check_file, file_entry, read_manifest, sealed

log = logging.getLogger(__name__)

SCHEMA = 1
WEIGHTS = "weights.safetensors"
STATE = "state.pt"
_CHECKPOINT = re.compile(r"ep_\d{6,}")


@dataclass
class Checkpoint:
    """All that a training loop needs to go on as if it had never stopped.

    ``epoch`` and ``step`` count what is *finished*: a checkpoint with ``epoch == 7`` resumes with
    the eighth epoch. ``tensors`` are named ``"module.parameter"``; ``state`` holds plain values
    and tensors only (optimiser state, history).
    """

    epoch: int
    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any] = field(default_factory=dict)


@dataclass
class Progress:
    """What a training loop yields after each epoch; equal on every rank.

    ``epoch`` counts finished epochs. All ``metrics`` are finite. ``checkpoint`` may lie on the
    device and is shared with the loop: read or commit it, do not change it. ``result`` is set on
    the last one. ``save`` says that the checkpoint is to be made durable however young the last
    one is: what follows takes long and is no epoch. ``keep`` says of a trial's last one whether
    anybody will open its checkpoint once the result is there.
    """

    epoch: int
    metrics: dict[str, float]
    checkpoint: Checkpoint | None = None
    result: Any | None = None
    save: bool = False
    keep: bool = True


class Ledger:
    """The checkpoints of one trial in ``directory``. One process writes; any may read."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)

    def commit(
        self,
        checkpoint: Checkpoint,
        *,
        fingerprint: str,
        keep_last: int = 2,
        before_rename: Callable[[], None] = lambda: None,
    ) -> Path:
        """Write ``checkpoint`` durably, then delete all but the newest ``keep_last``.

        ``fingerprint`` names the configuration and data it belongs to. On a full disk, older
        checkpoints give way once. Raises EnvironmentFault when storage cannot take it, and what
        ``before_rename`` raises; what was committed before stays valid.
        """
        assert keep_last >= 1
        files: dict[str, bytes | memoryview] = {
            WEIGHTS: _weights_bytes(checkpoint),
            STATE: _state_bytes(checkpoint),
        }
        files[MANIFEST] = _manifest_bytes(checkpoint, files, fingerprint)
        final = self.directory / f"ep_{checkpoint.epoch:06d}"
        try:
            try:
                self._write(files, final, before_rename)
            except OSError as fault:
                if fault.errno not in DISK_FULL:
                    raise
                self.prune(keep=1)
                self._write(files, final, before_rename)
        except OSError as fault:
            self._clean()
            raise storage_fault(fault, self.directory, sum(map(len, files.values()))) from fault
        storage_at(final).publish(final, MANIFEST)
        self.prune(keep=keep_last)
        return final

    def epoch(self) -> int:
        """Of the newest checkpoint here, whether it verifies or not; 0 without any."""
        committed = self._committed()
        return int(committed[-1].name[3:]) if committed else 0

    def latest(self, fingerprint: str) -> Checkpoint | None:
        """The newest checkpoint that verifies, or None. Damaged ones are set aside and logged.

        Raises UserError when it belongs to another configuration or data (naming both), or was
        written by a version of medaug with another schema.
        """
        for path in self._newest_first():
            try:
                return _load(path, fingerprint)
            except IntegrityError as fault:
                aside = path.with_name(f".bad_{path.name}_{uuid.uuid4().hex[:8]}")
                with contextlib.suppress(FileNotFoundError):  # another rank was first
                    path.rename(aside)
                log.warning("%s; set aside as %s, going back one checkpoint", fault, aside.name)
        return None

    def finished(self, fingerprint: str) -> Checkpoint | None:
        """The newest checkpoint, the one that a finished trial's result is of; None without any.

        Raises:
            IntegrityError: it is damaged; an older one would be another model.
        """
        for path in self._newest_first():
            try:
                return _load(path, fingerprint)
            except IntegrityError as damage:
                remedy = f"delete {self.directory} and resume the run, which runs the trial again"
                raise IntegrityError(f"{damage}; {remedy}") from None
        return None

    def _newest_first(self) -> Iterator[Path]:
        """Committed checkpoints, each brought here when it is asked for."""
        storage = storage_at(self.directory)
        if storage.nodes_see_files:
            yield from reversed(self._committed())
            return
        whole = storage.whole_folders(self.directory, MANIFEST)
        private_folder(self.directory)
        with one_at_a_time(self.directory / ".ledger.lock"):
            for path in self._committed():
                if path.name not in whole:
                    self._remove(path)  # not what other nodes see
        names = filter(_CHECKPOINT.fullmatch, whole)
        for name in sorted(names, key=lambda name: int(name[3:]), reverse=True):
            if self._fetch(self.directory / name):
                yield self.directory / name

    def _fetch(self, path: Path) -> bool:
        """Have this checkpoint here; ranks of a node do it one after the other."""
        storage, manifest = storage_at(path), path / MANIFEST
        with one_at_a_time(self.directory / ".ledger.lock"):
            if path.exists() and not (
                manifest.exists() and manifest.read_bytes() == storage.read(manifest)
            ):
                self._remove(path)  # half a copy, or that of another try
            return storage.fetch(path, MANIFEST)

    def _committed(self) -> list[Path]:
        """Checkpoint directories, oldest epoch first."""
        if not self.directory.is_dir():
            return []
        found = [p for p in self.directory.iterdir() if _CHECKPOINT.fullmatch(p.name)]
        return sorted(found, key=lambda path: int(path.name[3:]))

    def _write(
        self,
        files: Mapping[str, bytes | memoryview],
        final: Path,
        before_rename: Callable[[], None],
    ) -> None:
        private_folder(self.directory)
        self._clean()
        temporary = self.directory / f".tmp_{final.name}_{uuid.uuid4().hex[:8]}"
        temporary.mkdir(mode=0o700)
        for name, content in files.items():  # the manifest is the last
            write_new(temporary / name, content, durable=True)
        sync_folder(temporary)
        before_rename()
        if final.exists():  # the same epoch again, after a step back
            final.rename(self.directory / f".tmp_old_{uuid.uuid4().hex[:8]}")
        temporary.rename(final)
        sync_folder(self.directory)

    def _clean(self) -> None:
        """Remove what an earlier, killed commit left behind."""
        for path in self.directory.glob(".tmp_*"):
            shutil.rmtree(path, ignore_errors=True)

    def prune(self, keep: int) -> None:
        """Delete all but the newest ``keep`` checkpoints."""
        self._clean()
        committed = self._committed()
        for path in committed[: max(0, len(committed) - keep)]:
            self._remove(path)
        storage = storage_at(self.directory)
        if not storage.nodes_see_files:
            kept = {path.name for path in self._committed()}
            for name in storage.folders(self.directory):
                if name not in kept:
                    storage.remove_folder(self.directory / name, first=MANIFEST)

    def _remove(self, path: Path) -> None:
        # Renamed first: a half-deleted directory must not have a checkpoint's name.
        doomed = path.with_name(f".tmp_{path.name}_{uuid.uuid4().hex[:8]}")
        with contextlib.suppress(FileNotFoundError):  # another rank was first
            path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _weights_bytes(checkpoint: Checkpoint) -> bytes:
    import safetensors.torch

    # Clones: safetensors refuses tensors that share memory.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in checkpoint.tensors.items()
    }
    return safetensors.torch.save(tensors)


def _state_bytes(checkpoint: Checkpoint) -> memoryview:
    # To memory, not to the file: on a full disk torch.save raises RuntimeError, not OSError.
    buffer = io.BytesIO()
    torch.save(checkpoint.state, buffer)
    return buffer.getbuffer()


def _manifest_bytes(
    checkpoint: Checkpoint, files: Mapping[str, bytes | memoryview], fingerprint: str
) -> bytes:
    body = {
        "schema": SCHEMA,
        "fingerprint": fingerprint,
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "files": {name: file_entry(content) for name, content in files.items()},
    }
    return sealed(body)


def _load(path: Path, fingerprint: str) -> Checkpoint:
    import safetensors.torch

    manifest = read_manifest(path)
    if manifest.get("schema") != SCHEMA:
        raise UserError(
            f"{path}: checkpoint schema {manifest.get('schema')}, this medaug reads {SCHEMA}; "
            "resume with the version that wrote it, or start the trial anew"
        )
    content = {name: check_file(path / name, about) for name, about in manifest["files"].items()}
    if manifest["fingerprint"] != fingerprint:
        raise UserError(
            f"{path}: belongs to {manifest['fingerprint']}, but this run is {fingerprint}; "
            "use the configuration and data it was made with, or another name"
        )
    try:
        state = torch.load(io.BytesIO(content[STATE]), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as fault:
        raise IntegrityError(f"{path / STATE}: holds more than tensors and plain values") from fault
    tensors = safetensors.torch.load(content[WEIGHTS])
    return Checkpoint(manifest["epoch"], manifest["step"], tensors, state)
