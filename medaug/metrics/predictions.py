"""The table that every statement about a configuration is made from: one row per prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medaug.metrics.classification import as_distribution, predict

COLUMNS = ("patient", "label", "seed", "fold", "probability", "threshold", "predicted")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Held-out predictions of one configuration, over all its seeds and folds; n rows.

    A patient stands in one fold (or in one of each repeat) and under every seed. Raises
    ValueError for unequal lengths, labels outside 0..n_classes-1 and improper probabilities.
    """

    patient: np.ndarray
    """Pseudonyms, str (n,)."""
    label: np.ndarray
    """True classes, int64 (n,)."""
    seed: np.ndarray
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
        threshold: float = 0.5,
        predicted: Sequence[int] | np.ndarray | None = None,
        n_classes: int = 2,
    ) -> Predictions:
        """The rows that one seed and one fold give; ``predicted`` follows from ``threshold``."""
        n, probability = len(patient), np.asarray(probability, dtype=float)
        return cls(
            patient=np.asarray(patient, dtype=str),
            label=np.asarray(label, dtype=np.int64),
            seed=np.full(n, seed),
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
    def strata(self) -> np.ndarray:
        """The class that each patient is drawn with: the highest label among its rows.

        Where labels belong to patients this is the patient's label; where they belong to slices
        (haemorrhage here, yes or no) it says whether any of the patient's slices is positive.
        """
        stratum = np.zeros(len(self.patients), dtype=np.int64)
        np.maximum.at(stratum, self.patient_index, self.label)
        return stratum

    def by_patient(self) -> Predictions:
        """One row per patient, seed and fold: mean probability, highest label.

        Binary rows are called by their fold's own threshold, others by the most probable class.
        """
        key = np.stack([self.patient_index, self.seed, self.fold])
        _, first, group = np.unique(key, axis=1, return_index=True, return_inverse=True)
        mean = np.zeros((len(first), *self.probability.shape[1:]))
        np.add.at(mean, group, self.probability)
        count = np.bincount(group).reshape(-1, *[1] * (mean.ndim - 1))
        probability = np.clip(mean / count, 0, 1)
        return Predictions(
            patient=self.patient[first],
            label=self.strata[self.patient_index[first]],
            seed=self.seed[first],
            fold=self.fold[first],
            probability=probability,
            threshold=self.threshold[first],
            predicted=predict(probability, self.threshold[first]),
            n_classes=self.n_classes,
        )
