"""A storage that is a folder: a disk, NFS, Lustre, CephFS. All nodes see the same files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from medaug.errors import EnvironmentFault
from medaug.storage.files import append_line, create_whole, write_whole
from medaug.storage.interface import Storage
from medaug.storage.reading import read_regular


class LocalStorage(Storage):
    """Files as the file system has them."""

    nodes_see_files = True

    def write(self, path: Path, content: bytes, *, durable: bool = True) -> None:
        write_whole(path, content, durable=durable)

    def append(self, path: Path, line: bytes, *, durable: bool = False) -> None:
        append_line(path, line, durable=durable)

    def create(self, path: Path, content: bytes) -> bool:
        return create_whole(path, content)

    def put(self, path: Path, content: bytes) -> None:
        write_whole(path, content, durable=False)

    def touch(self, path: Path, content: bytes) -> None:
        os.utime(path)

    def read(self, path: Path) -> bytes | None:
        return read_regular(path)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def age_s(self, path: Path) -> float | None:
        probe = path.with_name(f".probe-{uuid.uuid4().hex}")
        try:
            probe.touch(mode=0o600)
            os.utime(probe)  # the server's time, not this host's
            return probe.stat().st_mtime - path.stat().st_mtime
        except FileNotFoundError:
            return None
        finally:
            probe.unlink(missing_ok=True)

    def remove(self, *paths: Path) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def files(self, folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir())

    def folders(self, folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir() if path.is_dir())

    def whole_folders(self, folder: Path, last: str) -> set[str]:
        return {path.parent.name for path in folder.glob(f"*/{last}")}

    def remove_folder(self, folder: Path, first: str) -> None:
        with contextlib.suppress(OSError):
            (folder / first).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, last: str, *, content_named: bool = False) -> None:
        """Nothing to do, as in what follows: the files are where everybody looks."""

    def publish_new(
        self,
        folder: Path,
        *patterns: str,
        skip: re.Pattern[str] | None = None,
        content_named: bool = False,
    ) -> None: ...

    def fetch(
        self, folder: Path, last: str, make_room: Callable[[int], None] = lambda n_bytes: None
    ) -> bool:
        return (folder / last).is_file()

    def fetch_new(self, folder: Path, pattern: str) -> None: ...

    def refresh(self, paths: Collection[Path]) -> None: ...

    def mirror(
        self, folder: Path, wanted: Callable[[str], bool], here: Iterable[Path] = ()
    ) -> None: ...

    def reach(self, folder: Path) -> None: ...

    def check_parent(self, folder: Path) -> None:
        if not folder.absolute().parent.is_dir():
            raise EnvironmentFault(
                f"storage {folder}: its parent folder does not exist; correct the path, mount "
                "the disk, or give --mkdir"
            )

    def private(self, folder: Path) -> bool:
        return not stat.S_IMODE(folder.stat().st_mode) & 0o007
