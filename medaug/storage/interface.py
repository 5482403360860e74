"""What a storage can do, whichever kind it is.

All code works on paths and reads what it works with from them. Where a storage is a bucket
(:mod:`medaug.storage.uri`), such a path lies in this node's copy, and the methods here bring things
there and back; on a disk that all nodes see there is nothing to bring. Of a folder that is written
in several files, one is the last: without it nothing of the folder counts.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import ClassVar


class Storage(ABC):
    """Files and folders of one storage.

    Raises, all of them:
        EnvironmentFault, or OSError: the storage fails.
    """

    nodes_see_files: ClassVar[bool]
    """Whether a file that is written by any means at a path is there for other nodes."""

    # Files. What is written is there, for everybody, when the call returns.

    @abstractmethod
    def write(self, path: Path, content: bytes, *, durable: bool = True) -> None:
        """Give ``path`` this content: readers see the old one or the new, never a part.

        ``durable``: also after a power cut of this node.
        """

    @abstractmethod
    def append(self, path: Path, line: bytes, *, durable: bool = False) -> None:
        """Append a line to ``path``, which one process writes."""

    @abstractmethod
    def create(self, path: Path, content: bytes) -> bool:
        """Write ``path`` unless it exists; whether it did not. Of several that try, one succeeds.

        ``content`` is nobody else's: a try whose answer got lost is told from another's by it.
        """

    @abstractmethod
    def put(self, path: Path, content: bytes) -> None:
        """Replace what only :meth:`read` and :meth:`create` are for: it is in no node's copy."""

    @abstractmethod
    def touch(self, path: Path, content: bytes) -> None:
        """Make ``path``, which holds ``content``, new again for :meth:`age_s`."""

    @abstractmethod
    def read(self, path: Path) -> bytes | None:
        """The content of ``path`` as it is now, or None; not what this node's copy has."""

    @abstractmethod
    def exists(self, path: Path) -> bool:
        """Whether ``path`` is there now."""

    @abstractmethod
    def age_s(self, path: Path) -> float | None:
        """Seconds since ``path`` was written, by the storage's own clock; None if it is not."""

    @abstractmethod
    def remove(self, *paths: Path) -> None:
        """Remove files; those that are not there are no error."""

    # Folders.

    @abstractmethod
    def files(self, folder: Path) -> list[str]:
        """Names of the files in ``folder``."""

    @abstractmethod
    def folders(self, folder: Path) -> list[str]:
        """Names of the folders in ``folder``."""

    @abstractmethod
    def whole_folders(self, folder: Path, last: str) -> set[str]:
        """Names of those folders in ``folder`` that have a file ``last``."""

    @abstractmethod
    def remove_folder(self, folder: Path, first: str) -> None:
        """Remove all below ``folder``, its file ``first`` first: a part must not look whole."""

    # Between this node's copy and the storage.

    @abstractmethod
    def publish(self, folder: Path, last: str, *, content_named: bool = False) -> None:
        """The files of ``folder`` were written here: from now on all have them, ``last`` last.

        Hidden ones stay here. ``content_named``: what has the name has the content.
        """

    @abstractmethod
    def publish_new(
        self,
        folder: Path,
        *patterns: str,
        skip: re.Pattern[str] | None = None,
        content_named: bool = False,
    ) -> None:
        """The same for those files that the storage has not; names of ``skip`` stay here."""

    @abstractmethod
    def fetch(
        self, folder: Path, last: str, make_room: Callable[[int], None] = lambda n_bytes: None
    ) -> bool:
        """Have all files of ``folder`` here, ``last`` the last; whether they are.

        Processes of the node that want the same wait for the first one. ``make_room`` is told how
        many bytes will come.
        """

    @abstractmethod
    def fetch_new(self, folder: Path, pattern: str) -> None:
        """Have files of ``folder`` here that are not; a store that is being written, say."""

    @abstractmethod
    def refresh(self, paths: Collection[Path]) -> None:
        """Make small files here what they are in the storage; those that are not there go."""

    @abstractmethod
    def mirror(
        self, folder: Path, wanted: Callable[[str], bool], here: Iterable[Path] = ()
    ) -> None:
        """Make the small files of ``folder`` here what they are in the storage.

        ``wanted`` says of a path below ``folder`` whether it is one. Those of ``here`` that the
        storage has not are removed.
        """

    # Is it there, and is it what medaug needs?

    @abstractmethod
    def reach(self, folder: Path) -> None:
        """Make sure that the storage answers, within some seconds.

        Raises:
            UserError: the library that speaks to it is not installed.
            EnvironmentFault: it is not there, or does not let us in.
        """

    @abstractmethod
    def check_parent(self, folder: Path) -> None:
        """Raises EnvironmentFault when a new storage would stand in a folder that is not there:
        then a path is mistyped, or a disk is not mounted."""

    @abstractmethod
    def private(self, folder: Path) -> bool:
        """Whether this machine's other users are kept out, as far as it can be seen here."""
