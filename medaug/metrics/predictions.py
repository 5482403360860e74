"""The table that every statement about a configuration is made from: one row per prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medaug.metrics.classification import as_distribution, predict

COLUMNS = ("patient", "label", "seed", "draw", "fold", "probability", "threshold", "predicted")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Held-out predictions of one configuration, over all its replicates and folds; n rows.

    A replicate is a seed and a draw of the training set. A patient stands in one fold (or in one
    of each repeat) and in every replicate. Raises ValueError for unequal lengths, labels outside
    0..n_classes-1 and improper probabilities.
    """

    patient: np.ndarray
    """Pseudonyms, str (n,)."""
    label: np.ndarray
    """True classes, int64 (n,)."""
    seed: np.ndarray
    draw: np.ndarray
    """Which draw of a small training set the classifier learnt from, int64 (n,); 0 where all
    training rows were used."""
    fold: np.ndarray
    probability: np.ndarray
    """Float64 (n,) of class 1, or (n, K)."""
    threshold: np.ndarray
    """Float64 (n,): what the row's fold and seed chose on validation rows (binary only)."""
    predicted: np.ndarray
    """Predicted classes, int64 (n,)."""
    n_classes: int = 2

    def __post_init__(self) -> None:
        for name in COLUMNS:
            if len(getattr(self, name)) != len(self.patient):
                raise ValueError(
                    f"column {name} has {len(getattr(self, name))} rows, patient {len(self)}"
                )
        as_distribution(self.probability)
        if len(self) and not (self.label.min() >= 0 and self.label.max() < self.n_classes):
            raise ValueError(f"labels must lie in 0..{self.n_classes - 1}")

    @classmethod
    def of_trial(
        cls,
        patient: Sequence[str] | np.ndarray,
        label: Sequence[int] | np.ndarray,
        probability: Sequence[float] | np.ndarray,
        *,
        seed: int,
        fold: int,
        draw: int = 0,
        threshold: float = 0.5,
        predicted: Sequence[int] | np.ndarray | None = None,
        n_classes: int = 2,
    ) -> Predictions:
        """The rows of one seed, draw and fold; ``predicted`` follows from ``threshold``."""
        n, probability = len(patient), np.asarray(probability, dtype=float)
        return cls(
            patient=np.asarray(patient, dtype=str),
            label=np.asarray(label, dtype=np.int64),
            seed=np.full(n, seed),
            draw=np.full(n, draw),
            fold=np.full(n, fold),
            probability=probability,
            threshold=np.full(n, threshold, dtype=float),
            predicted=np.asarray(
                predict(probability, threshold) if predicted is None else predicted, dtype=np.int64
            ),
            n_classes=n_classes,
        )

    @classmethod
    def concat(cls, tables: Sequence[Predictions]) -> Predictions:
        """One table of several, for example of all trials of a configuration."""
        columns = {name: np.concatenate([getattr(t, name) for t in tables]) for name in COLUMNS}
        return cls(**columns, n_classes=tables[0].n_classes)

    def __len__(self) -> int:
        return len(self.patient)

    def select(self, rows: np.ndarray) -> Predictions:
        """The rows of a mask or an index."""
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        return Predictions(**columns, n_classes=self.n_classes)

    @cached_property
    def patients(self) -> np.ndarray:
        """Different patients, sorted."""
        return np.unique(self.patient)

    @cached_property
    def patient_index(self) -> np.ndarray:
        """Each row's place in :attr:`patients`, int64 (n,)."""
        return np.searchsorted(self.patients, self.patient)

    @cached_property
    def replicates(self) -> np.ndarray:
        """The (seed, draw) pairs that are there, sorted, int64 (R, 2)."""
        first, _ = _places(self.seed, self.draw)
        return np.stack([self.seed[first], self.draw[first]], axis=1)

    @cached_property
    def replicate_index(self) -> np.ndarray:
        """Each row's place in :attr:`replicates`, int64 (n,)."""
        return _places(self.seed, self.draw)[1]

    @cached_property
    def strata(self) -> np.ndarray:
        """The class that each patient is drawn with: the highest label among its rows.

        Where labels belong to patients this is the patient's label; where they belong to slices
        (haemorrhage here, yes or no) it says whether any of the patient's slices is positive.
        """
        stratum = np.zeros(len(self.patients), dtype=np.int64)
        np.maximum.at(stratum, self.patient_index, self.label)
        return stratum

    @cached_property
    def labels_are_patients(self) -> bool:
        """Whether every patient has one label, so that a patient can be called as a whole."""
        return bool(np.all(self.strata[self.patient_index] == self.label))

    def by_patient(self) -> Predictions:
        """One row per patient, label, seed, draw and fold, with the mean probability.

        Binary rows are called by their fold's own threshold, others by the most probable class.
        Where a patient has slices of several labels, the mean over the slices *of one label* is
        sharper than any use of the classifier could be, since it takes the labels to know which
        slices to average. :func:`medaug.metrics.hits.hits_of` therefore calls such slices one by
        one, and averages afterwards.
        """
        first, group = _places(self.patient_index, self.label, self.seed, self.draw, self.fold)
        columns = self.probability.reshape(len(self), -1).T
        sums = [np.bincount(group, weights=each, minlength=len(first)) for each in columns]
        mean = np.stack(sums, axis=1) / np.bincount(group)[:, None]
        probability = np.clip(mean, 0, 1).reshape(len(first), *self.probability.shape[1:])
        kept = {name: getattr(self, name)[first] for name in COLUMNS}
        kept |= {
            "probability": probability,
            "predicted": predict(probability, self.threshold[first]),
        }
        return Predictions(**kept, n_classes=self.n_classes)


def _places(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first row of each combination in ascending order, each row's place among them)."""
    values = [np.unique(column, return_inverse=True) for column in columns]
    shape = tuple(max(1, len(found)) for found, _ in values)
    key = np.ravel_multi_index(tuple(place.reshape(-1) for _, place in values), shape)
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    return first, place.reshape(-1)
