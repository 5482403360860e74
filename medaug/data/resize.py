"""Bringing slices to one size: pad to a square, then average areas or interpolate.

Both are linear and separable, so each is one small matrix applied from the left and the right. No
library at hand averages areas exactly when the sizes are no multiples of each other.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def fit_images(x_nHW: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """(n, H, W) -> (n, size, size).

    Padded to a centred square with the smallest value (the background of every modality that
    medaug reads), then area-averaged when larger than ``size``, bilinear when smaller, and
    untouched when equal.
    """
    square = _pad_to_square(x_nHW, x_nHW.min(initial=np.inf))
    side = square.shape[-1]
    if side == size:
        return square
    weights = _area(side, size) if side > size else linear(side, size)
    return weights @ square @ weights.T


def fit_masks(mask_nHW: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(n, H, W) of 0 and 1 -> (n, size, size), as :func:`fit_images`: a pixel that averages an area
    is 1 where at least half of it is, a smaller one takes its nearest neighbour."""
    square = _pad_to_square(mask_nHW, 0)
    side = square.shape[-1]
    if side == size:
        return square
    if side < size:
        nearest = ((2 * np.arange(size) + 1) * side) // (2 * size)
        return square[:, nearest][:, :, nearest]
    weights = _area(side, size)
    # Half an area can come out as 0.49999997 in float32.
    return (weights @ square.astype(np.float32) @ weights.T >= 0.5 - 1e-6).astype(np.uint8)


def _pad_to_square(x: np.ndarray, value: float) -> np.ndarray:
    height, width = x.shape[1:]
    side = max(height, width)
    before = ((side - height) // 2, (side - width) // 2)
    pad = [(0, 0), (before[0], side - height - before[0]), (before[1], side - width - before[1])]
    return np.pad(x, pad, constant_values=value) if height != width else np.ascontiguousarray(x)


@lru_cache
def _area(n_in: int, n_out: int) -> NDArray[np.float32]:
    """(n_out, n_in): the share of each output pixel that each input pixel covers."""
    out, inp = np.arange(n_out)[:, None], np.arange(n_in)[None]
    # In units of 1 / (n_in * n_out) of the width, all edges are integers.
    start = np.maximum(out * n_in, inp * n_out)
    stop = np.minimum((out + 1) * n_in, (inp + 1) * n_out)
    return (np.maximum(stop - start, 0) / n_in).astype(np.float32)


@lru_cache
def linear(n_in: int, n_out: int) -> NDArray[np.float32]:
    """(n_out, n_in): linear interpolation between pixel centres, constant beyond the outermost."""
    at = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
    distance = np.abs(at[:, None] - np.arange(n_in)[None])
    return np.maximum(0, 1 - distance).astype(np.float32)
