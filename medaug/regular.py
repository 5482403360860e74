"""Files that somebody names: opened without waiting for what is none."""

from __future__ import annotations

import errno
import os
import select
import stat
from io import BufferedReader
from pathlib import Path

WRITER_WITHIN_S = 10.0
"""A pipe that is read has somebody who writes by then: ``medaug plan <(…)`` of a shell."""


def open_regular(path: Path, *, pipes: bool = False) -> BufferedReader:
    """Open a file for reading; ``pipes``: one that somebody is writing to will do.

    Raises:
        OSError: it cannot be read; also where it is a folder, a device, or a pipe that nobody
            writes to.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if pipes and stat.S_ISFIFO(mode):
            if not select.select([descriptor], [], [], WRITER_WITHIN_S)[0]:
                raise OSError(errno.ETIMEDOUT, "is a pipe that nobody writes to", str(path))
            os.set_blocking(descriptor, True)
        elif not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is no file", str(path))
        return open(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise
