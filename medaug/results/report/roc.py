"""A mean ROC curve and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medaug.metrics.classification import as_distribution
from medaug.metrics.predictions import Predictions
from medaug.metrics.uncertainty import patient_draws, replicate_draws, statistic

RESAMPLES = 400
GRID = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Roc:
    """True positive rates on :data:`GRID`; arrays (101,)."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    auroc: float


def roc_band(table: Predictions) -> Roc:
    """The mean over folds and replicates of the ROC curves of class 1, with a pointwise 95 % band.

    Curves are averaged at equal false positive rates (Fawcett 2006, "vertical averaging"): the
    networks of different folds need not share a scale. For the band, patients are drawn within
    their class, seeds and draws crossed with them.
    """
    everyone = np.ones((1, len(table.patients)))
    curves = _curves(table, np.concatenate([everyone, patient_draws(table, RESAMPLES, 0)]))
    drawn_as = replicate_draws(table, RESAMPLES, 0)
    replicates = np.concatenate([np.ones((1, curves.shape[1])), drawn_as])
    weights = replicates[:, :, None, None] * ~np.isnan(curves)
    count = weights.sum((1, 2))
    total = (weights * np.nan_to_num(curves)).sum((1, 2))
    mean, *drawn = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    low, high = np.nanquantile(np.array(drawn), [0.025, 0.975], axis=0)
    return Roc(mean, low, high, float(statistic(table, "auroc")(everyone).mean()))


def _curves(table: Predictions, weights: np.ndarray) -> np.ndarray:
    """(B, R, F, 101): curves by resample, replicate and fold; NaN where a class is missing."""
    p = as_distribution(table.probability)[:, 1]
    order = np.argsort(-p, kind="stable")
    replicate, folds = table.replicate_index[order], np.unique(table.fold)
    curves = np.full((len(weights), len(table.replicates), len(folds), len(GRID)), np.nan)
    for r, f in np.ndindex(curves.shape[1:3]):
        rows = order[(replicate == r) & (table.fold[order] == folds[f])]
        if not len(rows):
            continue
        last_of_tie = np.append(np.flatnonzero(np.diff(p[rows])), len(rows) - 1)
        w = weights[:, table.patient_index[rows]]
        positive = table.label[rows] == 1
        hits = np.pad(np.cumsum(w * positive, 1)[:, last_of_tie], ((0, 0), (1, 0)))
        alarms = np.pad(np.cumsum(w * ~positive, 1)[:, last_of_tie], ((0, 0), (1, 0)))
        for b in np.flatnonzero((hits[:, -1] > 0) & (alarms[:, -1] > 0)):
            x, y = alarms[b] / alarms[b, -1], hits[b] / hits[b, -1]
            curves[b, r, f] = np.interp(GRID, x, y)
    return curves
