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
from medaug.store import NodeCache, Store
from medaug.store.files import sha256_of

MANIFEST = "MANIFEST.json"


@dataclass(frozen=True)
class Shelf:
    """``<storage>/stores/<name>`` and ``<storage>/models/<name>``; what stands here is complete.

    Everything is made under a temporary name and renamed as a whole, so a reader never sees half a
    model, and of two trials that make the same one the second finds it done.
    """

    storage: Path

    def store_path(self, name: str) -> Path:
        return self.storage / "stores" / name

    def model_path(self, name: str) -> Path:
        return self.storage / "models" / name

    def has_store(self, name: str) -> bool:
        return Store.exists(self.store_path(name))

    def has_model(self, name: str) -> bool:
        return (self.model_path(name) / MANIFEST).is_file()

    def has(self, name: str) -> bool:
        """Whether a store or model of this name is complete."""
        return self.has_store(name) or self.has_model(name)

    def open_store(self, name: str) -> Store:
        """Raises UserError when the store was never finished.

        On a node with a cache (``MEDAUG_STORE_CACHE``) it is copied there first, once per node.
        """
        if not self.has_store(name):
            raise UserError(f"store {name}: not in {self.storage}/stores; run the study again")
        return Store.open(self.store_path(name), cache=NodeCache.from_environment())

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
        final.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        private = final.with_name(f".tmp-{name}-{uuid.uuid4().hex[:8]}")
        private.mkdir(mode=0o700)
        try:
            write(private)
            promise(private)
            for file in private.iterdir():
                file.chmod(0o600)
            os.rename(private, final)
        except OSError:
            if not self.has_model(name):  # else another trial was faster, with equal content
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
            raise UserError(f"model {name}: not in {self.storage}/models; run the study again")
        return verified(self.model_path(name), "delete the folder and run again")

    def load_model(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """(tensors, description) of a model written by :meth:`save_model`, hashes checked."""
        from safetensors.torch import load_file

        folder = self.verified_model(name)
        description = json.loads((folder / "config.json").read_text())
        return load_file(folder / "weights.safetensors"), description


def promise(folder: Path) -> None:
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
