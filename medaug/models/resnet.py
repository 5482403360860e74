"""Residual networks (He et al. 2016) in their usual form: of bottlenecks, with the stride on the
3x3 convolution (50 layers), or of basic blocks (18)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

EXPANSION = 4
STAGES = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
"""Depth -> blocks of each stage."""


class _Residual(nn.Module):
    """``relu(residual(x) + shortcut(x))``; a 1x1 convolution where shapes differ."""

    def __init__(
        self, residual: nn.Sequential, channels_in: int, channels_out: int, stride: int
    ) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut.extend(_conv_bn(channels_in, channels_out, 1, stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.relu(self.residual(x_NCHW) + self.shortcut(x_NCHW))


class BasicBlock(_Residual):
    """3x3 (strided), 3x3 convolutions around a shortcut: (N, C, H, W) -> (N, w, H/s, W/s)."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        residual = nn.Sequential(
            *_conv_bn(channels_in, width, 3, stride),
            nn.ReLU(inplace=True),
            *_conv_bn(width, width, 3),
        )
        super().__init__(residual, channels_in, width, stride)


class Bottleneck(_Residual):
    """1x1, 3x3 (strided), 1x1 convolutions around a shortcut: (N, C, H, W) -> (N, 4w, H/s, W/s)."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        residual = nn.Sequential(
            *_conv_bn(channels_in, width, 1),
            nn.ReLU(inplace=True),
            *_conv_bn(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *_conv_bn(width, EXPANSION * width, 1),
        )
        super().__init__(residual, channels_in, EXPANSION * width, stride)


class ResNet(nn.Module):
    """Logits (N, n_out) of images (N, channels, H, W), dropout before the last layer.

    25,557,032 parameters with 50 layers for three channels and 1,000 outputs, 11,689,512 with 18.
    At 32 x 32 the last stage is one pixel, which its batch norm can use as long as a training batch
    has more than one image.
    """

    def __init__(self, depth: int, channels: int, n_out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_conv_bn(channels, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        self.stages = nn.Sequential()
        channels_in = 64
        for blocks, width, stride in zip(
            STAGES[depth], (64, 128, 256, 512), (1, 2, 2, 2), strict=True
        ):
            for i in range(blocks):
                first = stride if i == 0 else 1
                block = (
                    Bottleneck(channels_in, width, first)
                    if depth == 50
                    else BasicBlock(channels_in, width, first)
                )
                self.stages.append(block)
                channels_in = EXPANSION * width if depth == 50 else width
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.fc = nn.Linear(channels_in, n_out)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def block_outputs(self, x_NCHW: Tensor) -> Iterator[Tensor]:
        """The output (N, C, h, w) of each block in turn: 15,104 channels in all with 50 layers,
        1,920 with 18."""
        x = self.stem(x_NCHW)
        for block in self.stages:
            x = block(x)
            yield x

    def last_output(self, x_NCHW: Tensor) -> Tensor:
        """What is pooled for the last layer: (N, 2048 or 512, H/32, W/32)."""
        return self.stages(self.stem(x_NCHW))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.fc(self.pool(self.last_output(x_NCHW)))


def from_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that are named as torchvision's ResNets, under the names used here; others as is.

    Also as in RadImageNet's files, where the children of torchvision's network are numbered in a
    ``backbone``.
    """
    blocks = sorted({tuple(map(int, m.groups())) for name in tensors if (m := _BLOCK.match(name))})
    number = {block: i for i, block in enumerate(blocks)}
    return {_ours(name, number): tensor for name, tensor in tensors.items()}


_BLOCK = re.compile(r"^(?:layer|backbone\.)(\d+)\.(\d+)\.")
_STEM = re.compile(r"^(?:(conv1|backbone\.0)|(bn1|backbone\.1))\.(\w+)$")


def _ours(name: str, number: Mapping[tuple[int, ...], int]) -> str:
    if stem := _STEM.match(name):
        return f"stem.{0 if stem[1] else 1}.{stem[3]}"
    if not (block := _BLOCK.match(name)):
        return name
    part = name[block.end() :]
    # conv1, bn1, relu, conv2, bn2, relu, conv3, bn3 are 0 to 7 in ``residual``.
    part = re.sub(r"^conv(\d)", lambda m: f"residual.{3 * int(m[1]) - 3}", part)
    part = re.sub(r"^bn(\d)", lambda m: f"residual.{3 * int(m[1]) - 2}", part)
    part = re.sub(r"^downsample", "shortcut", part)
    return f"stages.{number[int(block[1]), int(block[2])]}.{part}"


def _conv_bn(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(channels_out)
