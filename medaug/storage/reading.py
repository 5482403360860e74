"""Files that somebody else may have put there: read as what they should be, or called damaged."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from medaug.errors import IntegrityError
from medaug.storage.faults import storage_fault

MOST_JSON_BYTES = 1 << 30
"""No record, manifest or result has more: what has is not read into memory."""
_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_NO_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG}


def read_regular(path: Path, most_bytes: int | None = None) -> bytes | None:
    """The content of a file, None where there is none.

    Nothing is waited for: a pipe or a device in the file's place is damage like any other.

    Raises:
        IntegrityError: it is no regular file, or has more than ``most_bytes``.
        EnvironmentFault: the storage does not let it be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as fault:
        if fault.errno in _ABSENT and not path.is_symlink():
            return None
        if fault.errno in _NO_FILE or path.is_symlink():
            raise IntegrityError(f"{path}: is no file ({fault.strerror})") from None
        raise storage_fault(fault, path) from fault
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise IntegrityError(f"{path}: is no file but {_kind(found.st_mode)}")
    with open(descriptor, "rb") as file:
        if most_bytes is not None and found.st_size > most_bytes:
            raise IntegrityError(f"{path}: has {found.st_size} bytes, more than any such file")
        try:
            return file.read()
        except OSError as fault:
            raise storage_fault(fault, path) from fault


def read_first_line(path: Path) -> bytes:
    """Of a file, of which nothing else is read; raises as :func:`read_regular`."""
    try:
        found = path.stat().st_mode
    except OSError as fault:
        raise IntegrityError(f"{path}: is no file ({fault.strerror})") from None
    if not stat.S_ISREG(found):
        raise IntegrityError(f"{path}: is no file but {_kind(found)}")
    with path.open("rb") as file:
        return file.readline(MOST_JSON_BYTES)


def parse_object(content: bytes, name: str) -> dict[str, Any]:
    """The JSON object in ``content``; ``name`` is for the message.

    Raises:
        IntegrityError: it is none.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise IntegrityError(f"{name}: is not whole") from None
    if not isinstance(value, dict):
        raise IntegrityError(f"{name}: is not what was written (a {type(value).__name__})")
    return value


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
