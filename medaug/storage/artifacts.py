"""Where finished models and stores stand, each under a name that is the hash of what made it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medaug.errors import IntegrityError, UserError
from medaug.storage import storage_at
from medaug.storage.assemble import assembled
from medaug.storage.faults import storage_faults
from medaug.storage.manifest import MANIFEST, verified, write_manifest
from medaug.storage.reading import parse_object
from medaug.storage.uri import display_uri
from medaug.store import NodeCache, Store
from medaug.store.cache import limit_from_environment
from medaug.store.manifest import MANIFEST as STORE_MANIFEST


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
        return _stands(self.store_path(name) / STORE_MANIFEST)

    def has_model(self, name: str) -> bool:
        return _stands(self.model_path(name) / MANIFEST)

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
        seen = storage_at(path).nodes_see_files
        return Store.open(path, cache=NodeCache.from_environment() if seen else None)

    def fetch_store(self, name: str) -> bool:
        """Have the store here, if it is finished; whether it is. The least recently opened ones
        give way when those of this node's copy of a bucket exceed ``MEDAUG_STORE_CACHE_GB``."""
        path = self.store_path(name)
        storage = storage_at(path)

        def make_room(n_bytes: int) -> None:
            cache = NodeCache(path.parent, limit_from_environment())
            cache.make_room(n_bytes, display_uri(path))

        with storage_faults(path.parent):
            here = storage.fetch(path, STORE_MANIFEST, make_room)
            if here and not storage.nodes_see_files:
                os.utime(path)
        return here

    def share_store(self, name: str) -> None:
        """A store that was finished here stands in the bucket too from now on."""
        if not self.has_store(name):
            path = self.store_path(name)
            storage_at(path).publish(path, STORE_MANIFEST, content_named=True)

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
        storage_at(final).publish(final, MANIFEST)

    def _make_model(self, final: Path, write: Callable[[Path], None]) -> None:
        if final.exists():  # without a manifest: nothing that anybody made
            shutil.rmtree(final)
        with assembled(final) as private:
            write(private)
            write_manifest(private)

    def verified_model(self, name: str) -> Path:
        """The folder of a model whose files have the hashes that its manifest promises.

        Raises:
            UserError: there is no such model.
            IntegrityError: a file is missing or changed.
        """
        if not self.has_model(name):
            there = display_uri(self.storage / "models")
            raise UserError(f"model {name}: not in {there}; run the study again")
        folder = self.model_path(name)
        storage_at(folder).fetch(folder, MANIFEST)
        return verified(folder, "delete the folder and run again")

    def load_model(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """(tensors, description) of a model written by :meth:`save_model`, hashes checked."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = self.verified_model(name)
        about, weights = folder / "config.json", folder / "weights.safetensors"
        description = parse_object(about.read_bytes(), str(about))
        try:
            return load_file(weights), description
        except SafetensorError as fault:
            raise IntegrityError(f"{weights}: {fault}; delete the folder and run again") from None


_STANDING: set[Path] = set()


def _stands(manifest: Path) -> bool:
    """Whether it is there. What is, far away, is asked for once: a name stands for a content."""
    storage = storage_at(manifest)
    if storage.nodes_see_files:
        return manifest.is_file()
    if manifest not in _STANDING and storage.exists(manifest):
        _STANDING.add(manifest)
    return manifest in _STANDING
