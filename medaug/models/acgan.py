"""The ACGAN of study A for features or images of any size (NETWORKS 1.2).

Odena et al. 2017, in the form of gitlimlab/ACGAN-PyTorch with the study's changes: a block C x S
x S is grown from 1 x 1, the discriminator mirrors that. Both follow one rule, which gives the
published geometry at S = 15, 30, 60 and 120 and extends it to every S >= 4: S is halved, rounding
up, until it is below 8 (15 -> 8 -> 4).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from medaug.models.layers import (
    DiscriminatorOut,
    Dropout,
    OutAct,
    PartedBatchNorm2d,
    PartedSequential,
    conditioned,
    init_dcgan,
    out_activation,
)
from medaug.models.products import Conv2d, ConvTranspose2d
from medaug.models.spectral import spectrally_normalise

WidthRule = Literal["flat", "pyramid"]
Conditioning = Literal["ac", "adc", "proj"]
MAX_WIDTH = 1024
SLOPE = 0.2


def sizes(size: int, geometry: Literal["paper", "k3p0"] = "paper") -> list[int]:
    """Widths in pixels that the generator passes through after 1 x 1, for example [4, 8, 15].

    ``k3p0`` reaches the odd part of S by kernel 3, stride 2, no padding: [3, 7, 15].

    Raises:
        ValueError: S below 4, or one that ``k3p0`` cannot reach.
    """
    if size < 4:
        raise ValueError(f"ACGAN blocks are at least 4x4, not {size}x{size}; use wgan_gp or flow")
    if geometry not in ("paper", "k3p0"):
        raise ValueError(f"acgan.geometry: unknown '{geometry}'; use paper or k3p0")
    path = [size]
    if geometry == "paper":
        while path[0] >= 8:
            path.insert(0, (path[0] + 1) // 2)
        return path
    while path[0] > 3:
        path.insert(0, path[0] // 2)
    if path[0] != 3:
        raise ValueError(f"acgan.geometry: k3p0 cannot grow {size}x{size}; use paper")
    return path


def widths(width: int, count: int, rule: WidthRule) -> list[int]:
    """Channels of ``count`` hidden layers, narrowest first: all equal, or doubling up to 1024.

    ``flat`` is the literal reading of the paper's "number of channels in the hidden layers".
    """
    if rule not in ("flat", "pyramid"):
        raise ValueError(f"acgan.width_rule: unknown '{rule}'; use flat or pyramid")
    growth = 2 if rule == "pyramid" else 1
    return [min(width * growth**i, max(MAX_WIDTH, width)) for i in range(count)]


class AcganGenerator(nn.Module):
    """Latent (N, nz) and label (N,) to (N, C, S, S).

    A linear layer, then transposed convolutions, each but the last with batch norm and LeakyReLU
    (.2); no biases but the linear layer's.

    Args:
        shape: (C, S, S) of what is generated.
        n_classes: the latent's first ``n_classes`` entries are overwritten by the label's one-hot.
        ngf: hidden width (``flat``), or the width of the last hidden layer (``pyramid``).
        nz: length of the latent, class and codes included.
        out_act: ``tanh`` as in the reference code, ``relu`` or ``linear``. The features' scaling
            has to match: post-ReLU features are >= 0 and unbounded.
        n_codes: InfoGAN codes; they are the latent's entries after the class (``codes_of``), so
            here they only have to fit.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        n_classes: int,
        ngf: int,
        nz: int = 110,
        width_rule: WidthRule = "flat",
        out_act: OutAct = "tanh",
        geometry: Literal["paper", "k3p0"] = "paper",
        n_codes: int = 0,
    ) -> None:
        super().__init__()
        channels, size = _channels_and_size(shape)
        if nz < n_classes + n_codes:
            raise ValueError(f"acgan.nz: {nz} < {n_classes} classes + {n_codes} codes; raise nz")
        self.n_classes = n_classes
        self.nz = nz
        path = [1, *sizes(size, geometry)]
        width = [*reversed(widths(ngf, len(path) - 1, width_rule)), channels]
        self.fc = nn.Linear(nz, width[0])
        self.layers = nn.Sequential()
        for (n, n_next), (w, w_next) in zip(pairwise(path), pairwise(width), strict=True):
            self.layers.append(_up(w, w_next, n, n_next))
            if n_next != size:
                self.layers.extend((nn.BatchNorm2d(w_next), nn.LeakyReLU(SLOPE, inplace=True)))
        self.layers.append(out_activation(out_act))
        init_dcgan(self)

    def forward(self, z_Nnz: Tensor, label_N: Tensor) -> Tensor:
        h = self.fc(conditioned(z_Nnz, label_N, self.n_classes))
        return self.layers(h[:, :, None, None])


class AcganDiscriminator(nn.Module):
    """Rows (N, C, S, S) to logits: real or fake, class, InfoGAN codes.

    Convolutions 3x3, LeakyReLU (.2), batch norm from the second on, dropout after each, then
    linear heads on the flattened map. No sigmoid or softmax: losses take logits.

    Args:
        shape: (C, S, S) of the rows.
        n_classes: number of classes K.
        ndf: hidden width (``flat``), or the width of the first layer (``pyramid``).
        norm: ``bn`` as published; ``sn``, spectral norm on every weight (stable, and its answer
            does not depend on train or eval mode); ``none``. Without batch norm the convolutions
            have biases.
        dropout: probability after every convolution; .5 as published.
        cond: ``ac``, a K-way class head; ``adc``, a 2K-way head telling real from fake within each
            class (ADC-GAN, Hou et al. 2022); ``proj``, no class head, the label enters by an
            inner product with the features (Miyato and Koyama 2018).
        n_codes: InfoGAN codes to recover (Chen et al. 2016); 0 for no Q head.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        n_classes: int,
        ndf: int,
        width_rule: WidthRule = "flat",
        norm: Literal["bn", "sn", "none"] = "bn",
        dropout: float = 0.5,
        cond: Conditioning = "ac",
        n_codes: int = 0,
    ) -> None:
        super().__init__()
        channels, size = _channels_and_size(shape)
        if norm not in ("bn", "sn", "none"):
            raise ValueError(f"acgan.d_norm: unknown '{norm}'; use bn, sn or none")
        if cond not in ("ac", "adc", "proj"):
            raise ValueError(f"acgan.cond: unknown '{cond}'; use ac, adc or proj")
        self.cond = cond
        path = sizes(size)
        strides = _strides(len(path) - 1)
        width = [channels, *widths(ndf, len(strides), width_rule)]
        self.trunk = PartedSequential()
        for i, stride in enumerate(strides):
            w, w_next = width[i], width[i + 1]
            self.trunk.append(Conv2d(w, w_next, 3, stride, 1, bias=norm != "bn"))
            if norm == "bn" and i > 0:
                self.trunk.append(PartedBatchNorm2d(w_next))
            self.trunk.append(nn.LeakyReLU(SLOPE, inplace=True))
            if dropout:
                self.trunk.append(Dropout(dropout))
        flat = width[-1] * path[0] ** 2
        self.adv = nn.Linear(flat, 1)
        n_cls = {"ac": n_classes, "adc": 2 * n_classes, "proj": 0}[cond]
        self.cls = nn.Linear(flat, n_cls) if n_cls else None
        self.embed = nn.Embedding(n_classes, flat) if cond == "proj" else None
        self.codes = nn.Linear(flat, n_codes) if n_codes else None
        init_dcgan(self)
        if norm == "sn":
            spectrally_normalise(self)

    def forward(
        self, x_NCHW: Tensor, label_N: Tensor | None = None, parts: int = 1
    ) -> DiscriminatorOut:
        """Logits; ``label_N`` is read by ``proj`` only.

        ``parts``: the batch is this many equal batches laid end to end (real, then fake), each
        seen by batch norm alone, so that one pass equals separate ones.
        """
        h = self.trunk(x_NCHW, parts).flatten(1)
        adv = self.adv(h).squeeze(1)
        if self.embed is not None:
            if label_N is None:
                raise ValueError("acgan.cond: a projection discriminator needs labels")
            adv = adv + (self.embed(label_N) * h).sum(1)
        return DiscriminatorOut(
            adv,
            self.cls(h) if self.cls is not None else None,
            self.codes(h) if self.codes is not None else None,
        )

    def class_logits(self, out: DiscriminatorOut) -> Tensor:
        """(N, K) logits of the class alone, for filtering samples by predicted class.

        For ``adc`` 'real of k' and 'fake of k' are summed: softmax of the result is p(k | x).

        Raises:
            ValueError: a projection discriminator has no class head.
        """
        if out.cls is None:
            raise ValueError("acgan.filter: cond proj has no class head; use filter none")
        if self.cond == "adc":
            return torch.logsumexp(out.cls.unflatten(1, (2, -1)), dim=1)
        return out.cls


def _up(channels_in: int, channels_out: int, size: int, size_out: int) -> ConvTranspose2d:
    """The transposed convolution, without bias, that takes ``size`` to ``size_out``."""
    if size == 1:
        return ConvTranspose2d(channels_in, channels_out, size_out, bias=False)
    kernel, padding = {2 * size - 1: (3, 1), 2 * size: (4, 1), 2 * size + 1: (3, 0)}[size_out]
    return ConvTranspose2d(channels_in, channels_out, kernel, 2, padding, bias=False)


def _strides(halvings: int) -> list[int]:
    """Halve at every step, with one convolution at 8 x 8 before the last: 2, 1, 2 from 15."""
    return [2] * (halvings - 1) + [1, 2] if halvings else [1]


def _channels_and_size(shape: tuple[int, int, int]) -> tuple[int, int]:
    channels, height, width = shape
    if height != width:
        raise ValueError(f"ACGAN blocks are square, not {height}x{width}; crop or pad")
    return channels, height
