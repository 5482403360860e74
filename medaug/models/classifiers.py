"""Classifiers of the four studies, which map (N, C, H, W) to logits, and one for any rows.

``CLASSIFIERS[name](shape, n_out, dropout)`` builds one; ``class_logits`` brings its output to
(N, n_out) whatever the network, so that losses and metrics need not know which one it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medaug.models.layers import KERAS_EPS, KERAS_MOMENTUM, init_keras
from medaug.models.resnet import ResNet
from medaug.spec.plugins import CLASSIFIERS as GROUP
from medaug.spec.plugins import Extended

Shape = tuple[int, ...]
Builder = Callable[[Shape, int, float], nn.Module]
"""Of the shape of a row, the number of outputs and the dropout rate."""

HIDDEN = 128


def class_logits(logits: Tensor) -> Tensor:
    """Logits (N, K) of K >= 2 classes; a single logit l becomes (0, l).

    Softmax and cross-entropy of (0, l) are the sigmoid and binary cross-entropy of l.
    """
    if logits.shape[1] == 1:
        return torch.cat((torch.zeros_like(logits), logits), dim=1)
    return logits


def feature_cnn(shape: Shape, n_out: int = 2, dropout: float = 0.5) -> nn.Sequential:
    """Study A's classifier: two convolutions with batch norm, two linear layers; one logit if
    ``n_out`` is 2, else ``n_out``.

    Widths, kernels and pooling are our choice (the paper is silent, NETWORKS 1.3). The adaptive
    pooling changes nothing at 15 x 15 and keeps the linear layers the same for larger blocks.
    """
    channels, *size = shape
    _check_size("feature_cnn", size, 4)
    return nn.Sequential(
        nn.Conv2d(channels, 128, 3, padding=1),
        nn.BatchNorm2d(128),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(128, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.AdaptiveMaxPool2d(3),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(64 * 9, 64),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(64, 1 if n_out == 2 else n_out),
    )


def linear(shape: Shape, n_out: int = 2, dropout: float = 0.5) -> nn.Sequential:
    """Linear probe on the spatial mean of the features (study A's "linear classifier on
    downsampled features")."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(shape[0], n_out)
    )


def resnet50(shape: Shape, n_out: int = 2, dropout: float = 0.4) -> ResNet:
    """Study B's classifier (He et al. 2016), dropout before the last layer."""
    return ResNet(50, shape[0], n_out, dropout)


def cnn12(shape: Shape, n_out: int = 2, dropout: float = 0.5) -> nn.Sequential:
    """Study C's 12-layer network (Namozov and Cho 2018): 8,685,283 parameters for 1 x 32 x 32 and
    three outputs. Padding 1, ReLU and the dropout rate are our choice (NETWORKS 3)."""
    channels, *size = shape
    _check_size("cnn12", size, 8)
    height, width = size
    net = nn.Sequential(
        *_two_convolutions(channels, 32),
        *_two_convolutions(32, 64),
        *_two_convolutions(64, 128),
        nn.Flatten(),
        nn.Linear(128 * (height // 8) * (width // 8), 2048),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(2048, 2048),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(2048, n_out),
    )
    init_keras(net)
    return net


def separable_cnn(shape: Shape, n_out: int = 2, dropout: float = 0.5) -> nn.Sequential:
    """Study D's separable CNN: 6,640,226 parameters for 3 x 224 x 224 (NETWORKS 4).

    ``dropout`` .5 gives the published rates (.2 twice in the blocks, then .7, .5 and .3); another
    value scales all five.

    Raises:
        ValueError: an image below 32 pixels, or a dropout that would reach 1.
    """
    channels, *size = shape
    _check_size("separable_cnn", size, 32)
    if dropout > 0.7:
        raise ValueError(f"classifier.dropout: {dropout} scales a rate of .7 to 1; use <= 0.7")
    height, width = size
    net = nn.Sequential(
        *_two_convolutions(channels, 16),
        *_separable_block(16, 32),
        *_separable_block(32, 64),
        *_separable_block(64, 128),
        nn.Dropout(0.4 * dropout),
        *_separable_block(128, 256),
        nn.Dropout(0.4 * dropout),
        nn.Flatten(),
        *_dense_block(256 * (height // 32) * (width // 32), 512, 1.4 * dropout),
        *_dense_block(512, 128, dropout),
        *_dense_block(128, 64, 0.6 * dropout),
        nn.Linear(64, n_out),
    )
    init_keras(net)
    return net


def mlp(shape: Shape, n_out: int = 2, dropout: float = 0.5) -> nn.Sequential:
    """Two hidden layers on flat rows: the smallest network that is no linear model."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), HIDDEN),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(HIDDEN, n_out),
    )


_OWN: Mapping[str, Builder] = {
    "feature_cnn": feature_cnn,
    "linear": linear,
    "resnet50": resnet50,
    "cnn12": cnn12,
    "separable_cnn": separable_cnn,
    "mlp": mlp,
}


def _builder(kind: str, found: Any) -> Builder:
    """Of another package."""
    if not callable(found):
        raise TypeError("wants a function of shape, n_out and dropout")
    build: Builder = found
    return build


CLASSIFIERS: Mapping[str, Builder] = Extended(_OWN, GROUP, _builder)
"""Kind -> function that builds it, those of installed packages included."""


def _two_convolutions(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    ]


def _separable_block(channels_in: int, channels_out: int) -> list[nn.Module]:
    """Two separable convolutions (as Keras: no activation between depth and point), BN, pool."""
    layers: list[nn.Module] = []
    for w in (channels_in, channels_out):
        layers += [
            nn.Conv2d(w, w, 3, padding=1, groups=w, bias=False),
            nn.Conv2d(w, channels_out, 1),
            nn.ReLU(inplace=True),
        ]
    return [*layers, nn.BatchNorm2d(channels_out, KERAS_EPS, KERAS_MOMENTUM), nn.MaxPool2d(2)]


def _dense_block(n_in: int, n_out: int, dropout: float) -> list[nn.Module]:
    return [
        nn.Linear(n_in, n_out),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(n_out, KERAS_EPS, KERAS_MOMENTUM),
        nn.Dropout(dropout),
    ]


def _check_size(kind: str, size: list[int], least: int) -> None:
    if min(size) < least:
        raise ValueError(
            f"classifier.kind: {kind} wants at least {least}x{least}, not {size[0]}x{size[1]};"
            " use linear or larger images"
        )
