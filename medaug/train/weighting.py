"""What is done about classes of unequal size: weights in the loss, or an adjustment afterwards.

Both are pure functions of the labels of the rows that are trained on, an arm's among them. A gain
of synthetic rows that balance the classes is one only over these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medaug.errors import UserError
from medaug.spec.classifier import Weighting


def class_counts(label: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """(K,) int64 rows of each class.

    Raises:
        UserError: a class without rows: what has never been seen cannot be told.
    """
    counts = np.bincount(label, minlength=len(classes))
    if (missing := np.flatnonzero(counts == 0)).size:
        raise UserError(
            f"classifier: no training row of class {classes[missing[0]]} among {len(label)}; give "
            "more rows (sweep.train_rows, split.folds) or leave the class out of data.classes"
        )
    return counts


def class_weights(counts: np.ndarray) -> np.ndarray:
    """(K,) float64 weights n / (K n_k): classes count alike, rows average 1."""
    return counts.sum() / (len(counts) * counts)


def logit_shift(counts: np.ndarray, weighting: Weighting, tau: float = 1.0) -> np.ndarray:
    """(K,) float64 that is added to the logits of a trained classifier.

    ``logit_adjust``: -tau log of the classes' shares (Menon et al. 2021, eq. 9, post hoc), so that
    at tau 1 the probabilities are those under classes of equal size; otherwise zeros.
    """
    if weighting != "logit_adjust":
        return np.zeros(len(counts))
    return -tau * np.log(counts / counts.sum())


def patient_weights(patient: np.ndarray) -> np.ndarray:
    """(n,) float64: every patient's rows weigh 1 together."""
    _, index, rows = np.unique(patient, return_inverse=True, return_counts=True)
    return 1.0 / rows[index]


def patient_means(values: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """(patients,) means of ``values`` (n,) over each patient's rows, patients in order."""
    _, index, rows = np.unique(patient, return_inverse=True, return_counts=True)
    return np.bincount(index, values) / rows


def equal_classes(label: np.ndarray, weight: np.ndarray, n_classes: int) -> np.ndarray:
    """``weight`` (n,) scaled so that every class that occurs weighs 1."""
    total = np.bincount(label, weight, minlength=n_classes)
    return weight / total[label]


def log_loss(logits: np.ndarray, label: np.ndarray, weight: np.ndarray) -> float:
    """Weighted mean of -log softmax(logits (n, K))[label]."""
    from scipy.special import logsumexp

    true = logits[np.arange(len(label)), label]
    return float(np.average(logsumexp(logits, axis=1) - true, weights=weight))
