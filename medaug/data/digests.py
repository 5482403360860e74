"""SHA-256 of input files, each read once as long as it stays what it is, and what they say."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medaug.data.files import BadFile, open_regular
from medaug.storage.files import private_folder, write_whole

FILE = "digests"
_THREADS = 8


class Digests:
    """Digests by path, size, time of change and inode; kept in ``file`` where one is given.

    The file names nobody: a path is in it as its own digest. Two writers lose at most each other's
    new lines, which are then computed again. A line is the digest of a question and its answer.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[str, str] = {}
        self._new = 0
        if file is not None and file.exists():
            lines = (line.split() for line in file.read_text().splitlines())
            self._known = {parts[0]: parts[1] for parts in lines if len(parts) == 2}

    def of(self, path: Path) -> str:
        """Hex digits of the file's content.

        Raises:
            BadFile: it cannot be read.
        """
        with open_regular(path) as file:
            about = os.fstat(file.fileno())
            key = _key(path, about)
            if (known := self._known.get(key)) is not None:
                return known
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._known[key] = digest
        self._new += 1
        return digest

    def all_of(self, paths: Iterable[Path]) -> list[str]:
        """The digest of each file, or why it cannot be read."""
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            return list(pool.map(self._or_reason, paths))

    def recalled(self, question: str, paths: Iterable[Path], answer: Callable[[], str]) -> str:
        """What ``answer()`` gave, a word, when ``question`` was asked of files with this content;
        asked now if it never was."""
        asked = f"{question}\0{chr(0).join(self.all_of(paths))}"
        key = _blake(asked)
        if key not in self._known:
            self._known[key] = answer()
            self._new += 1
        return self._known[key]

    def save(self) -> None:
        """Write what is new, beside what another process has written meanwhile."""
        if self._file is None or not self._new:
            return
        known = {**Digests(self._file)._known, **self._known}
        private_folder(self._file.parent)
        write_whole(self._file, "".join(f"{k} {d}\n" for k, d in known.items()).encode())
        self._new = 0

    def _or_reason(self, path: Path) -> str:
        try:
            return self.of(path)
        except BadFile as error:
            return str(error)


def _key(path: Path, about: os.stat_result) -> str:
    return _blake(f"{path.absolute()}\0{about.st_size}\0{about.st_mtime_ns}\0{about.st_ino}")


def _blake(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
