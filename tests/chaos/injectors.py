"""Ways to break what a process stands on, without touching the process."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from medaug.sweep.cluster.start import Cluster


@contextlib.contextmanager
def cluster(cpus: int) -> Iterator[str]:
    """``HOST:PORT`` of a Ray cluster of this process that says it has so many CPUs.

    Ray gives its own processes 30 seconds to start, which a busy machine may exceed.
    """
    import ray

    for tries_left in reversed(range(4)):
        ours = Cluster(cpus=cpus)
        try:
            ours.start()
            break
        except Exception:
            ours.stop()
            ray.shutdown()
            if not tries_left:
                raise
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ours.stop()


@contextlib.contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of this size at ``path``; skips the test where mounting is not allowed."""
    path.mkdir(exist_ok=True)
    options = f"size={size_bytes},mode=700"
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
    if os.getuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root, and leave to mount")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def make_read_only(path: Path) -> None:
    """From now on nothing can be written to the file system at ``path``."""
    subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)


@contextlib.contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond it: a full disk for those who are not root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(path: Path, leave_bytes: int) -> Path:
    """Take all space of the file system at ``path`` but so much; returns the file that does."""
    filler = path / "filler"
    with open(filler, "wb") as file:
        while True:  # others write meanwhile, and may have taken of what was free
            disk = os.statvfs(path)
            try:
                os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - leave_bytes)
                break
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                file.truncate(0)
    return filler


def shim(folder: Path) -> str:
    """``LD_PRELOAD`` for a process whose storage hangs, or whose clock is wrong: see shims.c."""
    library = folder / "shims.so"
    source = Path(__file__).with_name("shims.c")
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler (cc)")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return str(library)
