"""Stores on shared file systems and object stores, fetched once per node and then mapped."""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from medaug.errors import EnvironmentFault, UserError
from medaug.storage.assemble import assembled
from medaug.storage.faults import storage_faults
from medaug.storage.files import private_folder
from medaug.storage.locks import one_at_a_time
from medaug.storage.manifest import parse_sealed
from medaug.store.manifest import MANIFEST

FETCH_THREADS = 4


def default_folder() -> Path:
    """``medaug/stores`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "medaug" / "stores"


@dataclass(frozen=True)
class NodeCache:
    """Whole stores in ``folder`` on the node's own disk, at most ``limit_bytes`` of them.

    The least recently fetched give way. A process that has one open keeps it: its files live on
    until it closes them.
    """

    folder: Path
    limit_bytes: int = 100 << 30

    @staticmethod
    def from_environment() -> NodeCache | None:
        """The cache that this node's ``MEDAUG_STORE_CACHE`` (a folder) asks for, if it does.

        ``MEDAUG_STORE_CACHE_GB`` is its limit (100). Raises UserError when that is no number.
        """
        if not (folder := os.environ.get("MEDAUG_STORE_CACHE")):
            return None
        return NodeCache(Path(folder), limit_from_environment())

    def fetch(self, uri: str | Path) -> Path:
        """The local copy of the store at ``uri``: a path, or a URI that pyarrow knows (s3://...).

        Processes of the node that want the same store wait for the first one to fetch it.

        Raises:
            UserError: there is no finished store.
            EnvironmentFault: it cannot be reached, or is larger than the cache.
        """
        try:
            source, root = fs.FileSystem.from_uri(_absolute(uri))
            if source.get_file_info(f"{root}/{MANIFEST}").type != fs.FileType.File:
                raise UserError(f"{uri}: no {MANIFEST}, so no finished store; run its stage again")
            with source.open_input_stream(f"{root}/{MANIFEST}") as file:
                content = file.read()
        except (OSError, pa.ArrowException) as fault:
            raise EnvironmentFault(f"{uri}: {fault}; check address and credentials") from fault
        version = hashlib.sha256(content).hexdigest()[:12]
        final = self.folder / f"{Path(root).name}-{version}"
        with storage_faults(self.folder):
            private_folder(self.folder)
            with one_at_a_time(self.folder / f".{final.name}.lock"):
                if not (final / MANIFEST).exists():
                    manifest = parse_sealed(content, str(uri))
                    names = [shard["file"] for shard in manifest["shards"]]
                    self.make_room(manifest["bytes"], str(uri))
                    with assembled(final) as folder:
                        _copy(source, root, names, folder)
                        (folder / MANIFEST).write_bytes(content)
                os.utime(final)
        return final

    def make_room(self, n_bytes: int, uri: str) -> None:
        """Let stores give way until ``n_bytes`` more keep within the limit.

        Raises:
            EnvironmentFault: the store at ``uri``, which has so many, is larger than the limit.
        """
        if n_bytes > self.limit_bytes:
            raise EnvironmentFault(
                f"{uri}: has {n_bytes / 1e9:.1f} GB, the cache {self.folder} may hold "
                f"{self.limit_bytes / 1e9:.1f} GB; raise its limit"
            )
        stores = [path for path in self.folder.iterdir() if (path / MANIFEST).exists()]
        sizes = {path: sum(f.stat().st_size for f in path.iterdir()) for path in stores}
        for oldest in sorted(stores, key=lambda path: path.stat().st_mtime):
            if sum(sizes.values()) + n_bytes <= self.limit_bytes:
                break
            del sizes[oldest]
            (oldest / MANIFEST).unlink()  # first: half a store must not look like one
            shutil.rmtree(oldest)


def limit_from_environment() -> int:
    """Bytes that ``MEDAUG_STORE_CACHE_GB`` says (100 GB). Raises UserError when it is no number."""
    text = os.environ.get("MEDAUG_STORE_CACHE_GB", "100")
    try:
        limit_bytes = int(float(text) * 1e9)
    except (ValueError, OverflowError):
        limit_bytes = 0
    if limit_bytes <= 0:
        raise UserError(f"MEDAUG_STORE_CACHE_GB: '{text}'; give a number above 0, such as 100")
    return limit_bytes


def _absolute(uri: str | Path) -> str:
    text = os.fspath(uri)
    return text if "://" in text else os.path.abspath(text)


def _copy(source: fs.FileSystem, root: str, shards: list[str], folder: Path) -> None:
    """Shards and their sidecars. Opening the copy compares them with their hashes."""
    names = [name for shard in shards for name in (shard, str(Path(shard).with_suffix(".json")))]
    local = fs.LocalFileSystem()
    with ThreadPoolExecutor(FETCH_THREADS, "store-fetch") as pool:
        copies = [
            pool.submit(
                fs.copy_files,
                f"{root}/{name}",
                str(folder / name),
                source_filesystem=source,
                destination_filesystem=local,
            )
            for name in names
        ]
        for copy in copies:
            copy.result()
