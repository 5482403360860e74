"""A named network with weights from a safetensors file: whose they are, the study declares.

Tensors may have torchvision's names, those of RadImageNet's PyTorch files (``backbone.4.0.conv1``),
those of the package the network is known from, or medaug's own; ``module.`` in front, which
DataParallel leaves, is taken off. The layer of the classes may be missing or have any number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from medaug.encoders.base import FrozenNetwork, check_sha256, load_tensors, tapped
from medaug.errors import UserError
from medaug.models import efficientnet_lite, resnet
from medaug.spec.encoder import WeightsSpec


class MonaiDenseNet121(nn.Module):
    """MONAI's 2-D DenseNet-121 (Huang et al. 2017) with three channels; blocks are its four."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from monai.networks.nets import DenseNet121
        except ImportError:
            raise UserError(
                "encoder.network: monai_densenet121 needs MONAI; pip install 'medaug[monai]'"
            ) from None
        self.features = DenseNet121(spatial_dims=2, in_channels=3, out_channels=1).features

    def block_outputs(self, x_NCHW: Tensor) -> Iterator[Tensor]:
        x = x_NCHW
        for name, layer in self.features.named_children():
            x = layer(x)
            if name.startswith("denseblock"):
                yield x

    def last_output(self, x_NCHW: Tensor) -> Tensor:
        return nn.functional.relu(self.features(x_NCHW))


def _resnet(depth: int) -> Callable[[], nn.Module]:
    return lambda: resnet.ResNet(depth, 3, 1)


def _as_they_are(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors


Renaming = Callable[[dict[str, Tensor]], dict[str, Tensor]]

NETWORKS: dict[str, tuple[Callable[[], nn.Module], Renaming]] = {
    "resnet18": (_resnet(18), resnet.from_torchvision),
    "resnet50": (_resnet(50), resnet.from_torchvision),
    "efficientnet_lite0": (
        lambda: efficientnet_lite.EfficientNetLite0(1),
        efficientnet_lite.from_published,
    ),
    "monai_densenet121": (MonaiDenseNet121, _as_they_are),
}
"""Name -> how the network is built, and how a file's tensors get its names."""


class WeightsEncoder(FrozenNetwork):
    """Frozen; D is the sum of the channels of all blocks, or those of the last layer."""

    Config = WeightsSpec

    def __init__(self, config: WeightsSpec) -> None:
        super().__init__(config)
        self.side, self.mean, self.std = config.image_size, config.mean, config.std

    def weights(self) -> dict[str, Any]:
        return {}  # its hash is part of the configuration

    @property
    def lineage(self) -> str:
        return f"public: {self.config.public}, sha256 {self.config.sha256[:12]}"

    def load(self) -> None:
        path = Path(self.config.path).expanduser()
        check_sha256(
            path,
            self.config.sha256,
            "encoder.path",
            "fetch the file again, or correct encoder.sha256 if it is another file on purpose",
        )
        build, renamed = NETWORKS[self.config.network]
        network = build()
        tensors = _without_classes(renamed(_without_prefix(_read(path))))
        own = {name: t for name, t in network.state_dict().items() if name.startswith("fc.")}
        load_tensors(network, tensors | own, str(path))
        self.keep(network)

    def outputs(self, x_NCHW: Tensor) -> Tensor:
        return tapped(self.network, x_NCHW, self.config.taps)


def _read(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file: a format that holds no code."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError:
        raise UserError(
            f"encoder.path: {path} is no safetensors file; load it where you trust it and save its "
            "state dict with safetensors.torch.save_file"
        ) from None


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _without_classes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
