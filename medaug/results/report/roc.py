"""Mean ROC and precision-recall curves, and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from medaug.metrics.classification import as_distribution
from medaug.metrics.predictions import Predictions
from medaug.metrics.uncertainty import patient_draws, rankings, replicate_draws, statistic

RESAMPLES = 400
GRID = np.linspace(0, 1, 101)
_TINY = 1e-9
"""A recall of 3/10 is reached at .3, however it was rounded."""


@dataclass(frozen=True)
class Band:
    """A curve on :data:`GRID` with a pointwise 95 % band; arrays (101,)."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    area: float
    """Area under the ROC curve, or average precision."""


def one_vs_rest(table: Predictions, k: int) -> Predictions:
    """The two-class table in which class ``k`` is found or not."""
    p = as_distribution(table.probability)[:, k]
    found = (table.predicted == k).astype(np.int64)
    label = (table.label == k).astype(np.int64)
    return replace(table, label=label, probability=p, predicted=found, n_classes=2)


def roc_band(table: Predictions) -> Band:
    """The ROC curve of :func:`bands`: true positive rates at the false positive rates."""
    return bands(table)[0]


def bands(table: Predictions, resamples: int = RESAMPLES) -> tuple[Band, Band]:
    """The ROC curve and the precision-recall curve of class 1: means over folds and replicates.

    ROC curves are averaged at equal false positive rates (Fawcett 2006, "vertical averaging"), the
    others at equal recall: the networks of different folds need not share a scale. The precision
    at a recall is that of the highest threshold which reaches it; there is no line between two
    points (Davis and Goadrich 2006). For the bands, patients are drawn within their class, seeds
    and draws crossed with them.
    """
    everyone = np.ones((1, len(table.patients)))
    curves = _curves(table, np.concatenate([everyone, patient_draws(table, resamples, 0)]))
    drawn_as = replicate_draws(table, resamples, 0)
    replicates = np.concatenate([np.ones((1, curves.shape[2])), drawn_as])
    weights = replicates[:, :, None, None] * ~np.isnan(curves)
    count = weights.sum((2, 3))
    total = (weights * np.nan_to_num(curves)).sum((2, 3))
    means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    low, high = np.nanquantile(means[:, 1:], [0.025, 0.975], axis=1)
    areas = [float(statistic(table, name)(everyone).mean()) for name in ("auroc", "auprc")]
    roc, pr = (Band(means[i, 0], low[i], high[i], areas[i]) for i in range(2))
    return roc, pr


def _curves(table: Predictions, weights: np.ndarray) -> np.ndarray:
    """(2, B, R, F, 101): ROC and precision-recall curves by resample, replicate and fold; NaN where
    a class is missing."""
    n_folds = len(np.unique(table.fold))
    shape = (2, len(weights), len(table.replicates), n_folds, len(GRID))
    curves = np.full(shape, np.nan)
    for ranking in rankings(table):
        hits, alarms = ranking.counts(weights)
        r, f = ranking.replicate, ranking.fold
        for b in np.flatnonzero((hits[:, -1] > 0) & (alarms[:, -1] > 0)):
            recall, alarm = hits[b] / hits[b, -1], alarms[b] / alarms[b, -1]
            curves[0, b, r, f] = np.interp(GRID, np.append(0, alarm), np.append(0, recall))
            reached = np.searchsorted(recall, np.maximum(GRID - _TINY, _TINY))
            curves[1, b, r, f] = hits[b, reached] / (hits[b, reached] + alarms[b, reached])
    return curves
