"""Reading and writing past the page cache (O_DIRECT), where the file system can.

The copy through the page cache takes a fifth to a third of a second of CPU a GB, and what does not
fit into memory is thrown out of it before it is wanted again.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np

BLOCK_BYTES = 4096
"""Direct reads and writes begin and end at multiples of this, in the file and in memory: a
multiple of what disks ask for (512, or 4096)."""

_DIRECT = getattr(os, "O_DIRECT", 0)


def aligned_bytes(rows: int, row_bytes: int) -> np.ndarray:
    """Uninitialised bytes (rows, row_bytes) that begin at a multiple of BLOCK_BYTES.

    From NumPy, which asks for huge pages (torch does not); aligned, because copying to an address
    that is no multiple of 64 took up to four times as long.
    """
    memory = np.empty(rows * row_bytes + BLOCK_BYTES, np.uint8)
    first = -memory.ctypes.data % BLOCK_BYTES
    return memory[first : first + rows * row_bytes].reshape(rows, row_bytes)


def open_direct(path: Path, flags: int) -> int:
    """A descriptor past the page cache; -1 where the file system (or this system) has none."""
    try:
        return os.open(path, flags | _DIRECT | os.O_CLOEXEC) if _DIRECT else -1
    except OSError:
        return -1


def scratch_bytes(n: int) -> int:
    """Bytes of the blocks around ``n`` bytes, wherever these begin."""
    return -(-(n + BLOCK_BYTES - 1) // BLOCK_BYTES) * BLOCK_BYTES


def read_direct(descriptor: int, at: int, into: np.ndarray, scratch: np.ndarray) -> bool:
    """Read the bytes from offset ``at`` into ``into`` by way of ``scratch``, aligned uint8.

    False, and nothing read, if the file ends before or the disk wants another alignment.
    """
    skip = at % BLOCK_BYTES
    wanted = skip + into.size
    blocks = scratch[: -(-wanted // BLOCK_BYTES) * BLOCK_BYTES].data
    done = 0
    while done < wanted:
        try:
            got = os.preadv(descriptor, [blocks[done:]], at - skip + done)
        except OSError as fault:
            if fault.errno != errno.EINVAL:
                raise
            return False
        if not got:
            return False
        done += got
    into[:] = scratch[skip:wanted]
    return True


def write_direct(descriptor: int, content: memoryview, at: int) -> bool:
    """Write whole blocks at offset ``at``; False if the disk wants another alignment."""
    done = 0
    while done < len(content):
        try:
            done += os.pwrite(descriptor, content[done:], at + done)
        except OSError as fault:
            if fault.errno != errno.EINVAL:
                raise
            return False
    return True
