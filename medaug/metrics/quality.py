"""How good synthetic rows are, every number beside what real rows of unseen patients score."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from medaug.metrics.classification import balanced_accuracy, confusion_matrix
from medaug.metrics.generative import (
    Projection,
    diversity_ratio,
    frechet_distance,
    frechet_distance_shrunk,
    frechet_infinity,
    kernel_distance,
    patient_halves,
)
from medaug.metrics.membership import membership_attack
from medaug.metrics.neighbours import (
    authenticity,
    most_neighbours,
    near_copies,
    nn_distance_ratio,
    owner_index,
    support_scores,
)
from medaug.seeding import numpy_generator

Array = np.ndarray
MOST_DIMENSIONS = 256
"""Principal components kept for distances between rows, where there are ten times as many rows."""
MOST_FRECHET_DIMENSIONS = 64
ROWS_PER_DIMENSION = 10
"""Real rows of the smallest class for each dimension of the Fréchet distance (n >= 10 d)."""
_SCORES = ("fd", "kid", "precision", "recall", "density", "coverage", "diversity", "c2st")


def classifier_two_sample(
    real: Array,
    fake: Array,
    real_patients: Array | None = None,
    fake_patients: Array | None = None,
    *,
    estimator: Any = None,
    folds: int = 5,
    seed: int = 0,
) -> float:
    """Held-out balanced accuracy of telling fake from real (Lopez-Paz & Oquab 2017).

    .5: no difference, 1: all of it; well below .5: copies, which make the real rows of a held-out
    patient look like the fakes that were seen. Folds keep patients whole. ``estimator``: any
    scikit-learn classifier (default: Fisher's linear discriminant). NaN with fewer than two
    patients.
    """
    rng = numpy_generator("two-sample", seed)
    owners = [owner_index(real, real_patients), owner_index(fake, fake_patients)]
    folds = min(folds, *(owner.max(initial=-1) + 1 for owner in owners))
    if folds < 2:
        return math.nan
    fold = np.concatenate([(rng.permutation(owner.max() + 1) % folds)[owner] for owner in owners])
    x, label = np.concatenate([real, fake]), np.repeat([0, 1], [len(real), len(fake)])
    predicted = np.empty_like(label)
    for test in (fold == i for i in range(folds)):
        predicted[test] = _predicted(estimator, x[~test], label[~test], x[test])
    return float(balanced_accuracy(confusion_matrix(label, predicted)))


def _predicted(estimator: Any, x: Array, label: Array, unseen: Array) -> Array:
    """Classes 0 and 1 of ``unseen`` by ``estimator``, or by Fisher's discriminant: the regression
    on -1 and 1 with classes of equal weight, since one report fits it some hundred times."""
    from sklearn.base import clone

    if estimator is not None:
        return np.asarray(clone(estimator).fit(x, label).predict(unseen))
    weight = np.sqrt(1 / np.bincount(label, minlength=2)[label])
    design = np.column_stack([x, np.ones(len(x))]) * weight[:, None]
    slope = np.linalg.lstsq(design, (2 * label - 1) * weight, rcond=None)[0]
    return (unseen @ slope[:-1] + slope[-1] > 0).astype(int)


def train_on_test_on(
    train: Array, train_label: Array, test: Array, test_label: Array, *, estimator: Any = None
) -> float:
    """Balanced accuracy on ``test`` of a classifier fitted on ``train``.

    With synthetic training rows and real test rows of unseen patients this is TSTR (classification
    accuracy score, Ravuri & Vinyals 2019); with real ones, its reference. NaN when a class is
    missing on either side.
    """
    from sklearn.base import clone

    if len(np.unique(train_label)) < 2 or len(np.unique(test_label)) < 2:
        return math.nan
    predicted = clone(estimator or _linear()).fit(train, train_label).predict(test)
    n_classes = int(max(np.max(train_label), np.max(test_label))) + 1
    return float(balanced_accuracy(confusion_matrix(test_label, predicted, n_classes)))


def space_of(train: Array) -> Projection:
    """Where generated rows (n, d) are held against real ones: begins with the principal components
    of ``train``, ``MOST_FRECHET_DIMENSIONS`` and more. Of few training rows nothing is left out: in
    the components of 40 a perfect generator has .74 of their diversity, and a recall of .75 where
    real rows have .96.
    """
    if len(train) >= ROWS_PER_DIMENSION * MOST_DIMENSIONS:
        return Projection(train, MOST_DIMENSIONS)
    return Projection(train, MOST_FRECHET_DIMENSIONS, rest=True)


def quality_report(
    train: Array,
    heldout: Array,
    fake: Array,
    *,
    train_label: Array,
    heldout_label: Array,
    fake_label: Array,
    train_patients: Array,
    heldout_patients: Array,
    k: int = 5,
    repeats: int = 10,
    max_rows: int = 2000,
    estimator: Any = None,
    seed: int = 0,
) -> dict[str, float]:
    """Every quality measure of ``fake`` as a flat dictionary.

    Args:
        train, heldout, fake: pooled features (n, d) of the generator's training rows, of real
            rows of other patients, and of its samples.
        train_label, heldout_label, fake_label: int (n,).
        train_patients, heldout_patients: pseudonyms, str (n,).
        k: neighbours of precision, recall, density, coverage (fewer where there are too few rows).
        repeats: random halvings of the patients.
        max_rows: of each class and side, drawn at random; the near-copy audit always uses all.
        estimator: scikit-learn classifier of ``c2st``, ``tstr`` and ``trtr``.

    All are taken on standardised rows (:func:`space_of`), ``fd`` and ``c2st`` in their first
    principal components, and the measures of distribution within each class and then averaged, so
    neither the class mix nor the separation of the classes enters:

    - ``fd``, ``kid``, ``precision``, ``recall``, ``density``, ``coverage``, ``diversity``,
      ``c2st``: half of the fakes against one half of the training patients, on average over random
      halves. ``*_null``: as many rows of the other patients instead of the fakes, which is what a
      perfect generator scores. ``*_se``: standard error by the delete-half jackknife over patients
      and fakes (Shao & Wu 1989). ``fd_ratio``: fd over fd_null. ``fd_class<c>``,
      ``fd_null_class<c>``; ``fd_lw`` and ``fd_inf`` on all rows; ``fd_dimensions``.
    - ``nn_ratio``, ``authenticity`` (and ``_null``, of held-out rows), ``near_copy_rate`` (and
      ``_low``, ``_high``, ``_heldout``), ``near_copy_threshold``: over all classes together,
      because a copy is a copy under any label.
    - ``membership_auc`` (and ``_low``, ``_high``): see :mod:`medaug.metrics.membership`.
    - ``tstr``: trained on fakes, tested on held-out rows; ``trtr``: trained on real ones.

    NaN where the rows do not suffice.
    """
    space = space_of(train)
    z_train, z_heldout, z_fake = space(train), space(heldout), space(fake)
    smallest = int(np.unique(train_label, return_counts=True)[1].min())
    dimensions = min(MOST_FRECHET_DIMENSIONS, max(2, smallest // ROWS_PER_DIMENSION), space.n_axes)
    compare = _Comparison(dimensions, np.shape(train)[1], k, estimator, seed)
    per_class: dict[int, dict[str, float]] = {}
    for c in np.unique(train_label).tolist():
        rng = numpy_generator("quality-rows", seed, c)
        real_rows = _some(np.flatnonzero(np.asarray(train_label) == c), max_rows, rng)
        fake_rows = _some(np.flatnonzero(np.asarray(fake_label) == c), max_rows, rng)
        real = _Side(z_train[real_rows], np.asarray(train_patients)[real_rows])
        per_class[c] = _class_report(compare, real, _Side(z_fake[fake_rows]), repeats, seed)
    report = {
        name: float(np.mean([scores[name] for scores in per_class.values()]))
        for name in next(iter(per_class.values()))
    }
    for c, scores in per_class.items():
        report |= {f"fd_class{c}": scores["fd"], f"fd_null_class{c}": scores["fd_null"]}
    report["fd_dimensions"] = float(dimensions)
    report |= _copying(z_train, z_heldout, z_fake, train_patients, heldout_patients)
    test = (z_heldout, heldout_label)
    report["tstr"] = train_on_test_on(z_fake, fake_label, *test, estimator=estimator)
    report["trtr"] = train_on_test_on(z_train, train_label, *test, estimator=estimator)
    return report


class _Side(NamedTuple):
    """Rows of one class in the projection, and whose they are (None: synthetic)."""

    rows: Array
    patients: Array | None = None

    def take(self, index: Array) -> _Side:
        return _Side(self.rows[index], None if self.patients is None else self.patients[index])


class _Comparison(NamedTuple):
    """How a side is compared with the real rows of its class."""

    frechet_dimensions: int
    feature_dimensions: int
    k: int
    estimator: Any
    seed: int

    def __call__(self, real: _Side, other: _Side) -> dict[str, float]:
        x, y, d = real.rows, other.rows, self.frechet_dimensions
        scores = dict.fromkeys(_SCORES, math.nan)
        if min(len(x), len(y)) < 2:
            return scores
        # the kernel divides x.y by its columns, which are not those of the features
        to_features = math.sqrt(x.shape[1] / self.feature_dimensions)
        scores["fd"] = frechet_distance(x[:, :d], y[:, :d])
        scores["kid"] = kernel_distance(x * to_features, y * to_features)
        scores["diversity"] = diversity_ratio(x, y)
        patients = (real.patients, other.patients)
        scores["c2st"] = classifier_two_sample(
            x[:, :d], y[:, :d], *patients, estimator=self.estimator, seed=self.seed
        )
        k = min(self.k, most_neighbours(x, real.patients), most_neighbours(y, other.patients))
        return scores | support_scores(x, y, k, *patients) if k > 0 else scores


def _class_report(
    compare: _Comparison, real: _Side, fake: _Side, repeats: int, seed: int
) -> dict[str, float]:
    """Scores of one class with their null values and standard errors."""
    d = compare.frechet_dimensions
    report = compare(real, fake) | dict.fromkeys(("fd_lw", "fd_inf"), math.nan)
    if min(len(real.rows), len(fake.rows)) >= 2:
        report["fd_lw"] = frechet_distance_shrunk(real.rows[:, :d], fake.rows[:, :d])
        report["fd_inf"] = frechet_infinity(real.rows[:, :d], fake.rows[:, :d], seed=seed)
    for name in _SCORES:
        report |= {f"{name}_null": math.nan, f"{name}_se": math.nan}
    report["fd_ratio"] = math.nan
    assert real.patients is not None
    if len(np.unique(real.patients)) < 2:
        return report
    fakes: list[dict[str, float]] = []
    nulls: list[dict[str, float]] = []
    for a, b in patient_halves(real.patients, repeats, seed):
        # As many of the others' rows as of the fakes: distances grow and coverage falls with fewer.
        rng = numpy_generator("quality-half", seed, len(fakes))
        n = min(len(fake.rows) // 2, len(b))
        half = real.take(a)
        fakes.append(compare(half, fake.take(rng.permutation(len(fake.rows))[:n])))
        nulls.append(compare(half, real.take(rng.permutation(b)[:n])))
    for name in _SCORES:
        report[name] = float(np.mean([scores[name] for scores in fakes]))
        report[f"{name}_null"] = float(np.mean([scores[name] for scores in nulls]))
        report[f"{name}_se"] = float(np.std([scores[name] for scores in fakes], ddof=1))
    report["fd_ratio"] = report["fd"] / report["fd_null"]
    return report


def _copying(
    train: Array, heldout: Array, fake: Array, patients: Array, heldout_patients: Array
) -> dict[str, float]:
    audit = near_copies(train, heldout, fake, patients, heldout_patients)
    attack = membership_attack(train, heldout, fake, patients, heldout_patients)
    return {
        "nn_ratio": nn_distance_ratio(train, heldout, fake),
        "authenticity": authenticity(train, fake, patients),
        "authenticity_null": authenticity(train, heldout, patients),
        "near_copy_rate": audit.rate,
        "near_copy_rate_low": audit.low,
        "near_copy_rate_high": audit.high,
        "near_copy_rate_heldout": audit.heldout_rate,
        "near_copy_threshold": audit.threshold,
        "membership_auc": attack.auc,
        "membership_auc_low": attack.low,
        "membership_auc_high": attack.high,
    }


def _some(rows: Array, most: int, rng: np.random.Generator) -> Array:
    return rows if len(rows) <= most else np.sort(rng.permutation(rows)[:most])


def _linear() -> Any:
    """No scaling of its own: where generated rows hardly vary, it would blow up what real ones do
    there, and a test on real rows would be decided by that. The rows are standardised already."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced")
