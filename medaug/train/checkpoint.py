"""The ledger: a trial's own record of where it was, which survives anything.

A checkpoint is a directory ``ep_000007/{weights.safetensors, state.pt, MANIFEST.json}``. It is
written under a temporary name, synced, and renamed when complete; the manifest holds the size and
SHA-256 of each file and of itself. What does not match is never loaded, and nothing is unpickled
(``torch.load(weights_only=True)``, after the hash check). In the copy of a bucket, a checkpoint is
committed when the bucket has its manifest, which is sent last.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
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

from medaug.errors import EnvironmentFault, IntegrityError, UserError
from medaug.storage import bucket
from medaug.storage.locks import one_at_a_time
from medaug.storage.trial_folder import MANIFEST

log = logging.getLogger(__name__)

SCHEMA = 1
WEIGHTS = "weights.safetensors"
STATE = "state.pt"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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
                if fault.errno not in _DISK_FULL:
                    raise
                self.prune(keep=1)
                self._write(files, final, before_rename)
        except OSError as fault:
            self._clean()
            raise _storage_fault(fault, self.directory, sum(map(len, files.values()))) from fault
        bucket.send_folder(final, MANIFEST)
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

    def _newest_first(self) -> Iterator[Path]:
        """Committed checkpoints; of a bucket's, each is fetched when it is asked for."""
        if not bucket.is_remote(self.directory):
            yield from reversed(self._committed())
            return
        names = {each.name for each in bucket.listing(self.directory)}
        whole = [name for name in names if re.fullmatch(rf"ep_\d{{6,}}/{MANIFEST}", name)]
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with one_at_a_time(self.directory / ".ledger.lock"):
            for path in self._committed():
                if f"{path.name}/{MANIFEST}" not in whole:
                    self._remove(path)  # not what other nodes see
        for name in sorted(whole, key=lambda name: int(Path(name).parent.name[3:]), reverse=True):
            if self._fetch((self.directory / name).parent):
                yield (self.directory / name).parent

    def _fetch(self, path: Path) -> bool:
        """Have this checkpoint of the bucket's here; ranks of a node do it one after the other."""
        with one_at_a_time(self.directory / ".ledger.lock"):
            manifest = path / MANIFEST
            if path.exists() and not (
                manifest.exists() and manifest.read_bytes() == bucket.read(manifest)
            ):
                self._remove(path)  # half a copy, or that of another try
            return bucket.fetch_folder(path, MANIFEST)

    def _committed(self) -> list[Path]:
        """Checkpoint directories, oldest epoch first."""
        if not self.directory.is_dir():
            return []
        found = [p for p in self.directory.iterdir() if re.fullmatch(r"ep_\d{6,}", p.name)]
        return sorted(found, key=lambda path: int(path.name[3:]))

    def _write(
        self,
        files: Mapping[str, bytes | memoryview],
        final: Path,
        before_rename: Callable[[], None],
    ) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clean()
        temporary = self.directory / f".tmp_{final.name}_{uuid.uuid4().hex[:8]}"
        temporary.mkdir(mode=0o700)
        for name, content in files.items():  # the manifest is the last
            with open(temporary / name, "xb", opener=_private) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync_directory(temporary)
        before_rename()
        if final.exists():  # the same epoch again, after a step back
            final.rename(self.directory / f".tmp_old_{uuid.uuid4().hex[:8]}")
        temporary.rename(final)
        _sync_directory(self.directory)

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
        if bucket.is_remote(self.directory):
            kept = {path.name for path in self._committed()}
            for name in bucket.folders(self.directory):
                if name not in kept:
                    bucket.remove_folder(self.directory / name, first=MANIFEST)

    def _remove(self, path: Path) -> None:
        # Renamed first: a half-deleted directory must not have a checkpoint's name.
        doomed = path.with_name(f".tmp_{path.name}_{uuid.uuid4().hex[:8]}")
        with contextlib.suppress(FileNotFoundError):  # another rank was first
            path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    return _sealed(body)


def _sealed(body: Mapping[str, Any]) -> bytes:
    """Canonical JSON of ``body`` with its own SHA-256 as the key ``self``."""
    text = json.dumps(body, sort_keys=True).encode()
    return json.dumps({**body, "self": hashlib.sha256(text).hexdigest()}, sort_keys=True).encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as fault:
        raise IntegrityError(f"{path}: missing") from fault
    except OSError as fault:
        raise EnvironmentFault(f"{path}: {fault.strerror}; check the storage") from fault


def _read_manifest(path: Path) -> dict[str, Any]:
    content = _read(path)
    try:
        body = json.loads(content)
        claimed = body.pop("self", None)
    except (ValueError, AttributeError) as fault:
        raise IntegrityError(f"{path}: not a manifest") from fault
    if claimed is None or content != _sealed(body):
        raise IntegrityError(f"{path}: does not have the content that was written")
    return body


def _load(path: Path, fingerprint: str) -> Checkpoint:
    import safetensors.torch

    manifest = _read_manifest(path / MANIFEST)
    if manifest["schema"] != SCHEMA:
        raise UserError(
            f"{path}: checkpoint schema {manifest['schema']}, this medaug reads {SCHEMA}; "
            "resume with the version that wrote it, or start the trial anew"
        )
    content = {}
    for name, promised in manifest["files"].items():
        content[name] = data = _read(path / name)
        if len(data) != promised["bytes"]:
            raise IntegrityError(f"{path / name}: {len(data)} of {promised['bytes']} bytes")
        if hashlib.sha256(data).hexdigest() != promised["sha256"]:
            raise IntegrityError(f"{path / name}: SHA-256 differs from the manifest's")
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


def _storage_fault(fault: OSError, directory: Path, need_bytes: int) -> EnvironmentFault:
    if fault.errno not in _DISK_FULL:
        return EnvironmentFault(f"{directory}: {fault.strerror}; check the storage and resume")
    free_bytes = shutil.disk_usage(directory).free if directory.exists() else 0
    return EnvironmentFault(
        f"need {need_bytes / 1e6:.1f} MB, have {free_bytes / 1e6:.1f} MB at {directory}; "
        "free some space (or raise the quota) and resume"
    )
