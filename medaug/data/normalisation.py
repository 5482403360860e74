"""What raw intensities are normalised with: the moments of a fold's training patients."""

from __future__ import annotations

import math

import numpy as np

from medaug.store import Store

Normalisation = tuple[float, float] | tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of raw intensities; of several channels, one of each."""


def normalisation(store: Store, fold: int) -> Normalisation:
    """Mean and standard deviation of all pixels of the fold's training patients, background
    included, float64 exact, of each channel: what slices are normalised with before they meet a
    network."""
    units = store.manifest["splits"]["folds"][fold]["train"]
    moments = store.manifest["extra"]["moments"]
    sums = np.sum([np.reshape(moments[unit], (-1, 3)) for unit in units], axis=0)
    pairs = []
    for count, total, squares in sums.tolist():
        mean = total / count
        pairs.append((mean, math.sqrt(squares / count - mean * mean)))
    if len(pairs) == 1:
        return pairs[0]
    means, deviations = zip(*pairs, strict=True)
    return means, deviations
