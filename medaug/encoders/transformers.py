"""Vision models of the library ``transformers``: RAD-DINO, DINOv2 and others, from a folder or hub.

Only configuration and safetensors are read, no code of the model's repository is run. A model that
lacks a weight is refused: the library itself would fill it with random numbers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from medaug.encoders.base import FrozenNetwork, sha256_of
from medaug.errors import EnvironmentFault, UserError
from medaug.spec.encoder import IMAGENET_MEAN, IMAGENET_STD, TransformersSpec

EXTRA = "pip install 'medaug[transformers]'"


class TransformersEncoder(FrozenNetwork):
    """Frozen; (N, hidden size)."""

    Config = TransformersSpec

    def identity(self) -> dict[str, Any]:
        body = super().identity()
        if self.config.is_local:  # what is in the folder counts, not where it is
            del body["encoder"]["model"], body["encoder"]["revision"]
        return body

    def weights(self) -> dict[str, Any]:
        _check_installed()
        return {"sha256": _hash_of(self._local())} if self.config.is_local else {}

    @property
    def lineage(self) -> str:
        if not self.config.is_local:
            about = f"{self.config.model} at {self.config.revision[:12]}"
        else:
            about = f"sha256 {_hash_of(self._local())[:12]}"
        return f"public: {self.config.public}, {about}"

    def load(self) -> None:
        _check_installed()
        folder = self._local() if self.config.is_local else self._fetched()
        network, about = _load(folder)
        preprocessing = _preprocessing(folder)
        # Where the files are silent, ImageNet's is what most were trained with.
        self.mean = tuple(preprocessing.get("image_mean", IMAGENET_MEAN))
        self.std = tuple(preprocessing.get("image_std", IMAGENET_STD))
        side = self.config.image_size or about.get("image_size") or 224
        if not isinstance(side, int):
            raise UserError(f"encoder.image_size: the model's is {side}; give one side")
        self.side = side
        self.keep(network)

    def outputs(self, x_NCHW: Tensor) -> Tensor:
        state = self.network(pixel_values=x_NCHW).last_hidden_state
        if state.ndim == 4:  # a convolutional model: (N, D, h, w) has no first token
            return state.mean((2, 3))
        return state[:, 0] if self.config.pooling == "cls" else state.mean(1)

    def _local(self) -> Path:
        folder = Path(self.config.model).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(f"encoder.model: {folder} has no config.json; give a model's folder")
        if not list(folder.glob("*.safetensors")):
            raise UserError(
                f"encoder.model: {folder} has no .safetensors; save the model with "
                "save_pretrained(FOLDER)"
            )
        return folder

    def _fetched(self) -> Path:
        """The hub's files in the library's own cache; with HF_HUB_OFFLINE=1 only what is there."""
        from huggingface_hub import snapshot_download

        about = f"{self.config.model} at {self.config.revision}"
        try:
            folder = snapshot_download(
                self.config.model,
                revision=self.config.revision,
                allow_patterns=["*.json", "*.safetensors"],
            )
        except Exception as error:  # the library has two dozen kinds for what may go wrong here
            raise EnvironmentFault(
                f"encoder.model: {about} cannot be fetched ({type(error).__name__}); fetch it once "
                "where there is a network, or give a folder"
            ) from error
        return Path(folder)


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("transformers") is None:
        raise UserError(f"encoder transformers: the library is not installed; {EXTRA}")


def _load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model and its configuration."""
    from transformers import AutoModel

    with _quiet():
        try:
            network, about = AutoModel.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            why = str(error).strip().split("\n")[0]
            raise UserError(f"encoder.model: {folder} cannot be loaded: {why}") from error
    # The pooler's output is not used, and many are published without.
    missing = sorted(name for name in about["missing_keys"] if not name.startswith("pooler."))
    if missing or about["mismatched_keys"]:
        first = missing[0] if missing else about["mismatched_keys"][0]
        raise UserError(f"encoder.model: {folder} lacks weights, first {first}; save it again")
    if network.main_input_name != "pixel_values":
        raise UserError(f"encoder.model: {folder} takes {network.main_input_name}, not images")
    return network, network.config.to_dict()


def _preprocessing(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "preprocessor_config.json").read_text())
    except FileNotFoundError:
        return {}


def _hash_of(folder: Path) -> str:
    """SHA-256 of the names and hashes of all files that decide the numbers."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json")])
    lines = [f"{path.name} {sha256_of(path, 'encoder.model')}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's bars and reports; what they say is checked instead."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
