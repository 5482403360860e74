"""Can this storage be written, and does it keep two writers apart?"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from medaug.errors import EnvironmentFault
from medaug.storage import storage_at
from medaug.storage.faults import free_bytes, megabytes
from medaug.storage.files import private_folder, write_new

PROBE_BYTES = 4096


def write_probe(folder: Path) -> None:
    """Write a small file to ``folder``, durably, and remove it. Raises OSError."""
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        write_new(probe, bytes(PROBE_BYTES), durable=True)
    finally:
        probe.unlink(missing_ok=True)


def check_storage(path: Path, need_bytes: int = 0) -> None:
    """Make sure that ``path`` can be written and has room for ``need_bytes``.

    Raises:
        EnvironmentFault: it cannot or has not, with both numbers.
    """
    try:
        private_folder(path)
        write_probe(path)
        have_bytes = free_bytes(path)
    except OSError as fault:
        raise EnvironmentFault(
            f"storage {path}: {fault.strerror}; make it writable or choose another storage"
        ) from None
    if have_bytes < need_bytes:
        raise EnvironmentFault(
            f"storage {path}: need {megabytes(need_bytes)} MB, have {megabytes(have_bytes)} MB; "
            "free some space or choose another storage"
        )


def keeps_writers_apart(folder: Path) -> bool:
    """Whether of two that create one file the second one is refused, as a run's lease needs it.

    Raises:
        EnvironmentFault, or OSError: the storage cannot do it at all.
    """
    storage, probe = storage_at(folder), folder / f".probe-{uuid.uuid4().hex}"
    names = [os.urandom(8).hex().encode() for _ in range(2)]
    try:
        made = [storage.create(probe, name) for name in names]
        return made == [True, False] and storage.read(probe) == names[0]
    finally:
        storage.remove(probe)
