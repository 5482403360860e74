"""Stored slices to what an image network expects: values in [0, 1], three channels, its side."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medaug.data.images import bits_used
from medaug.store import Store
from medaug.train.scaling import rows_per_read

Intensity = str | tuple[float, float]
"""``unit``, ``image`` or a window: see ``medaug.spec.encoder.ImageEncoderSpec.intensity``."""

ROUNDING = 1e-3
"""How far beyond [0, 1] a resized 8-bit image may come."""

LOW, HIGH = 0.005, 0.995
"""Percentiles of ``image``: as robust as usual for MR (Nyul & Udupa 1999 speak of .5 to 2 %)."""


def intensity_of(slices: Store, wanted: Intensity) -> Intensity:
    """``wanted``, or what ``auto`` is for these slices; all of them are read for it."""
    if wanted != "auto":
        return wanted
    if slices.schema.dtype == "uint8":
        return "unit"
    step, highest = rows_per_read(slices), 0.0
    for first in range(0, len(slices), step):
        x = slices.read(np.arange(first, min(first + step, len(slices)))).x
        low, high = (float(v) for v in torch.aminmax(x.float()))
        if low < -ROUNDING or high > 1 + ROUNDING:
            return "image"
        highest = max(highest, high)
    return depth_of(highest) or "unit"


def depth_of(highest: float) -> tuple[float, float] | None:
    """Black and white of pictures whose brightest pixel is ``highest``, where they are of fewer
    bits than the 16 of their files: without it they would be all but black."""
    pixel = round(highest * 0xFFFF)  # what area averages add to it is less than half a level
    bits = bits_used(pixel)
    return (0.0, (2**bits - 1) / 0xFFFF) if pixel > 0 and bits < 16 else None


def to_unit(x_NCHW: Tensor, intensity: Intensity) -> Tensor:
    """Float32 in [0, 1]; a constant image of intensity ``image`` becomes 0.

    Each image on its own: what an image becomes does not depend on those beside it, so an
    augmented or generated one becomes what a stored one would.
    """
    x = x_NCHW.float()
    if intensity == "unit":
        return (x / 255 if x_NCHW.dtype == torch.uint8 else x).clamp(0, 1)
    if intensity == "image":
        values = x.flatten(2).sort(-1).values
        n = values.shape[-1]
        low, high = (values[..., round(at * (n - 1))] for at in (LOW, HIGH))
        # So little of it is not background that both percentiles are: take its extremes.
        flat = high <= low
        low, high = (torch.where(flat, values[..., i], v) for i, v in ((0, low), (-1, high)))
        spread = torch.where(high > low, high - low, 1)
        return ((x - low[..., None, None]) / spread[..., None, None]).clamp(0, 1)
    assert isinstance(intensity, tuple | list), intensity
    bottom, top = intensity
    return ((x - bottom) / (top - bottom)).clamp(0, 1)


def three_channels(x_NCHW: Tensor) -> Tensor:
    """One channel three times, three as they are, any other number as three times their mean."""
    if x_NCHW.shape[1] == 3:
        return x_NCHW
    return x_NCHW.mean(1, keepdim=True).expand(-1, 3, -1, -1)


def resized(x_NCHW: Tensor, side: int) -> Tensor:
    """Images of ``side`` x ``side``: bilinear, with antialiasing where they become smaller."""
    if x_NCHW.shape[-2:] == (side, side):
        return x_NCHW
    return F.interpolate(x_NCHW, size=(side, side), mode="bilinear", antialias=True)
