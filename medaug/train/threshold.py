"""From which probability on a row is called positive."""

from __future__ import annotations

import numpy as np


def best_threshold(
    probability: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None
) -> float:
    """The threshold of (n,) probabilities with the highest balanced accuracy on labels 0, 1.

    It lies midway between two neighbouring probabilities; of equally good ones the nearest to
    0.5, which it also is when a class is missing. Rows weigh ``weight`` (n,), by default alike.
    """
    values, index = np.unique(probability, return_inverse=True)
    weight = np.ones(len(label)) if weight is None else weight
    positives = np.bincount(index, weight * (label == 1), minlength=len(values))
    negatives = np.bincount(index, weight * (label == 0), minlength=len(values))
    if not (positives.any() and negatives.any()) or len(values) < 2:
        return 0.5
    # Between values i and i + 1: all up to i are called negative.
    specificity = negatives.cumsum() / negatives.sum()
    sensitivity = 1 - positives.cumsum() / positives.sum()
    middle = (values[:-1] + values[1:]) / 2
    score = np.round((specificity + sensitivity)[:-1], 12)
    good = middle[score == score.max()] if score.max() > 1 else np.array([0.5])
    return float(good[np.abs(good - 0.5).argmin()])
