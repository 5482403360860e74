"""One process of a node at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def one_at_a_time(lock: Path) -> Iterator[IO[str]]:
    """Wait until no other process of this node holds ``lock``; yields the open file.

    The kernel frees it when its holder ends, however it ends.
    """
    with open(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
