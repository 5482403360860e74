"""One process of a node at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock


@contextlib.contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Wait until no other process or thread of this node holds ``lock``.

    The kernel frees it when its holder ends, however it ends. The file stays: a lock that is
    removed is another one for whoever comes next.
    """
    with FileLock(lock, mode=0o600):
        yield
