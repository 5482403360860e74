"""Tests, and intervals of single proportions, for numbers that come as a table or from a paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from medaug.metrics.predictions import Predictions
from medaug.metrics.uncertainty import confusion_by_patient, require_paired
from medaug.seeding import numpy_generator

EXACT_UP_TO = 14
"""Patients up to which all 2^n sign patterns are counted instead of sampled."""


def sign_flip_test(
    candidate: Predictions, reference: Predictions, *, resamples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of the gain in balanced accuracy, by exchanging arms within patients.

    Were the two configurations exchangeable, swapping all predictions of a patient between them
    would change nothing but the sign of that patient's share of the gain. The share is the
    seed-averaged difference in right rows, over the rows of their class, so the shares add up to
    the gain. Exact for up to 14 patients, else from ``resamples`` random patterns (+1 rule).
    Raises ValueError unless the tables are paired.
    """
    require_paired(candidate, reference)
    shares = _right_shares(candidate) - _right_shares(reference)
    observed = abs(shares.sum()) - 1e-12
    if len(shares) <= EXACT_UP_TO:
        patterns = (np.arange(2 ** len(shares))[:, None] >> np.arange(len(shares))) & 1
        return float(np.mean(np.abs((2 * patterns - 1) @ shares) >= observed))
    rng = numpy_generator("sign-flip", seed)
    signs = rng.integers(0, 2, size=(resamples, len(shares))) * 2 - 1
    extreme = int(np.sum(np.abs(signs @ shares) >= observed))
    return (1 + extreme) / (1 + resamples)


def mcnemar(label: np.ndarray, predicted_a: np.ndarray, predicted_b: np.ndarray) -> float:
    """Exact two-sided McNemar p-value of two classifiers on the same independent rows.

    For one row per patient: slices of a patient are not independent. 1 without disagreement.
    """
    from scipy.stats import binomtest  # a second that only this needs

    a, b = np.asarray(predicted_a) == label, np.asarray(predicted_b) == label
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def nadeau_bengio(
    differences: Sequence[float], test_to_train: float, level: float = 0.95
) -> tuple[float, float, float]:
    """Corrected resampled t-test over folds and repeats: (p-value, low, high) of the mean.

    ``test_to_train`` is the ratio of test to training patients of one fold (.25 for five folds).
    Overlapping training sets make the runs dependent; the variance is multiplied by
    1/J + test/train instead of 1/J (Nadeau & Bengio 2003, Machine Learning 52, eq. 9).
    """
    d = np.asarray(differences, dtype=float)
    if len(d) < 2:
        raise ValueError("the corrected t-test needs at least two runs")
    error = math.sqrt((1 / len(d) + test_to_train) * d.var(ddof=1))
    reach = stdtrit(len(d) - 1, (1 + level) / 2) * error
    if error == 0:
        p = 1.0 if d.mean() == 0 else 0.0
    else:
        p = 2 * stdtr(len(d) - 1, -abs(d.mean()) / error)
    return float(p), float(d.mean() - reach), float(d.mean() + reach)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    return np.minimum(adjusted, 1)


def wilson_interval(share: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; ``n`` may be an effective, fractional number."""
    if n <= 0:
        return math.nan, math.nan
    z = ndtri((1 + level) / 2)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return float(centre - reach), float(centre + reach)


def effective_rows(n_rows: int, n_patients: int, correlation: float = 0.3) -> float:
    """How many independent rows ``n_rows`` rows of ``n_patients`` patients are worth.

    n / (1 + (m - 1) rho) with m rows per patient (Kish 1965). ``correlation`` is that of being
    right within a patient; .3 is SCIENCE's value for study A.
    """
    return n_rows / (1 + (n_rows / n_patients - 1) * correlation)


def published_balanced_accuracy(
    recalls: Sequence[float],
    rows: Sequence[int],
    patients: Sequence[int],
    *,
    correlation: float = 0.3,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """(mean, low, high) of a balanced accuracy of which only per-class recalls are published.

    Wilson intervals of the recalls, on effective rows, joined by the method of variance estimates
    recovery (Newcombe 1998; Zou & Donner 2008), which keeps the result inside 0..1.
    """
    below = above = 0.0
    for share, n, p in zip(recalls, rows, patients, strict=True):
        low, high = wilson_interval(share, effective_rows(n, p, correlation), level)
        below += (share - low) ** 2
        above += (high - share) ** 2
    k, mean = len(recalls), float(np.mean(recalls))
    return mean, mean - math.sqrt(below) / k, mean + math.sqrt(above) / k


def _right_shares(table: Predictions) -> np.ndarray:
    """What each patient adds to the seed-averaged balanced accuracy; float64 (P,)."""
    counts = confusion_by_patient(table).astype(float)
    rows_of_class = counts.sum(axis=(0, 3))
    right = np.diagonal(counts, axis1=2, axis2=3)
    share = np.divide(right, rows_of_class, out=np.zeros_like(right), where=rows_of_class > 0)
    return share.sum(axis=2).mean(axis=1) / (rows_of_class > 0).any(axis=0).sum()
