"""Where finished models and stores stand, each under a name that is the hash of what made it."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medaug.errors import IntegrityError, UserError
from medaug.storage.bucket import fetch_folder, holds, is_remote, send_folder
from medaug.storage.uri import display_uri
from medaug.store import NodeCache, Store
from medaug.store.cache import limit_from_environment
from medaug.store.files import sha256_of, storage_faults
from medaug.store.manifest import MANIFEST as STORE_MANIFEST

MANIFEST = "MANIFEST.json"


@dataclass(frozen=True)
class Artifacts:
    """``<storage>/stores/<name>`` and ``<storage>/models/<name>``; what stands here is complete.

    Everything is made under a temporary name and renamed as a whole, so a reader never sees half a
    model, and of two trials that make the same one the second finds it done. In the copy of a
    bucket, what stands in the bucket is complete; it comes here when it is opened.
    """

    storage: Path

    def store_path(self, name: str) -> Path:
        return self.storage / "stores" / name

    def model_path(self, name: str) -> Path:
        return self.storage / "models" / name

    def has_store(self, name: str) -> bool:
        path = self.store_path(name)
        return _bucket_has(path / STORE_MANIFEST) if is_remote(path) else Store.exists(path)

    def has_model(self, name: str) -> bool:
        manifest = self.model_path(name) / MANIFEST
        return _bucket_has(manifest) if is_remote(manifest) else manifest.is_file()

    def has(self, name: str) -> bool:
        """Whether a store or model of this name is complete."""
        return self.has_store(name) or self.has_model(name)

    def open_store(self, name: str) -> Store:
        """Raises UserError when the store was never finished.

        On a node with a cache (``MEDAUG_STORE_CACHE``) it is copied there first, once per node;
        from a bucket too, but into this node's copy of it.
        """
        path = self.store_path(name)
        if not self.fetch_store(name):
            raise UserError(f"store {name}: not in {display_uri(path.parent)}; run the study again")
        return Store.open(path, cache=None if is_remote(path) else NodeCache.from_environment())

    def fetch_store(self, name: str) -> bool:
        """Have the store here, if it is finished; whether it is. The least recently opened ones
        give way when those of this node's copy of a bucket exceed ``MEDAUG_STORE_CACHE_GB``."""
        path = self.store_path(name)
        cache = NodeCache(path.parent, limit_from_environment()) if is_remote(path) else None
        if cache is None:
            return Store.exists(path)
        uri = display_uri(path)
        with storage_faults(path.parent):
            if not fetch_folder(path, STORE_MANIFEST, lambda n: cache.make_room(n, uri)):
                return False
            os.utime(path)
        return True

    def share_store(self, name: str) -> None:
        """A store that was finished here stands in the bucket too from now on."""
        if is_remote(self.storage) and not self.has_store(name):
            send_folder(self.store_path(name), STORE_MANIFEST, content_named=True)

    def save_model(
        self, name: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]
    ) -> None:
        """Publish weights and their JSON description as ``models/<name>``."""

        from safetensors.torch import save_file

        def write(folder: Path) -> None:
            save_file(
                {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
                folder / "weights.safetensors",
            )
            (folder / "config.json").write_text(json.dumps(config, indent=1))

        self.publish_model(name, write)

    def publish_model(self, name: str, write: Callable[[Path], None]) -> None:
        """Let ``write`` fill a private folder, then rename it to ``models/<name>``."""
        final = self.model_path(name)
        if self.has_model(name):
            return
        if not (final / MANIFEST).is_file():  # else it was not sent the last time
            self._make_model(final, write)
        send_folder(final, MANIFEST)

    def _make_model(self, final: Path, write: Callable[[Path], None]) -> None:
        name = final.name
        final.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        private = final.with_name(f".tmp-{name}-{uuid.uuid4().hex[:8]}")
        private.mkdir(mode=0o700)
        try:
            write(private)
            write_manifest(private)
            for file in private.iterdir():
                file.chmod(0o600)
            os.rename(private, final)
        except OSError:
            if not (final / MANIFEST).is_file():  # else another trial was faster, equal content
                raise
        finally:
            shutil.rmtree(private, ignore_errors=True)

    def verified_model(self, name: str) -> Path:
        """The folder of a model whose files have the hashes that its manifest promises.

        Raises:
            UserError: there is no such model.
            IntegrityError: a file is missing or changed.
        """
        if not self.has_model(name):
            there = display_uri(self.storage / "models")
            raise UserError(f"model {name}: not in {there}; run the study again")
        fetch_folder(self.model_path(name), MANIFEST)
        return verified(self.model_path(name), "delete the folder and run again")

    def load_model(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """(tensors, description) of a model written by :meth:`save_model`, hashes checked."""
        from safetensors.torch import load_file

        folder = self.verified_model(name)
        description = json.loads((folder / "config.json").read_text())
        return load_file(folder / "weights.safetensors"), description


_STANDING: set[Path] = set()


def _bucket_has(manifest: Path) -> bool:
    """Asked once for what is there: a name stands for a content, and stays."""
    if manifest not in _STANDING and holds(manifest):
        _STANDING.add(manifest)
    return manifest in _STANDING


def write_manifest(folder: Path) -> None:
    """Write ``MANIFEST.json``: the SHA-256 of every file that is there."""
    hashes = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(hashes, indent=1))


def verified(folder: Path, remedy: str) -> Path:
    """``folder``, whose files have the hashes that its manifest promises.

    Raises:
        IntegrityError: a file is missing or changed; ends with ``remedy``.
    """
    try:
        hashes = json.loads((folder / MANIFEST).read_text())
        changed = [file for file, sha256 in hashes.items() if sha256_of(folder / file) != sha256]
    except (OSError, ValueError, AttributeError) as error:
        raise IntegrityError(f"{folder}: {error}; {remedy}") from None
    if changed:
        raise IntegrityError(f"{folder / changed[0]}: changed; {remedy}")
    return folder
