"""Temporary folders that do not outlive their process for long, however it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

IN_USE = ".in-use"
"""A file in it that its process holds a lock on; the kernel frees it when the process is gone."""


@contextlib.contextmanager
def temporary_folder(prefix: str, parent: Path | str | None = None) -> Iterator[Path]:
    """A new folder in ``parent`` (None: the system's temporary folder), mode 0700, for this user.

    It is removed at the end. Those of the same ``prefix`` that this user's dead processes have left
    in ``parent`` are removed first.
    """
    where = Path(parent or tempfile.gettempdir())
    remove_dead(prefix, where)
    # Under its own name only when it is held: what is not held counts as left behind.
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=where))
    folder = where / (prefix + new.name.removeprefix(".new-"))
    lock = FileLock(new / IN_USE, mode=0o600, thread_local=False)
    try:
        with contextlib.suppress(NotImplementedError):  # no locks there: then nobody removes it
            lock.acquire()
        os.rename(new, folder)
        yield folder
    finally:
        for path in (new, folder):
            shutil.rmtree(path, ignore_errors=True)
        lock.release(force=True)


def remove_dead(prefix: str, parent: Path) -> None:
    """Remove from ``parent`` this user's :func:`temporary_folder` s that nobody holds any more."""
    for folder in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError, Timeout, NotImplementedError):
            if _is_ours(folder, stat.S_ISDIR) and _is_ours(folder / IN_USE, stat.S_ISREG):
                with FileLock(folder / IN_USE, timeout=0, mode=0o600):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_ours(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether it is of that kind, no link, and made by this user."""
    found = path.lstat()
    return is_kind(found.st_mode) and found.st_uid == os.geteuid()
