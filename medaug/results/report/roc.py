"""A mean ROC curve and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medaug.metrics.classification import as_distribution
from medaug.metrics.predictions import Predictions
from medaug.metrics.uncertainty import statistic
from medaug.seeding import numpy_generator

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
    """The mean over folds and seeds of the ROC curves of class 1, with a pointwise 95 % band.

    Curves are averaged at equal false positive rates (Fawcett 2006, "vertical averaging"): the
    networks of different folds need not share a scale. For the band, patients are drawn within
    their class and seeds crossed with them, as for all other intervals.
    """
    everyone = np.ones((1, len(table.patients)))
    curves = _curves(table, np.concatenate([everyone, _patient_draws(table)]))
    seeds = np.concatenate([np.ones((1, curves.shape[1])), _seed_draws(curves.shape[1])])
    weights = seeds[:, :, None, None] * ~np.isnan(curves)
    count = weights.sum((1, 2))
    total = (weights * np.nan_to_num(curves)).sum((1, 2))
    mean, *drawn = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    low, high = np.nanquantile(np.array(drawn), [0.025, 0.975], axis=0)
    return Roc(mean, low, high, float(statistic(table, "auroc")(everyone).mean()))


def _curves(table: Predictions, weights: np.ndarray) -> np.ndarray:
    """(B, S, F, 101): one curve for each resample, seed and fold; NaN where a class is missing."""
    p = as_distribution(table.probability)[:, 1]
    order = np.argsort(-p, kind="stable")
    seeds, folds = np.unique(table.seed), np.unique(table.fold)
    curves = np.full((len(weights), len(seeds), len(folds), len(GRID)), np.nan)
    for s, f in np.ndindex(len(seeds), len(folds)):
        rows = order[(table.seed[order] == seeds[s]) & (table.fold[order] == folds[f])]
        last_of_tie = np.append(np.flatnonzero(np.diff(p[rows])), len(rows) - 1)
        w = weights[:, table.patient_index[rows]]
        positive = table.label[rows] == 1
        hits = np.pad(np.cumsum(w * positive, 1)[:, last_of_tie], ((0, 0), (1, 0)))
        alarms = np.pad(np.cumsum(w * ~positive, 1)[:, last_of_tie], ((0, 0), (1, 0)))
        for b in np.flatnonzero((hits[:, -1] > 0) & (alarms[:, -1] > 0)):
            x, y = alarms[b] / alarms[b, -1], hits[b] / hits[b, -1]
            curves[b, s, f] = np.interp(GRID, x, y)
    return curves


def _patient_draws(table: Predictions) -> np.ndarray:
    rng = numpy_generator("roc", "patients")
    draws = np.zeros((RESAMPLES, len(table.patients)))
    for stratum in np.unique(table.strata):
        members = np.flatnonzero(table.strata == stratum)
        even = np.full(len(members), 1 / len(members))
        draws[:, members] = rng.multinomial(len(members), even, RESAMPLES)
    return draws


def _seed_draws(n: int) -> np.ndarray:
    return (
        numpy_generator("roc", "seeds").multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)
    )
