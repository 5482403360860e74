"""Folders that appear whole or not at all, under a name that says what is in them."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from medaug.storage.files import private_folder, remove_abandoned, sync_folder, temporary_name

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


def publish_directory(temporary: Path, final: Path) -> bool:
    """Give the complete folder ``temporary`` the name ``final``, durably.

    The name says what is inside, so of two processes that publish the same the second's is
    superfluous: then ``temporary`` is removed and False returned. Modes become 0700 and 0600.
    """
    for path in sorted(temporary.rglob("*"), reverse=True):
        path.chmod(0o700 if path.is_dir() else 0o600)
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    temporary.chmod(0o700)
    sync_folder(temporary)
    try:
        os.rename(temporary, final)
    except OSError as fault:
        if fault.errno not in _TAKEN:
            raise
        shutil.rmtree(temporary)
        return False
    sync_folder(final.parent)
    return True


@contextlib.contextmanager
def assembled(final: Path) -> Iterator[Path]:
    """A private folder to fill; leaving the block publishes it as ``final``.

    Left by an exception, nothing remains. What earlier, killed processes left behind is removed.
    """
    private_folder(final.parent)
    remove_abandoned(final.parent)
    temporary = temporary_name(final)
    temporary.mkdir(mode=0o700)
    try:
        yield temporary
        publish_directory(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
