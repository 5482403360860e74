"""ResNet-50 (He et al. 2016) in its usual form, with the stride on the 3x3 convolution."""

from __future__ import annotations

from torch import Tensor, nn

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided), 1x1 convolutions around a shortcut: (N, C, H, W) -> (N, 4w, H/s, W/s)."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = EXPANSION * width
        self.residual = nn.Sequential(
            *_conv_bn(channels_in, width, 1),
            nn.ReLU(inplace=True),
            *_conv_bn(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *_conv_bn(width, channels_out, 1),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut.extend(_conv_bn(channels_in, channels_out, 1, stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.relu(self.residual(x_NCHW) + self.shortcut(x_NCHW))


class ResNet50(nn.Module):
    """Logits (N, n_out) of images (N, channels, H, W), dropout before the last layer.

    25,557,032 parameters for three channels and 1,000 outputs. At 32 x 32 the last stage is one
    pixel, which its batch norm can use as long as a training batch has more than one image.
    """

    def __init__(self, channels: int, n_out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_conv_bn(channels, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        self.stages = nn.Sequential()
        channels_in = 64
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for i in range(blocks):
                self.stages.append(Bottleneck(channels_in, width, stride if i == 0 else 1))
                channels_in = EXPANSION * width
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.fc = nn.Linear(channels_in, n_out)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.fc(self.pool(self.stages(self.stem(x_NCHW))))


def _conv_bn(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(channels_out)
