"""The digest of a shard, which says what it is: ``blake3:`` or ``sha256:`` and hex digits.

BLAKE3 is a tree of hashes, many pieces of which a core computes at once; SHA-256, one chain, took
most of the time of writing a store. ``b3sum`` compares such a shard without medaug. Stores from
before have SHA-256 and are read, verified and completed with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from medaug.errors import EnvironmentFault, IntegrityError
from medaug.storage.files import file_digest

ALGORITHMS: dict[str, Callable[[], Any]] = {"sha256": hashlib.sha256}
"""Those that are installed, by their names in a digest."""

with suppress(ImportError):  # a bare GPU machine: there new shards have SHA-256
    from blake3 import blake3

    ALGORITHMS["blake3"] = blake3


class Digest:
    """The digest of bytes that come piece by piece."""

    def __init__(self) -> None:
        self._name = _of_new_shards()
        self._hash = ALGORITHMS[self._name]()

    def update(self, data: memoryview) -> None:
        self._hash.update(data)

    def __str__(self) -> str:
        return f"{self._name}:{self._hash.hexdigest()}"


def digest_of(path: Path, like: str = "") -> str:
    """The digest of the file at ``path``, by the algorithm of ``like`` or, without, of new shards.

    Raises:
        EnvironmentFault: that algorithm is not installed.
        IntegrityError: there is something else than a file, or no such algorithm.
        OSError: the file cannot be read.
    """
    name = like.partition(":")[0] or _of_new_shards()
    if name not in ALGORITHMS:
        if name == "blake3":
            raise EnvironmentFault(f"{path}: has a BLAKE3 digest; pip install blake3")
        raise IntegrityError(f"{path}: its digest is '{like}', neither BLAKE3 nor SHA-256")
    return f"{name}:{file_digest(path, ALGORITHMS[name])}"


def promised_digest(about: Mapping[str, Any]) -> str:
    """What a sidecar, or a manifest's entry, says of its shard. Raises KeyError."""
    return str(about["digest"]) if "digest" in about else f"sha256:{about['sha256']}"


def _of_new_shards() -> str:
    return "blake3" if "blake3" in ALGORITHMS else "sha256"
