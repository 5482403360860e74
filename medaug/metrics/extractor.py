"""A fixed feature extractor for images, for distances between real and synthetic ones.

A convolutional network with fixed random weights: far from natural images, where no trained
extractor is at home, random ones are the fairer measure (Naeem et al. 2020, section 5), and need no
download. It is a weak one, so a Fréchet distance on it is worth nothing without its real-versus-
real value, and nothing at all beside a distance on another extractor.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from medaug.seeding import generator

IMAGE_EXTRACTOR = "random-modulus-512"
"""Name of :func:`image_features`; another name whenever the numbers change."""

SIDE, GRID = 64, 2
WIDTHS = (32, 64, 128, 128)


@torch.inference_mode()
def image_features(x_NCHW: torch.Tensor | np.ndarray) -> np.ndarray:
    """Float32 (N, 512) of images of any size and channels.

    Resized to 64 x 64, four times convolved (3 x 3, stride 2) with the modulus taken, averaged over
    each quadrant. The modulus (as in scattering networks, Mallat 2012) and not a ReLU: no feature
    can be dead in the training rows and alive in others, which standardising would blow up. Without
    biases: scaling the intensities scales the features, which standardising undoes.
    """
    x = torch.as_tensor(x_NCHW).float()
    x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    for weight in _weights(x.shape[1]):
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight.to(x.device), stride=2).abs()
    return F.adaptive_avg_pool2d(x, GRID).flatten(1).cpu().numpy()


@cache
def _weights(channels: int) -> tuple[torch.Tensor, ...]:
    """Normal, of such variance that activations keep their size from layer to layer."""
    weights = []
    for layer, width in enumerate(WIDTHS):
        normal = torch.randn(width, channels, 3, 3, generator=generator("extractor", layer))
        weights.append(normal / (9 * channels) ** 0.5)
        channels = width
    return tuple(weights)
