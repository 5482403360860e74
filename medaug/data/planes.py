"""In which plane a volume is cut into slices, and pixels that are not square.

Slices are axial. Of a volume whose slices lie sagittally or coronally and far apart, an axial cut
would be a few wide stripes: there the slices as they were acquired are taken. Pixels that are not
square are resampled to their smaller side, so that a circle is one in every row of a store.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medaug.data.resize import linear

SQUARE = 1.05
"""One side of a pixel this many times the other is resampled."""
FAR_APART = 1.5
"""Slices this many times farther apart than the pixels of an axial cut are high or wide."""
_NEARLY = 0.9
LEFT, POSTERIOR, SUPERIOR = 0, 1, 2
NAMES = {LEFT: "sagittal", POSTERIOR: "coronal", SUPERIOR: "axial"}


def plane_of(spacing_mm: Sequence[float]) -> int:
    """The axis along which a volume is cut, from its spacing along Left, Posterior and Superior."""
    left, posterior, superior = spacing_mm
    farthest = max(left, posterior)
    if farthest <= FAR_APART * min(left, posterior) or superior >= _NEARLY * farthest:
        return SUPERIOR
    return LEFT if left > posterior else POSTERIOR


def slices_of_plane(array_XYZ: NDArray[np.generic], plane: int) -> NDArray[np.generic]:
    """(X, Y, Z) to Left, Posterior and Superior -> (n, H, W) as a radiologist sees them: rows run
    to Posterior in axial slices and to Inferior in the others, columns to Left, or to Posterior in
    sagittal ones."""
    if plane == SUPERIOR:
        return array_XYZ.transpose(2, 1, 0)
    return array_XYZ.transpose((plane, 2, 1 - plane))[:, ::-1]


def pixel_mm(spacing_mm: Sequence[float], plane: int) -> tuple[float, float]:
    """Distance of two rows and of two columns."""
    left, posterior, superior = spacing_mm
    return {
        SUPERIOR: (posterior, left),
        LEFT: (superior, posterior),
        POSTERIOR: (superior, left),
    }[plane]


def is_square(spacing_mm: Sequence[float]) -> bool:
    """Whether the pixels of the slices that are taken are square, or nearly so."""
    pixel = pixel_mm(spacing_mm, plane_of(spacing_mm))
    return max(pixel) <= SQUARE * min(pixel)


def plane_notes(spacing_mm: Sequence[float]) -> tuple[str, ...]:
    """What is done to a volume, in words that fit many."""
    plane = plane_of(spacing_mm)
    notes = []
    if plane != SUPERIOR:
        notes.append(f"slices are {NAMES[plane]} and far apart: taken as they are, not axial ones")
    if not is_square(spacing_mm):
        notes.append("pixels are not square: resampled to their smaller side")
    return tuple(notes)


def squared(x_nHW: NDArray[np.float32], pixel: Sequence[float]) -> NDArray[np.float32]:
    """(n, H, W) -> (n, H', W') with square pixels, by linear interpolation of the coarser side."""
    height, width = _sides(x_nHW.shape, pixel)
    if height != x_nHW.shape[1]:
        return linear(x_nHW.shape[1], height) @ x_nHW
    if width != x_nHW.shape[2]:
        return x_nHW @ linear(x_nHW.shape[2], width).T
    return x_nHW


def squared_mask(mask_nHW: NDArray[np.uint8], pixel: Sequence[float]) -> NDArray[np.uint8]:
    """As :func:`squared`, by the nearest pixel."""
    height, width = _sides(mask_nHW.shape, pixel)
    rows, columns = _nearest(mask_nHW.shape[1], height), _nearest(mask_nHW.shape[2], width)
    return mask_nHW[:, rows][:, :, columns]


def _sides(shape: Sequence[int], pixel: Sequence[float]) -> tuple[int, int]:
    row_mm, column_mm = pixel
    fine = min(pixel)
    if max(pixel) <= SQUARE * fine:
        return shape[1], shape[2]
    return round(shape[1] * row_mm / fine), round(shape[2] * column_mm / fine)


def _nearest(n_in: int, n_out: int) -> NDArray[np.intp]:
    return ((2 * np.arange(n_out) + 1) * n_in) // (2 * n_out)
