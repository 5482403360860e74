"""Every network of every study with its exact number of parameters (``medaug models``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from medaug.models.acgan import AcganDiscriminator, AcganGenerator
from medaug.models.classifiers import CLASSIFIERS
from medaug.models.dcgan import DCGANS
from medaug.models.mlp import MlpCritic, MlpGenerator, VelocityMlp
from medaug.models.unet import UNet, tap_shape

FEATURE_TAPS = ("conv5", "uconv4", "uconv3", "uconv2")
"""One tap per feature size of study A; ``conv`` and ``deconv`` taps share these shapes."""
WIDTHS = (64, 256, 512)
PCA_DIM = 64


@dataclass(frozen=True)
class _Entry:
    study: str
    name: str
    build: Callable[..., nn.Module]
    configuration: dict[str, Any]


def catalogue() -> list[dict[str, Any]]:
    """One row per network: ``study``, ``name``, ``configuration`` and ``parameters`` (exact).

    ``configuration`` holds the arguments that the network is built with. Counts are of trainable
    parameters; batch norm's running statistics are not among them. Built on torch's meta device:
    no memory is taken.
    """
    entries = [*_study_a(), *_study_b(), *_study_c(), *_study_d()]
    with torch.device("meta"):
        return [
            {
                "study": entry.study,
                "name": entry.name,
                "configuration": entry.configuration,
                "parameters": parameters(entry.build(**entry.configuration)),
            }
            for entry in entries
        ]


def parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters())


def _study_a() -> list[_Entry]:
    entries = []
    for in_channels in (1, 4):
        configuration = {"in_channels": in_channels, "base": 64, "n_out": 1}
        entries.append(_Entry("A", "unet", UNet, configuration))
        entries.append(_Entry("A", "unet_encoder", _encoder, configuration))
    shapes = [tap_shape(tap, base=64, image_size=240) for tap in FEATURE_TAPS]
    for shape in shapes:
        for rule in ("flat", "pyramid"):
            for width in WIDTHS:
                common = {"shape": shape, "n_classes": 2, "width_rule": rule}
                generator = {**common, "ngf": width, "nz": 110}
                discriminator = {**common, "ndf": width, "norm": "bn", "cond": "ac"}
                entries.append(_Entry("A", "acgan_generator", AcganGenerator, generator))
                entries.append(
                    _Entry("A", "acgan_discriminator", AcganDiscriminator, discriminator)
                )
    for shape in shapes:
        entries.append(_classifier("A", "feature_cnn", shape))
        entries.append(_classifier("A", "linear", shape))
    vector = {"dim": PCA_DIM, "n_classes": 2, "hidden": 256}
    entries.append(_Entry("A", "wgan_gp_generator", MlpGenerator, {**vector, "nz": 64}))
    entries.append(_Entry("A", "wgan_gp_critic", MlpCritic, vector))
    entries.append(_Entry("A", "flow_matching", VelocityMlp, {**vector, "depth": 3}))
    return entries


def _study_b() -> list[_Entry]:
    return [
        *_dcgan("B", "dcgan32", {"channels": 1, "size": 32, "width": 128}),
        _classifier("B", "resnet50", (1, 32, 32), dropout=0.4),
    ]


def _study_c() -> list[_Entry]:
    return [
        _classifier("C", "cnn12", (1, size, size), n_out)
        for size in (32, 64, 128, 224)
        for n_out in (3, 2)
    ]


def _study_d() -> list[_Entry]:
    pair = {"channels": 3, "size": 128, "width": 64}
    return [
        *_dcgan("D", "dcgan128", {**pair, "kernel": 5}),
        *_dcgan("D", "dcgan128", {**pair, "kernel": 4}),
        _classifier("D", "separable_cnn", (3, 224, 224)),
    ]


def _classifier(
    study: str, kind: str, shape: tuple[int, int, int], n_out: int = 2, dropout: float = 0.5
) -> _Entry:
    configuration = {"shape": shape, "n_out": n_out, "dropout": dropout}
    return _Entry(study, kind, CLASSIFIERS[kind], configuration)


def _dcgan(study: str, kind: str, configuration: dict[str, Any]) -> list[_Entry]:
    generator, discriminator = DCGANS[kind]
    return [
        _Entry(study, f"{kind}_generator", generator, configuration),
        _Entry(study, f"{kind}_discriminator", discriminator, configuration),
    ]


def _encoder(**configuration: Any) -> nn.Module:
    """The part of the U-Net that extraction to ``conv5`` runs."""
    net = UNet(**configuration)
    return nn.ModuleList(net.get_submodule(block) for block in net.blocks("conv5"))
