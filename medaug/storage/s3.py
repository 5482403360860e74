"""A storage that is a bucket: what is finished travels between it and this node's copy.

The bucket is the truth: what a node did not get there before it died, has not happened. Hidden
files and folders of the copy stay on their node.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from medaug.storage import s3_client as client
from medaug.storage.files import (
    append_line,
    private_folder,
    remove_abandoned,
    write_pieces,
    write_whole,
)
from medaug.storage.interface import Storage
from medaug.storage.locks import one_at_a_time
from medaug.storage.uri import address

_LOCK = ".lock"


class S3Storage(Storage):
    """Objects of the bucket in this node's copy of which the paths lie."""

    nodes_see_files = False

    def write(self, path: Path, content: bytes, *, durable: bool = True) -> None:
        with synced_write(path):
            write_whole(path, content, durable=False)  # durable is what is in the bucket

    def append(self, path: Path, line: bytes, *, durable: bool = False) -> None:
        with synced_write(path):
            append_line(path, line)

    def create(self, path: Path, content: bytes) -> bool:
        return client.create(path, content)

    def put(self, path: Path, content: bytes) -> None:
        client.write(path, content)

    def touch(self, path: Path, content: bytes) -> None:
        client.write(path, content)

    def read(self, path: Path) -> bytes | None:
        return client.read(path)

    def exists(self, path: Path) -> bool:
        return client.written(path) is not None

    def age_s(self, path: Path) -> float | None:
        probe = path.with_name(f".probe-{uuid.uuid4().hex}")
        client.write(probe, b"")
        try:
            now, then = client.written(probe), client.written(path)
        finally:
            client.remove(probe)
        return None if now is None or then is None else now - then

    def remove(self, *paths: Path) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
            client.remove(path)

    def files(self, folder: Path) -> list[str]:
        return client.objects(folder)

    def folders(self, folder: Path) -> list[str]:
        return client.folders(folder)

    def whole_folders(self, folder: Path, last: str) -> set[str]:
        ends = [each.name for each in client.listing(folder) if each.name.endswith(f"/{last}")]
        return {name.partition("/")[0] for name in ends if name.count("/") == 1}

    def remove_folder(self, folder: Path, first: str) -> None:
        names = [each.name for each in client.listing(folder)]
        for name in sorted(names, key=lambda name: name != first):
            client.remove(folder / name)

    def publish(self, folder: Path, last: str, *, content_named: bool = False) -> None:
        if not is_remote(folder):
            return
        there = {each.name: each for each in client.listing(folder)}
        if last in there:
            client.remove(folder / last)
        files = [
            path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."
        ]
        if content_named:
            files = [f for f in files if f.name not in there or there[f.name].n_bytes != _size(f)]
        _send(path for path in files if path.name != last)
        if (folder / last).exists():
            _send([folder / last])

    def publish_new(
        self,
        folder: Path,
        *patterns: str,
        skip: re.Pattern[str] | None = None,
        content_named: bool = False,
    ) -> None:
        if not is_remote(folder):
            return
        there = {each.name: each for each in client.listing(folder)}
        files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
        todo = []
        for path in files:
            known = there.get(path.relative_to(folder).as_posix())
            same = known and known.n_bytes == _size(path)
            same = same and (content_named or (known and known.is_copied_to(path)))
            if not same and is_remote(path) and not (skip and skip.fullmatch(path.name)):
                todo.append(path)
        _send(todo)

    def fetch(
        self, folder: Path, last: str, make_room: Callable[[int], None] = lambda n_bytes: None
    ) -> bool:
        if (folder / last).exists() or not is_remote(folder):
            return (folder / last).exists()
        private_folder(folder.parent)
        with one_at_a_time(folder.parent / f".{folder.name}{_LOCK}"):
            if (folder / last).exists():
                return True
            there = {each.name: each for each in client.listing(folder)}
            if last not in there:
                return False
            make_room(sum(each.n_bytes for each in there.values()))
            folder.mkdir(mode=0o700, exist_ok=True)
            remove_abandoned(folder)
            end = there.pop(last)
            _get((folder / each.name, each) for each in there.values() if "/" not in each.name)
            _get([(folder / last, end)])
        return True

    def fetch_new(self, folder: Path, pattern: str) -> None:
        if not is_remote(folder):
            return
        private_folder(folder)
        there = client.listing(folder)
        _get((folder / e.name, e) for e in there if fnmatch.fnmatchcase(e.name, pattern))

    def refresh(self, paths: Collection[Path]) -> None:
        for parent in {path.parent for path in paths}:
            private_folder(parent)
        client.at_once([functools.partial(_renew, path) for path in paths])

    def mirror(
        self, folder: Path, wanted: Callable[[str], bool], here: Iterable[Path] = ()
    ) -> None:
        if not is_remote(folder):
            return
        there = [each for each in client.listing(folder) if wanted(each.name)]
        stale = [each for each in there if not each.is_copied_to(folder / each.name)]
        names = {folder / each.name for each in there}
        gone = [path for path in here if path not in names and path.exists()]
        self.refresh([*(folder / each.name for each in stale), *gone])

    def reach(self, folder: Path) -> None:
        client.inside(folder, patience=client.SOON)

    def check_parent(self, folder: Path) -> None:
        """A bucket has no folders that would have to be there."""

    def private(self, folder: Path) -> bool:
        """Who may read a bucket is written down where its owner looks after it."""
        return True


def is_remote(path: Path) -> bool:
    """Whether ``path`` lies in the copy of a bucket, in no hidden folder."""
    uri = address(path)
    return uri is not None and "/." not in uri


@contextlib.contextmanager
def synced_write(path: Path) -> Iterator[None]:
    """Write the file ``path`` in this block; afterwards the bucket has it too.

    Others on this node who bring ``path`` up to date wait meanwhile: they would undo it.
    """
    if not is_remote(path):
        yield
        return
    with one_at_a_time(path.parent / _LOCK):
        yield
        _send([path])


def _send(files: Iterable[Path]) -> None:
    client.at_once([functools.partial(client.put_file, path) for path in files])


def _get(files: Iterable[tuple[Path, client.Object]]) -> None:
    client.at_once([functools.partial(client.get_file, path, about) for path, about in files])


def _renew(path: Path) -> None:
    """Make one small file what it is in the bucket, now."""
    with one_at_a_time(path.parent / _LOCK):
        try:
            content, seconds = client.get_with_time(path)
        except FileNotFoundError:
            path.unlink(missing_ok=True)
            return
        write_pieces(path, [content], written_s=seconds)


def _size(path: Path) -> int:
    return path.stat().st_size
