"""Where studies are kept: one interface, two kinds; all else stands on it.

``storage_at(path)`` is the storage that ``path`` lies in. Only this room knows which kind that is.
"""

from __future__ import annotations

from pathlib import Path

from medaug.storage.interface import Storage
from medaug.storage.local import LocalStorage
from medaug.storage.uri import address

__all__ = ["Storage", "storage_at"]


def storage_at(path: Path) -> Storage:
    """The storage of ``path``: a bucket where the path lies in this node's copy of one."""
    if address(path) is None:
        return _FOLDERS
    from medaug.storage.s3 import S3Storage

    return S3Storage()


_FOLDERS = LocalStorage()
