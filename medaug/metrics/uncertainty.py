"""Intervals for any score of a configuration, and for its gain in it over another.

Three things vary from one study to the next: which patients were recruited, which seeds were
drawn, and which rows a small training set holds. All are resampled, crossed (Owen 2007, "The
pigeonhole bootstrap", Ann. Appl. Stat. 1): patients with replacement within their class, seeds and
draws with replacement, and every row carries the product of their counts. Slices of a patient stay
together, so many slices never pass for many patients. An interval over the seeds alone answers
another question, how the *same* patients would be scored by a new training run, and calls noise a
gain far too often. The product counts what patients and seeds share more than once, so these
intervals are rather too wide; those of the leaderboard's balanced accuracy are not
(:mod:`medaug.metrics.board`).

A score is taken per replicate (seed and draw) over all folds' held-out rows, then averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit  # scipy.stats takes .8 s to import in every rank

from medaug.metrics import classification
from medaug.metrics.predictions import Predictions
from medaug.seeding import numpy_generator

Statistic = Callable[[np.ndarray], np.ndarray]
"""Patient weights (B, P) -> the score in each replicate (B, R), in the order of
``table.replicates``; NaN where it is not defined."""


@dataclass(frozen=True)
class Interval:
    """A score with its confidence interval; the bounds are NaN where nothing can be said."""

    mean: float
    low: float
    high: float
    level: float
    n_patients: int
    n_seeds: int


def interval(
    table: Predictions,
    metric: str = "balanced_accuracy",
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Crossed-bootstrap interval of ``metric`` (see :func:`statistic`).

    Give ``table.by_patient()`` for a score of patients instead of rows. The bounds are NaN with
    fewer than two patients in a class.
    """
    score = statistic(table, metric)
    patients = patient_draws(table, resamples, seed)
    replicates = replicate_draws(table, resamples, seed)
    resampled = _over_replicates(score(patients), replicates)
    return _summary(table, _point(score, table), resampled, level)


def gain(
    candidate: Predictions,
    reference: Predictions,
    metric: str = "balanced_accuracy",
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Crossed-bootstrap interval of the paired gain of ``candidate`` over ``reference``.

    Both are resampled with the same patients, and with the same seeds and draws where they have
    the same. Raises ValueError unless both hold the same patients, labels and folds.
    """
    require_paired(candidate, reference)
    ours, theirs = statistic(candidate, metric), statistic(reference, metric)
    patients = patient_draws(candidate, resamples, seed)
    our_draws = replicate_draws(candidate, resamples, seed)
    same = np.array_equal(candidate.replicates, reference.replicates)
    their_draws = our_draws if same else replicate_draws(reference, resamples, seed + 1)
    point = _point(ours, candidate) - _point(theirs, reference)
    resampled = _over_replicates(ours(patients), our_draws)
    resampled = resampled - _over_replicates(theirs(patients), their_draws)
    return _summary(candidate, point, resampled, level)


def require_paired(candidate: Predictions, reference: Predictions) -> None:
    """ValueError unless both tables score the same patients, labels and folds, seed for seed."""
    cells = [
        {*zip(t.patient.tolist(), t.label.tolist(), t.fold.tolist(), strict=True)}
        for t in (candidate, reference)
    ]
    odd = sorted(cells[0] ^ cells[1])
    if odd:
        patient, label, fold = odd[0]
        raise ValueError(
            f"not paired: patient {patient} (label {label}, fold {fold}) and {len(odd) - 1} other "
            "entries are in one table only; compare configurations on the same split"
        )


def statistic(table: Predictions, metric: str) -> Statistic:
    """A score of the table as a function of patient weights.

    ``metric``: balanced_accuracy, accuracy, macro_f1, mcc, lowest_recall, recall_class<k>, brier,
    and for two classes sensitivity, specificity, auroc, auprc.
    """
    if metric in _RANK_SCORES:
        return _of_ranks(table, _RANK_SCORES[metric])
    if metric == "brier":
        return _of_row_means(table, _squared_errors(table))
    if metric.startswith("recall_class"):
        k = int(metric.removeprefix("recall_class"))
        return _of_confusion(table, lambda counts: classification.recall(counts)[..., k])
    return _of_confusion(table, _CONFUSION_SCORES[metric])


def expanded_levels(n: int, level: float = 0.95) -> tuple[float, float]:
    """Levels of the bootstrap quantiles that make an interval from n >= 2 independent units.

    Further out than (1 - level) / 2, to make up for the bootstrap's variance being too small by
    (n - 1) / n and for t's longer tails (expanded percentile interval; Hesterberg 2015, "What
    teachers should know about the bootstrap", Am. Stat. 69).
    """
    reach = stdtrit(n - 1, (1 - level) / 2) * np.sqrt(n / (n - 1))
    return float(ndtr(reach)), float(ndtr(-reach))


def confusion_by_patient(table: Predictions) -> np.ndarray:
    """Row counts by patient, replicate, true and predicted class: int64 (P, R, K, K')."""
    n_out = max(table.n_classes, int(table.predicted.max(initial=0)) + 1)
    shape = (len(table.patients), len(table.replicates), table.n_classes, n_out)
    index = (table.patient_index, table.replicate_index, table.label, table.predicted)
    return np.bincount(np.ravel_multi_index(index, shape), minlength=np.prod(shape)).reshape(shape)


_CONFUSION_SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "balanced_accuracy": classification.balanced_accuracy,
    "accuracy": classification.accuracy,
    "macro_f1": classification.macro_f1,
    "mcc": classification.mcc,
    "lowest_recall": lambda counts: classification.recall(counts).min(axis=-1),
    "specificity": lambda counts: classification.recall(counts)[..., 0],
    "sensitivity": lambda counts: classification.recall(counts)[..., 1],
}


def _of_confusion(table: Predictions, score: Callable[[np.ndarray], np.ndarray]) -> Statistic:
    counts = confusion_by_patient(table)
    flat = counts.reshape(len(counts), -1).astype(float)
    return lambda weights: score((weights @ flat).reshape(-1, *counts.shape[1:]))


def _of_row_means(table: Predictions, value: np.ndarray) -> Statistic:
    shape = (len(table.patients), len(table.replicates))
    cell = np.ravel_multi_index((table.patient_index, table.replicate_index), shape)
    total = np.bincount(cell, weights=value, minlength=np.prod(shape)).reshape(shape)
    rows = np.bincount(cell, minlength=np.prod(shape)).reshape(shape)
    return lambda weights: _divide(weights @ total, weights @ rows)


def _squared_errors(table: Predictions) -> np.ndarray:
    p = classification.as_distribution(table.probability)
    errors = ((p - np.eye(p.shape[1])[table.label]) ** 2).sum(axis=1)
    return errors / 2 if p.shape[1] == 2 else errors


def _auroc_parts(hits: np.ndarray, alarms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Concordant and all pairs; ties count half."""
    new_hits = np.diff(hits, axis=1, prepend=0)
    new_alarms = np.diff(alarms, axis=1, prepend=0)
    beaten = alarms[:, -1:] - alarms + new_alarms / 2
    return (new_hits * beaten).sum(axis=1), hits[:, -1] * alarms[:, -1]


def _auprc_parts(hits: np.ndarray, alarms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision summed over the positive rows, and the positive rows."""
    precision = np.nan_to_num(_divide(hits, hits + alarms))
    return (np.diff(hits, axis=1, prepend=0) * precision).sum(axis=1), hits[:, -1]


_RANK_SCORES = {"auroc": _auroc_parts, "auprc": _auprc_parts}


def _of_ranks(
    table: Predictions,
    parts: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> Statistic:
    """Rank scores. Only rows of one fold are ranked against each other, since the networks of
    different folds need not share a scale; the folds' numerators and denominators are added."""
    if table.n_classes != 2:
        raise ValueError("auroc and auprc have intervals for two classes only")
    found = rankings(table)

    def score(weights: np.ndarray) -> np.ndarray:
        numerator, denominator = np.zeros((2, len(weights), len(table.replicates)))
        for ranking in found:
            top, bottom = parts(*ranking.counts(weights))
            numerator[:, ranking.replicate] += top
            denominator[:, ranking.replicate] += bottom
        return _divide(numerator, denominator)

    return score


class Ranking(NamedTuple):
    """The rows of one replicate and fold, the surest of class 1 first."""

    replicate: int
    fold: int
    """Places in ``table.replicates`` and among the folds in order."""
    patient: np.ndarray
    """Index (n,) into ``table.patients``."""
    positive: np.ndarray
    """Bool (n,)."""
    last_of_tie: np.ndarray
    """Index (T,) of the last row of each probability: the thresholds."""

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hits and false alarms (B, T) at each threshold, by patient weights (B, P)."""
        w = weights[:, self.patient]
        hits = np.cumsum(w * self.positive, axis=1)[:, self.last_of_tie]
        return hits, np.cumsum(w * ~self.positive, axis=1)[:, self.last_of_tie]


def rankings(table: Predictions) -> list[Ranking]:
    """One for each replicate and fold of a two-class table that has rows."""
    p = classification.as_distribution(table.probability)[:, 1]
    folds, fold = np.unique(table.fold, return_inverse=True)
    group = table.replicate_index * len(folds) + fold
    order = np.lexsort((-p, group))  # all groups at once: there may be thousands
    found = []
    for rows in filter(len, np.split(order, np.flatnonzero(np.diff(group[order])) + 1)):
        last_of_tie = np.append(np.flatnonzero(np.diff(p[rows])), len(rows) - 1)
        r, f = divmod(int(group[rows[0]]), len(folds))
        who, positive = table.patient_index[rows], table.label[rows] == 1
        found.append(Ranking(r, f, who, positive, last_of_tie))
    return found


def patient_draws(table: Predictions, resamples: int, seed: int) -> np.ndarray:
    """How often each patient is drawn, within its class: float64 (B, P)."""
    rng = numpy_generator("bootstrap", "patients", seed)
    counts = np.zeros((resamples, len(table.patients)))
    for stratum in np.unique(table.strata):
        members = np.flatnonzero(table.strata == stratum)
        even = np.full(len(members), 1 / len(members))
        counts[:, members] = rng.multinomial(len(members), even, size=resamples)
    return counts


def replicate_draws(table: Predictions, resamples: int, seed: int) -> np.ndarray:
    """How often each replicate is drawn, its seed's count times its draw's: float64 (B, R)."""
    counts = np.ones((resamples, len(table.replicates)))
    for axis, name in enumerate(("seeds", "draws")):
        values, which = np.unique(table.replicates[:, axis], return_inverse=True)
        rng = numpy_generator("bootstrap", name, seed)
        even = np.full(len(values), 1 / len(values))
        counts *= rng.multinomial(len(values), even, size=resamples)[:, which.reshape(-1)]
    return counts


def _point(score: Statistic, table: Predictions) -> float:
    return float(np.mean(score(np.ones((1, len(table.patients))))))


def _over_replicates(scores: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Mean over the drawn replicates; one in which the score is undefined does not count."""
    defined = ~np.isnan(scores)
    return _divide((draws * np.nan_to_num(scores)).sum(axis=1), (draws * defined).sum(axis=1))


def _summary(table: Predictions, mean: float, resampled: np.ndarray, level: float) -> Interval:
    smallest = int(np.unique(table.strata, return_counts=True)[1].min())
    n_patients, n_seeds = len(table.patients), len(np.unique(table.seed))
    if smallest < 2 or np.isnan(resampled).all():
        return Interval(mean, np.nan, np.nan, level, n_patients, n_seeds)
    low, high = np.nanquantile(resampled, expanded_levels(smallest, level))
    return Interval(mean, float(low), float(high), level, n_patients, n_seeds)


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
