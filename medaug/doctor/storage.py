"""The storage folder as this machine sees it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from medaug.doctor.finding import Finding, Place, failed, passed, warned
from medaug.doctor.limits import free_disk
from medaug.errors import EnvironmentFault
from medaug.storage import storage_at
from medaug.storage.probe import check_storage, keeps_writers_apart
from medaug.storage.uri import display_uri


def examine(place: Place) -> Iterator[Finding]:
    storage = place.storage.absolute()
    made = not storage.exists()
    try:
        check_storage(storage)
    except EnvironmentFault as fault:
        what, _, fix = str(fault).partition("; ")
        yield failed("storage", what, fix)
        return
    try:
        yield _apart(storage)
        if not storage_at(storage).private(storage):
            mode = stat.S_IMODE(storage.stat().st_mode)
            what = f"{storage}: everybody on this machine may look into it ({mode:04o})"
            yield warned("storage", what, f"chmod o-rwx {storage}")
        disk = os.statvfs(storage)
        yield free_disk("disk", f"at {storage}", disk.f_bavail * disk.f_frsize)
    finally:
        if made:
            storage.rmdir()


def _apart(storage: Path) -> Finding:
    """A run's lease is a file that is created once: of two that try, one gets it."""
    called = display_uri(storage)
    try:
        apart = keeps_writers_apart(storage)
    except EnvironmentFault as fault:
        what, _, fix = str(fault).partition("; ")
        return failed(_LOCKS, what, fix)
    except OSError as fault:
        return failed(_LOCKS, f"{called} cannot keep two runs apart ({fault.strerror})", _OTHER)
    if not apart:
        what = f"{called}: a conditional write replaced another: two runs could write at once"
        return failed(_LOCKS, what, _OTHER)
    return passed(_LOCKS, f"{called} can be written, and keeps two writers apart")


_LOCKS = "storage locks"
_OTHER = (
    "use a POSIX file system with hard links (NFS, Lustre, CephFS, a local disk), or a store that "
    "knows If-None-Match (S3, MinIO, Ceph)"
)
