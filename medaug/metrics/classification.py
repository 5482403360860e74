"""Scores of a classifier on rows that it was not fitted on.

Scores of hard predictions are functions of confusion counts (..., K, P), true classes down and
predicted classes across, and work on any number of leading axes at once: the bootstrap feeds them
thousands of resampled tables. P may exceed K (a network with outputs that are never a target).
A score that the rows do not define, such as the recall of a class without rows, is NaN.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray


def confusion_matrix(label: Array, predicted: Array, n_classes: int = 2) -> Array:
    """Row counts, int64 (K, P): row = true class, column = predicted class, P >= K.

    Raises ValueError for labels outside 0..K-1, negative predictions and unequal lengths.
    """
    label, predicted = np.asarray(label), np.asarray(predicted)
    if label.shape != predicted.shape or label.ndim != 1:
        raise ValueError(f"labels {label.shape} and predictions {predicted.shape} differ in shape")
    if label.size and not (label.min() >= 0 and label.max() < n_classes and predicted.min() >= 0):
        raise ValueError(f"labels must lie in 0..{n_classes - 1} and predictions be >= 0")
    n_out = max(n_classes, int(predicted.max(initial=0)) + 1)
    flat = np.bincount(label * n_out + predicted, minlength=n_classes * n_out)
    return flat.reshape(n_classes, n_out)


def recall(confusion: Array) -> Array:
    """Share of each class's rows that are found, (..., K). Binary: specificity, sensitivity."""
    return _divide(_diagonal(confusion), confusion.sum(axis=-1))


def precision(confusion: Array) -> Array:
    """Share of the rows called k that are k, (..., K); NaN where nothing is called k."""
    return _divide(_diagonal(confusion), confusion.sum(axis=-2)[..., : confusion.shape[-2]])


def f1(confusion: Array) -> Array:
    """2 TP / (2 TP + FP + FN) of each class, (..., K); NaN for a class neither true nor called."""
    called = confusion.sum(axis=-2)[..., : confusion.shape[-2]]
    return _divide(2 * _diagonal(confusion), called + confusion.sum(axis=-1))


def accuracy(confusion: Array) -> Array:
    """Share of rows that are right, (...)."""
    return _divide(_diagonal(confusion).sum(axis=-1), confusion.sum(axis=(-2, -1)))


def balanced_accuracy(confusion: Array) -> Array:
    """Mean recall over the classes, (...); NaN when a class has no rows."""
    return recall(confusion).mean(axis=-1)


def macro_f1(confusion: Array) -> Array:
    """Mean F1 over the classes, (...); NaN when a class has no rows and is never called."""
    return f1(confusion).mean(axis=-1)


def mcc(confusion: Array) -> Array:
    """Matthews correlation, for K classes Gorodkin's R_K (2004), (...).

    0 for constant predictions, as scikit-learn has it; NaN when all rows are of one class.
    """
    k = confusion.shape[-2]
    actual = confusion.sum(axis=-1).astype(float)
    called = confusion.sum(axis=-2).astype(float)
    total = actual.sum(axis=-1)
    agree = _diagonal(confusion).sum(axis=-1) * total - (actual * called[..., :k]).sum(axis=-1)
    spread_actual = total**2 - (actual**2).sum(axis=-1)
    spread_called = total**2 - (called**2).sum(axis=-1)
    r = _divide(agree, np.sqrt(spread_actual * spread_called))
    constant = (spread_called <= 0) & (spread_actual > 0)
    return np.where(constant, 0.0, r)


def auroc(label: Array, probability: Array) -> float:
    """Area under the ROC curve; K > 2: mean over classes, one against the rest. NaN for one class.

    ``probability`` is (n,), of class 1, or (n, K).
    """
    from sklearn.metrics import roc_auc_score

    return _mean_over_classes(roc_auc_score, label, probability)


def auprc(label: Array, probability: Array) -> float:
    """Average precision (area under precision-recall without interpolation), as :func:`auroc`."""
    from sklearn.metrics import average_precision_score

    return _mean_over_classes(average_precision_score, label, probability)


def brier(label: Array, probability: Array) -> float:
    """Mean squared error of the probabilities: of class 1 when binary, else summed over classes."""
    p = as_distribution(probability)
    squares = ((p - np.eye(p.shape[1])[label]) ** 2).sum(axis=1)
    return _mean(squares) / (2 if p.shape[1] == 2 else 1)


def log_loss(label: Array, probability: Array) -> float:
    """Mean of -log p(true class), probabilities clipped at float64's epsilon."""
    p = as_distribution(probability)[np.arange(len(label)), label]
    return _mean(-np.log(np.clip(p, np.finfo(float).eps, 1)))


def expected_calibration_error(label: Array, probability: Array, bins: int = 15) -> float:
    """Mean gap between confidence and frequency over equal-width bins, weighted by rows.

    Binary: probability of class 1 against its frequency (Naeini et al. 2015). K > 2: highest
    probability against accuracy (Guo et al. 2017).
    """
    p = as_distribution(probability)
    binary = p.shape[1] == 2
    confidence = p[:, 1] if binary else p.max(axis=1)
    hit = np.asarray(label) == (1 if binary else p.argmax(axis=1))
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=confidence - hit, minlength=bins)
    return float(np.abs(gaps).sum() / len(hit)) if len(hit) else math.nan


class RocCurve(NamedTuple):
    """Points of the ROC curve, from (0, 0) to (1, 1); float64 (points,) each."""

    false_positive_rate: Array
    true_positive_rate: Array
    threshold: Array


def roc_curve(label: Array, probability: Array) -> RocCurve:
    """The binary ROC curve of class 1; a rate without rows is NaN."""
    from sklearn.metrics import roc_curve as sklearn_roc_curve

    score = as_distribution(probability)[:, 1]
    with warnings.catch_warnings():  # scikit-learn warns of one-class rows; NaN says it here
        warnings.simplefilter("ignore")
        points = sklearn_roc_curve(np.asarray(label) == 1, score, drop_intermediate=False)
    return RocCurve(*points)


def choose_threshold(label: Array, probability: Array) -> float:
    """The threshold on p(class 1) with the best balanced accuracy; a row is called 1 at p >= it.

    Candidates are .5, the midpoints between neighbouring probabilities, and either end (all rows
    called alike). Among equals the one nearest to .5 wins, then the lower one, compared in
    integers, so the choice never depends on rounding. .5 when only one class is there to choose
    by. Use validation rows only.
    """
    p = as_distribution(probability)[:, 1]
    positive = np.asarray(label) == 1
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive == 0 or n_negative == 0:
        return 0.5
    distinct = np.unique(p)
    ends = (distinct[0], np.nextafter(distinct[-1], np.inf), 0.5)
    candidates = np.unique([*(distinct[1:] + distinct[:-1]) / 2, *ends])
    found = n_positive - np.searchsorted(np.sort(p[positive]), candidates)
    refused = np.searchsorted(np.sort(p[~positive]), candidates)
    merit = found * n_negative + refused * n_positive
    best = candidates[merit == merit.max()]
    return float(min(best, key=lambda t: (abs(t - 0.5), t)))


def classification_scores(
    label: Array, probability: Array, predicted: Array | None = None, n_classes: int = 2
) -> dict[str, float]:
    """Every score above as a flat dictionary.

    ``label`` int (n,); ``probability`` (n,) of class 1 or (n, K); ``predicted`` defaults to
    p >= .5, or to the most probable class. Binary problems also get ``sensitivity``
    (= ``recall_class1``), ``specificity``, ``precision`` and ``f1`` of class 1.
    """
    label = np.asarray(label, dtype=np.int64)
    probability = np.asarray(probability, dtype=float)
    if len(probability) != len(label):
        raise ValueError(f"{len(label)} labels but {len(probability)} probabilities")
    if predicted is None:
        predicted = predict(probability)
    confusion = confusion_matrix(label, np.asarray(predicted, dtype=np.int64), n_classes)
    scores: dict[str, float | Array] = {
        "accuracy": accuracy(confusion),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_f1": macro_f1(confusion),
        "mcc": mcc(confusion),
        "auroc": auroc(label, probability),
        "auprc": auprc(label, probability),
        "brier": brier(label, probability),
        "ece": expected_calibration_error(label, probability),
        "log_loss": log_loss(label, probability),
    }
    scores |= {f"recall_class{k}": value for k, value in enumerate(recall(confusion))}
    if n_classes == 2:
        specificity, sensitivity = recall(confusion)
        scores |= {"sensitivity": sensitivity, "specificity": specificity}
        scores |= {"precision": precision(confusion)[1], "f1": f1(confusion)[1]}
    return {name: float(value) for name, value in scores.items()}


def predict(probability: Array, threshold: float | Array = 0.5) -> Array:
    """Class of each row, int64: p >= threshold for (n,), the most probable class for (n, K).

    A binary (n, 2) table goes by the threshold on its second column.
    """
    p = as_distribution(probability)
    return (p[:, 1] >= threshold).astype(np.int64) if p.shape[1] == 2 else p.argmax(axis=1)


def as_distribution(probability: Array) -> Array:
    """(n, K) float64, from (n,) probabilities of class 1 or as given.

    Raises ValueError for values that are not probabilities.
    """
    p = np.asarray(probability, dtype=float)
    if p.ndim not in (1, 2) or not np.all((p >= 0) & (p <= 1)):
        raise ValueError("probabilities must be (n,) or (n, K) and lie in 0..1")
    return np.stack([1 - p, p], axis=1) if p.ndim == 1 else p


def _mean_over_classes(
    score: Callable[[Array, Array], float], label: Array, probability: Array
) -> float:
    label, p = np.asarray(label), as_distribution(probability)
    if len(np.unique(label)) < 2:
        return math.nan
    classes = [1] if p.shape[1] == 2 else np.unique(label)
    return float(np.mean([score(label == k, p[:, k]) for k in classes]))


def _diagonal(confusion: Array) -> Array:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _divide(part: Array, whole: Array) -> Array:
    """part / whole, NaN where whole is 0."""
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    out = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.divide(part, whole, out=out, where=whole > 0)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan
