"""The DCGANs of study B (head CT, 32 x 32) and study D (chest X-ray, 128 x 128).

Unconditional: a study trains one pair per class. Calls are those of the ACGAN pair, so one loop
trains both: generators take (and ignore) a label, discriminators give a ``DiscriminatorOut``.
Both end in tanh, so images are scaled to [-1, 1]; discriminators give logits, not probabilities.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from medaug.models.layers import (
    KERAS_EPS,
    KERAS_MOMENTUM,
    DiscriminatorOut,
    Dropout,
    PartedBatchNorm2d,
    PartedSequential,
    init_dcgan,
    init_keras,
)
from medaug.models.products import Conv2d, ConvTranspose2d


class Dcgan32Generator(nn.Module):
    """Study B's generator (N, nz) -> (N, C, S, S): 4,870,785 parameters by default.

    The paper's layer list with its last 128-filter convolution read as the one-filter output; of
    all such readings with 100 latent entries only this one has the published count (NETWORKS 2).

    Raises:
        ValueError: a size that is odd.
    """

    def __init__(self, channels: int = 1, size: int = 32, width: int = 128, nz: int = 100) -> None:
        super().__init__()
        _check_size(size, 8)
        self.nz = nz
        start = size // 2
        self.fc = nn.Sequential(
            nn.Linear(nz, width * start * start),
            nn.BatchNorm1d(width * start * start, KERAS_EPS, KERAS_MOMENTUM),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Unflatten(1, (width, start, start)),
        )
        self.layers = nn.Sequential(
            Conv2d(width, width, 5, padding=2),
            *_keras_bn_leaky(width),
            ConvTranspose2d(width, width, 4, 2, 1),
            *_keras_bn_leaky(width),
            Conv2d(width, width, 5, padding=2),
            *_keras_bn_leaky(width),
            Conv2d(width, width, 5, padding=2),
            *_keras_bn_leaky(width),
            Conv2d(width, channels, 5, padding=2),
            nn.Tanh(),
        )
        init_keras(self)

    def forward(self, z_Nnz: Tensor, label_N: Tensor | None = None) -> Tensor:
        return self.layers(self.fc(z_Nnz))


class Dcgan32Discriminator(nn.Module):
    """Study B's discriminator: 791,169 parameters by default.

    The text says 3x3, stride 1 everywhere, which has 576,129; the published count belongs to its
    ancestor (Chollet's CIFAR GAN): one 3x3 convolution, then three 4x4 with stride 2.
    """

    def __init__(
        self, channels: int = 1, size: int = 32, width: int = 128, dropout: float = 0.4
    ) -> None:
        super().__init__()
        _check_size(size, 8)
        self.trunk = PartedSequential(
            Conv2d(channels, width, 3, padding=1), *_keras_bn_leaky(width)
        )
        for _ in range(3):
            self.trunk.extend((Conv2d(width, width, 4, 2, 1), *_keras_bn_leaky(width)))
        self.dropout = Dropout(dropout)
        self.adv = nn.Linear(width * (size // 8) ** 2, 1)
        init_keras(self)

    def forward(
        self, x_NCHW: Tensor, label_N: Tensor | None = None, parts: int = 1
    ) -> DiscriminatorOut:
        """Logits (N,); ``parts``: see :class:`PartedBatchNorm2d`."""
        h = self.dropout(self.trunk(x_NCHW, parts).flatten(1))
        return DiscriminatorOut(self.adv(h).squeeze(1))


class Dcgan128Generator(nn.Module):
    """Study D's generator (N, nz) -> (N, C, S, S): 8x8x1024 doubled four times at S = 128.

    Kernel size and channels are not stated: kernel 5 with RGB (the default) has 23,835,779
    parameters, kernel 4 has 17,639,171. ``width`` is the discriminator's first; the generator
    begins with 16 times as many channels.
    """

    def __init__(
        self, channels: int = 3, size: int = 128, width: int = 64, kernel: int = 5, nz: int = 100
    ) -> None:
        super().__init__()
        _check_size(size, 32)
        _check_kernel(kernel)
        self.nz = nz
        widths = [width * 16, width * 8, width * 4, width * 2]
        self.fc = nn.Sequential(
            nn.Linear(nz, widths[0] * (size // 16) ** 2),
            nn.Unflatten(1, (widths[0], size // 16, size // 16)),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.layers = nn.Sequential()
        for w, w_next in pairwise(widths):
            self.layers.append(_double(w, w_next, kernel, bias=False))
            self.layers.extend((nn.BatchNorm2d(w_next), nn.ReLU(inplace=True)))
        self.layers.extend((_double(widths[-1], channels, kernel, bias=True), nn.Tanh()))
        init_dcgan(self)

    def forward(self, z_Nnz: Tensor, label_N: Tensor | None = None) -> Tensor:
        return self.layers(self.fc(z_Nnz))


class Dcgan128Discriminator(nn.Module):
    """Study D's discriminator: five strided convolutions, 128 -> 4, then a linear layer.

    17,433,089 parameters with kernel 5, 11,164,481 with kernel 4.
    """

    def __init__(
        self, channels: int = 3, size: int = 128, width: int = 64, kernel: int = 5
    ) -> None:
        super().__init__()
        _check_size(size, 32)
        _check_kernel(kernel)
        self.trunk = PartedSequential()
        widths = [channels, width, width * 2, width * 4, width * 8, width * 16]
        for i, (w, w_next) in enumerate(pairwise(widths)):
            padding = (kernel - 1) // 2
            self.trunk.append(Conv2d(w, w_next, kernel, 2, padding, bias=i == 0))
            if i > 0:
                self.trunk.append(PartedBatchNorm2d(w_next))
            self.trunk.append(nn.LeakyReLU(0.2, inplace=True))
        self.adv = nn.Linear(widths[-1] * (size // 32) ** 2, 1)
        init_dcgan(self)

    def forward(
        self, x_NCHW: Tensor, label_N: Tensor | None = None, parts: int = 1
    ) -> DiscriminatorOut:
        """Logits (N,); ``parts``: see :class:`PartedBatchNorm2d`."""
        return DiscriminatorOut(self.adv(self.trunk(x_NCHW, parts).flatten(1)).squeeze(1))


DCGANS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "dcgan32": (Dcgan32Generator, Dcgan32Discriminator),
    "dcgan128": (Dcgan128Generator, Dcgan128Discriminator),
}
"""Name -> (generator, discriminator); each takes ``channels``, ``size`` and ``width``."""


def _keras_bn_leaky(width: int) -> tuple[nn.Module, nn.Module]:
    norm = PartedBatchNorm2d(width, eps=KERAS_EPS, momentum=KERAS_MOMENTUM)
    return norm, nn.LeakyReLU(0.01, inplace=True)


def _double(channels_in: int, channels_out: int, kernel: int, bias: bool) -> ConvTranspose2d:
    """Twice the size: kernel 5 needs one row of output padding, kernel 4 none."""
    padding, extra = (kernel - 1) // 2, kernel % 2
    return ConvTranspose2d(channels_in, channels_out, kernel, 2, padding, extra, bias=bias)


def _check_size(size: int, multiple: int) -> None:
    if size < multiple or size % multiple:
        raise ValueError(f"data.image_size: {size} is not a multiple of {multiple}; resize to one")


def _check_kernel(kernel: int) -> None:
    if kernel not in (4, 5):
        raise ValueError(f"dcgan.kernel: {kernel}; the study's counts are for 4 and 5")
