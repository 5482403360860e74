"""EfficientNet-Lite0: EfficientNet-B0 (Tan & Le 2019) without squeeze-and-excitation, with ReLU6.

Written for the published ImageNet weights (tensorflow/tpu, efficientnet/lite, as carried over to
PyTorch by the package ``efficientnet-lite-pytorch``), so padding is TensorFlow's ``SAME`` and batch
norm has its epsilon of .001.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

BN_EPS, BN_MOMENTUM = 1e-3, 0.01
STEM, HEAD = 32, 1280
STAGES = (
    # blocks, kernel, stride of the first, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow does: output side = ceil(side / stride).

    An odd pixel of padding goes to the right and the bottom, where PyTorch would pad both sides.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        same = 0 if stride > 1 else kernel // 2
        super().__init__(channels_in, channels_out, kernel, stride, same, 1, groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        if self.stride[0] > 1:
            (left, right), (top, bottom) = (self._missing(side) for side in input.shape[:1:-1])
            input = F.pad(input, (left, right, top, bottom))
        return super().forward(input)

    def _missing(self, side: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        return total // 2, total - total // 2


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection (Sandler et al. 2018):
    (N, C, H, W) -> (N, channels_out, H/s, W/s), plus its input where the two are of one shape."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        width = expansion * channels_in
        self.expand = nn.Sequential()
        if expansion > 1:
            self.expand = _conv_bn(channels_in, width, 1, relu=True)
        self.depthwise = _conv_bn(width, width, kernel, stride, groups=width, relu=True)
        self.project = _conv_bn(width, channels_out, 1)
        self.has_skip = stride == 1 and channels_in == channels_out

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x_NCHW)))
        return x_NCHW + y if self.has_skip else y


class EfficientNetLite0(nn.Module):
    """Logits (N, n_out) of images (N, 3, H, W), dropout before the last layer.

    4,652,008 parameters for 1,000 outputs. Any side from 32 on; trained at 224.
    """

    def __init__(self, n_out: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = _conv_bn(3, STEM, 3, 2, relu=True)
        self.blocks = nn.ModuleList()
        channels = STEM
        for n_blocks, kernel, stride, expansion, width in STAGES:
            for i in range(n_blocks):
                first = stride if i == 0 else 1
                self.blocks.append(InvertedBottleneck(channels, width, kernel, first, expansion))
                channels = width
        self.head = _conv_bn(channels, HEAD, 1, relu=True)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.fc = nn.Linear(HEAD, n_out)

    def block_outputs(self, x_NCHW: Tensor) -> Iterator[Tensor]:
        """The output (N, C, h, w) of each of the 16 blocks in turn: 1,808 channels in all."""
        x = self.stem(x_NCHW)
        for block in self.blocks:
            x = block(x)
            yield x

    def last_output(self, x_NCHW: Tensor) -> Tensor:
        """What is pooled for the last layer: (N, 1280, H/32, W/32)."""
        for x in self.block_outputs(x_NCHW):
            last = x
        return self.head(last)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.fc(self.pool(self.last_output(x_NCHW)))


_PUBLISHED_NAMES = (
    (r"^_conv_stem\.", "stem.0."),
    (r"^_bn0\.", "stem.1."),
    (r"^_conv_head\.", "head.0."),
    (r"^_bn1\.", "head.1."),
    (r"^_fc\.", "fc."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.0."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.1."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.0."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.1."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.0."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.1."),
)


def from_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``efficientnet-lite-pytorch`` under the names used here."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, ours in _PUBLISHED_NAMES:
            name = re.sub(pattern, ours, name)
        renamed[name] = tensor
    return renamed


def _conv_bn(
    channels_in: int,
    channels_out: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    relu: bool = False,
) -> nn.Sequential:
    conv = SameConv2d(channels_in, channels_out, kernel, stride, groups)
    norm = nn.BatchNorm2d(channels_out, BN_EPS, BN_MOMENTUM)
    return nn.Sequential(conv, norm, *([nn.ReLU6(inplace=True)] if relu else []))
