"""Files that are whole or absent: written aside, synced, then named."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medaug.errors import EnvironmentFault, IntegrityError, MedaugError

ABANDONED_AFTER_S = 3600.0

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What file systems without hard links answer; there two writers may race for an instant."""


def private_folder(path: Path) -> None:
    """Make ``path`` and its parents; only the owner may read what is new."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)


def temporary_name(final: Path) -> Path:
    """A name beside ``final`` that says which process on which host is writing it."""
    owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return final.with_name(f".{final.name}.tmp-{owner}")


def remove_abandoned(folder: Path) -> None:
    """Remove temporaries of processes that are gone; a live writer's stay.

    A process on another host cannot be asked: its files count as abandoned after an hour without
    a write.
    """
    for path in folder.glob(".*.tmp-*"):
        owner = re.search(r"\.tmp-(.+)-(\d+)-[0-9a-f]{8}$", path.name)
        if owner is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            if owner[1] == socket.gethostname():
                abandoned = not _alive(int(owner[2]))
            else:
                abandoned = time.time() - path.stat().st_mtime > ABANDONED_AFTER_S
            if abandoned and path.is_dir():
                shutil.rmtree(path)
            elif abandoned:
                path.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sync_folder(path: Path) -> None:
    """Make the names in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Give ``path`` exactly ``content`` (mode 0600), durably; readers see all of it or none."""
    temporary = temporary_name(path)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def give_name(temporary: Path, final: Path) -> bool:
    """Name a complete, synced file ``final`` unless that exists; False when it did.

    The first to come wins, and its file is never replaced: of two processes that make the same
    shard, both go on with the first one's.
    """
    try:
        os.link(temporary, final)
        temporary.unlink()
    except FileExistsError:
        return False
    except OSError as fault:
        if fault.errno not in _NO_LINKS:
            raise
        if final.exists():
            return False
        os.rename(temporary, final)
    sync_folder(final.parent)
    return True


def sealed(body: Mapping[str, Any]) -> bytes:
    """Canonical JSON of ``body`` with the SHA-256 of itself under ``self``."""
    digest = hashlib.sha256(_canonical(body)).hexdigest()
    return _canonical({**body, "self": digest})


def read_sealed(path: Path) -> dict[str, Any]:
    """What :func:`sealed` wrote to ``path``. Raises IntegrityError when one byte differs."""
    return parse_sealed(path.read_bytes(), str(path))


def parse_sealed(content: bytes, name: str) -> dict[str, Any]:
    """What :func:`sealed` made; ``name`` is for the message."""
    try:
        body: dict[str, Any] = json.loads(content)
        del body["self"]
        intact = content == sealed(body)
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise IntegrityError(f"{name}: does not have the content that was written")
    return body


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def storage_faults(path: Path, need_bytes: int = 0) -> Iterator[None]:
    """Turn an OSError into an EnvironmentFault that says where, and how much room is needed."""
    try:
        yield
    except MedaugError:  # has said where already
        raise
    except OSError as fault:
        if fault.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            reason = fault.strerror or str(fault)
            raise EnvironmentFault(f"{path}: {reason}; check the storage") from fault
        have_mb = shutil.disk_usage(path).free / 1e6
        raise EnvironmentFault(
            f"need {need_bytes / 1e6:.0f} MB, have {have_mb:.0f} MB at {path}; "
            "free some space (or raise the quota) and resume"
        ) from fault
