"""Is this shard what its manifest promises? Asked once per node and file version."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from medaug.errors import IntegrityError
from medaug.storage.locks import one_at_a_time
from medaug.store.digest import digest_of
from medaug.store.sidecar import check_schema


def verify_shards(shards: list[tuple[Path, int, str]], arrow: pa.Schema) -> None:
    """Check size, digest and columns of each (path, bytes, digest), some at a time.

    Raises IntegrityError naming a shard that is cut off, changed or missing, and UserError for a
    shard with other columns than ``arrow``.
    """
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "verify") as pool:
        checks = [pool.submit(_verify, *shard, arrow) for shard in shards]
        for check in checks:
            check.result()


def _verify(path: Path, n_bytes: int, digest: str, arrow: pa.Schema) -> None:
    try:
        found = path.stat()
    except OSError as fault:
        raise IntegrityError(f"{path}: missing; restore it or write the store again") from fault
    if not stat.S_ISREG(found.st_mode):
        raise IntegrityError(f"{path}: is no file; restore it or write the store again")
    if found.st_size != n_bytes:
        _refuse_foreign(path, arrow)
        raise IntegrityError(f"{path}: has {found.st_size} of {n_bytes} bytes; restore it")
    with _once_per_node(path, found, digest) as known:
        if known:
            return
        if digest_of(path, digest) != digest:
            raise IntegrityError(f"{path}: its digest is not the manifest's; restore it")
        _check_columns(path, arrow)


def _refuse_foreign(path: Path, arrow: pa.Schema) -> None:
    """A whole Arrow file with other columns was put here by hand: say so, not 'damaged'."""
    with contextlib.suppress(pa.ArrowException, OSError):
        _check_columns(path, arrow)


def _check_columns(path: Path, arrow: pa.Schema) -> None:
    with pa.OSFile(str(path)) as file:
        check_schema(path, pa.ipc.open_file(file).schema, arrow)


@contextlib.contextmanager
def _once_per_node(path: Path, found: os.stat_result, digest: str) -> Iterator[bool]:
    """Whether this version of the file was verified on this node; remembers it if not.

    A version is path, inode, size and times. Ranks that start together wait for the first one
    (the kernel gives the lock back when its process ends). Where the temporary folder cannot be
    written, nothing is remembered.
    """
    version = (path.resolve(), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    name = hashlib.sha256(repr((*map(str, version), digest)).encode()).hexdigest()[:32]
    with contextlib.ExitStack() as stack:
        try:
            memory = _memory() / name
            stack.enter_context(one_at_a_time(memory.with_suffix(".lock")))
        except OSError:
            yield False
            return
        known = memory.exists()
        yield known
        if not known:
            with contextlib.suppress(OSError):
                memory.touch(mode=0o600)


def _memory() -> Path:
    """A folder of this user on this node's own disk."""
    folder = Path(tempfile.gettempdir()) / f"medaug-verified-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} belongs to someone else")
    return folder
