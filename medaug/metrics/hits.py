"""Patients as units: which of them a configuration calls right, replicate by replicate.

The balanced accuracy of patients is the mean over the classes of the share of that class's units
that are right. A unit is one vote:

* Where every patient has one label, a unit is a patient, called by the mean probability of its
  slices; it is right or wrong.
* Where a patient has slices of several labels, a unit is the patient's slices of one label, and
  counts by the share of them that are right. Averaging their probabilities first would use the
  labels to choose what is averaged, which no clinic can, and would call a classifier near perfect
  whose single slices are hardly better than a coin. Patients still count alike, however many
  slices they have, and both units of a patient are drawn together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medaug.metrics.predictions import Predictions


@dataclass(frozen=True, eq=False)
class Hits:
    """What one configuration calls right: P patients, U >= P units, S seeds, D draws."""

    patients: np.ndarray
    """Pseudonyms, sorted, str (P,)."""
    strata: np.ndarray
    """The class that each patient is drawn with, int64 (P,)."""
    patient: np.ndarray
    """Each unit's place in ``patients``, ascending, int64 (U,)."""
    label: np.ndarray
    """Each unit's class, int64 (U,)."""
    seeds: np.ndarray
    """Int64 (S,); one where all give the same answers, as without chance in the configuration."""
    draws: np.ndarray
    """Int64 (D,), in the same way."""
    right: np.ndarray
    """Share of the unit that is called right, float64 (U, S, D)."""
    n_classes: int
    complete: bool = True
    """False where some replicate has not scored all patients: seeds and draws are then averaged
    (S = D = 1), and intervals speak of patients only."""

    @cached_property
    def unit_weight(self) -> np.ndarray:
        """1 / (K n_k) for a unit of class k, so that a score is a weighted sum; NaN throughout
        where a class has no unit. Float64 (U,)."""
        count = np.bincount(self.label, minlength=self.n_classes).astype(float)
        count[count == 0] = np.nan
        return np.where(np.isnan(count).any(), np.nan, 1 / (self.n_classes * count[self.label]))

    @cached_property
    def totals(self) -> np.ndarray:
        """Balanced accuracy of patients under each seed and draw, float64 (S, D)."""
        of_class = (self.right[self.label == k] for k in range(self.n_classes))
        recalls = [r.mean(axis=0) if len(r) else np.full(r.shape[1:], np.nan) for r in of_class]
        return np.mean(recalls, axis=0)

    @cached_property
    def influence(self) -> np.ndarray:
        """What each patient adds to ``totals`` beyond the mean of its class, float64 (P, S, D).

        Sums to zero over the patients: the first-order expansion of the ratio that a recall is
        when patients are drawn again.
        """
        share = np.zeros_like(self.right)
        for k in range(self.n_classes):
            of_class = self.label == k
            if of_class.any():
                share[of_class] = self.right[of_class] - self.right[of_class].mean(axis=0)
        share *= self.unit_weight[:, None, None]
        starts = np.flatnonzero(np.diff(self.patient, prepend=-1))
        return np.add.reduceat(share, starts, axis=0)

    def recalls(self) -> np.ndarray:
        """Share of each class's units that are right, mean over replicates, float64 (K,)."""
        per_unit = self.right.mean(axis=(1, 2))
        return np.array(
            [
                per_unit[self.label == k].mean() if (self.label == k).any() else np.nan
                for k in range(self.n_classes)
            ]
        )

    @property
    def smallest_stratum(self) -> int:
        """Patients of the class that has the fewest."""
        return int(np.unique(self.strata, return_counts=True)[1].min())


def hits_of(table: Predictions) -> Hits:
    """The hits of a table of at least one row."""
    rows = table.by_patient() if table.labels_are_patients else table
    units, unit = np.unique(rows.patient_index * rows.n_classes + rows.label, return_inverse=True)
    seeds, seed = np.unique(rows.seed, return_inverse=True)
    draws, draw = np.unique(rows.draw, return_inverse=True)
    shape = (len(units), len(seeds), len(draws))
    cell = np.ravel_multi_index((unit.reshape(-1), seed, draw), shape)
    count = np.bincount(cell, minlength=np.prod(shape)).reshape(shape)
    right = np.bincount(cell, weights=rows.predicted == rows.label, minlength=np.prod(shape))
    share = right.reshape(shape) / np.maximum(count, 1)
    complete = bool(count.all())
    if not complete:
        share = (share * (count > 0)).sum((1, 2), keepdims=True)
        share /= (count > 0).sum((1, 2), keepdims=True)
        seeds, draws = seeds[:1], draws[:1]
    if np.all(share == share[:, :1]):
        share, seeds = share[:, :1], seeds[:1]
    if np.all(share == share[:, :, :1]):
        share, draws = share[:, :, :1], draws[:1]
    return Hits(
        patients=rows.patients,
        strata=rows.strata,
        patient=units // table.n_classes,
        label=units % table.n_classes,
        seeds=seeds,
        draws=draws,
        right=share,
        n_classes=table.n_classes,
        complete=complete,
    )
