"""The storage folder as this machine sees it."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from medaug.doctor.finding import Finding, Place, failed, passed, warned
from medaug.doctor.limits import free_disk
from medaug.errors import EnvironmentFault
from medaug.storage import bucket
from medaug.storage.bucket import is_remote
from medaug.storage.uri import display_uri
from medaug.sweep.runner import check_storage


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
        if is_remote(storage):
            yield _bucket(storage)
        else:
            yield _private(storage)
            yield _links(storage)
        disk = os.statvfs(storage)
        yield free_disk("disk", f"at {storage}", disk.f_bavail * disk.f_frsize)
    finally:
        if made:
            storage.rmdir()


def _private(storage: Path) -> Finding:
    mode = stat.S_IMODE(storage.stat().st_mode)
    if mode & 0o007:
        what = f"{storage} can be written here, but everybody may look into it ({mode:04o})"
        return warned("storage", what, f"chmod o-rwx {storage}")
    return passed("storage", f"{storage} can be written")


def _bucket(storage: Path) -> Finding:
    """A run's lease is made with a write that succeeds only once: of two that try, one gets it."""
    probe = storage / f".doctor-{uuid.uuid4().hex}"
    try:
        first, second = bucket.create(probe, b"first"), bucket.create(probe, b"second")
        content = bucket.read(probe)
        bucket.remove(probe)
    except EnvironmentFault as fault:
        what, _, fix = str(fault).partition("; ")
        return failed("storage", what, fix)
    if (first, second, content) != (True, False, b"first"):
        what = f"{display_uri(storage)}: a conditional write replaced another: two could write"
        return failed("storage", what, "use a store that knows If-None-Match (S3, MinIO, Ceph)")
    return passed("storage", f"{display_uri(storage)} can be written, and keeps two writers apart")


def _links(storage: Path) -> Finding:
    """A run's lease is made with ``link``: of two that try, one gets it."""
    check, first = "storage locks", storage / f".doctor-{uuid.uuid4().hex}"
    second = first.with_suffix(".link")
    try:
        first.touch(mode=0o600)
        os.link(first, second)
        try:
            os.link(first, second)
        except FileExistsError:
            return passed(check, "hard links keep two writers apart")
        return failed(check, "a link replaced another: two runs could write at once", _OTHER)
    except OSError as fault:
        return failed(check, f"no hard links ({fault.strerror}), which keep two runs apart", _OTHER)
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)


_OTHER = "use a POSIX file system (NFS, Lustre, CephFS, a local disk), not an object store's mount"
