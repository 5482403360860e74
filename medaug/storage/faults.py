"""What a storage that fails is called: one line with the path, the reason and the next step."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from medaug.errors import EnvironmentFault, MedaugError

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def storage_fault(fault: OSError, path: Path, need_bytes: int = 0) -> EnvironmentFault:
    """``fault`` as the error of who was writing ``need_bytes`` to ``path`` (or reading there)."""
    if fault.errno not in DISK_FULL:
        reason = fault.strerror or str(fault)
        return EnvironmentFault(f"{path}: {reason}; check the storage and resume")
    have_bytes = free_bytes(path)
    return EnvironmentFault(
        f"need {megabytes(need_bytes)} MB, have {megabytes(have_bytes)} MB at {path}; "
        "free some space (or raise the quota) and resume"
    )


@contextlib.contextmanager
def storage_faults(path: Path, need_bytes: int = 0) -> Iterator[None]:
    """Turn an OSError of the block into :func:`storage_fault`."""
    try:
        yield
    except MedaugError:  # has said where already
        raise
    except OSError as fault:
        raise storage_fault(fault, path, need_bytes) from fault


def free_bytes(path: Path) -> int:
    """That anybody may fill at ``path``, or above it as long as it is not made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def megabytes(n_bytes: int) -> str:
    """``12``; of less than half of one ``0.4``."""
    n_mb = n_bytes / 1e6
    return f"{n_mb:.1f}" if 0 < n_mb < 0.5 else f"{n_mb:.0f}"
