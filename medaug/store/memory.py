"""How much memory a process may still take: the machine's and its control group's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def free_ram_bytes() -> int:
    """Bytes that can be taken without swapping or being killed."""
    return min([_available_bytes(), *_group_room_bytes()])


def _available_bytes() -> int:
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_room_bytes() -> list[int]:
    """Room under each limit of this process's memory control groups.

    Page cache counts as used in a group but gives way, so it counts as room here.
    """
    rooms = []
    for folder, limit_file, used_file, cache_key in _groups():
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            limit, used = (int((folder / name).read_text()) for name in (limit_file, used_file))
            lines = (folder / "memory.stat").read_text().splitlines()
            cached = dict(line.split() for line in lines).get(cache_key, "0")
            rooms.append(limit - used + int(cached))
    return rooms


def _groups() -> Iterator[tuple[Path, str, str, str]]:
    """Each group that the process is in, innermost first, and what its files are called."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2
            files = ("memory.max", "memory.current", "file")
            top = GROUPS if (GROUPS / "cgroup.controllers").exists() else GROUPS / "unified"
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "cache")
            top = GROUPS / "memory"
        else:
            continue
        inner = top / group.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder == top.parent:
                break
            yield folder, *files
