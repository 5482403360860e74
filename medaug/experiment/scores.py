"""The scores of one classifier on the held-out rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medaug.metrics.classification import classification_scores
from medaug.metrics.classification import predict as predicted_class


def scores_of(
    label: np.ndarray, probability: np.ndarray, threshold: float, classes: Sequence[str]
) -> dict[str, float]:
    """All classification scores that are defined, recalls by class name."""
    predicted = predicted_class(probability, threshold)
    scores = classification_scores(label, probability, predicted, len(classes))
    names = {f"recall_class{k}": f"recall/{name}" for k, name in enumerate(classes)}
    return {names.get(key, key): value for key, value in scores.items() if math.isfinite(value)}
