"""Files that are whole or absent: written aside, synced, then named."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from medaug.errors import IntegrityError

ABANDONED_AFTER_S = 3600.0

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What file systems without hard links answer; there two writers may race for an instant."""


def private_folder(path: Path) -> None:
    """Make ``path`` and its parents; only the owner may read what is new, whatever the umask.

    (``mkdir(parents=True)`` gives its mode to the last folder only.)
    """
    if not path.is_dir():
        if not path.parent.exists():
            private_folder(path.parent)
        path.mkdir(exist_ok=True, mode=0o700)


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


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Give ``path`` exactly ``content`` (mode 0600); readers see all of it or none.

    ``durable``: also after a power cut. It takes two syncs of the disk, some 10 ms.
    """
    temporary = temporary_name(path)
    try:
        write_new(temporary, content, durable=durable)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def create_whole(path: Path, content: bytes) -> bool:
    """Give ``path`` exactly ``content`` unless it exists; whether it did not.

    Of several that try, one succeeds. Raises OSError where the file system has no hard links.
    """
    temporary = temporary_name(path)
    try:
        write_new(temporary, content, durable=True)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def write_new(path: Path, content: bytes | memoryview, *, durable: bool) -> None:
    """Write a file (mode 0600) that does not exist yet."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def write_pieces(path: Path, pieces: Iterable[bytes], *, written_s: float | None = None) -> None:
    """Give ``path`` the content of ``pieces``, which come one by one; readers see all or none.

    ``written_s``: when it was written first, in seconds since 1970. It is not synced: what comes
    from elsewhere can come again.
    """
    arriving = temporary_name(path)
    try:
        with open(os.open(arriving, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for piece in pieces:
                file.write(piece)
        if written_s is not None:
            os.utime(arriving, (written_s, written_s))
        os.replace(arriving, path)
    finally:
        arriving.unlink(missing_ok=True)


def append_line(path: Path, line: bytes, *, durable: bool = False) -> None:
    """Append ``line`` to ``path`` (mode 0600), on a line of its own: a writer that was killed in
    the middle of one has left it without an end."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        torn = end > 0 and file.read(1) != b"\n"
        file.seek(end)
        file.write((b"\n" if torn else b"") + line + b"\n")
        if durable:
            file.flush()
            os.fsync(file.fileno())


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


def sha256_of(path: Path) -> str:
    """SHA-256 of a regular file, hex; raises as :func:`file_digest`."""
    return file_digest(path, hashlib.sha256)


def file_digest(path: Path, algorithm: Callable[[], Any]) -> str:
    """Hex digest of a regular file by ``algorithm``, a constructor such as ``hashlib.sha256``.

    Raises:
        IntegrityError: something else is in its place; it is not opened.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IntegrityError(f"{path}: is no file")
    with open(descriptor, "rb") as file:
        return str(hashlib.file_digest(file, algorithm).hexdigest())
