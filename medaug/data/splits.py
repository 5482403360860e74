"""Who trains, who chooses and who is scored: decided by patient, before anything is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medaug.errors import UserError
from medaug.seeding import numpy_generator, seed_of
from medaug.spec.study import SplitSpec
from medaug.store.schema import Fold, Splits


def make_splits(
    patients: Sequence[str],
    labels: Sequence[int],
    spec: SplitSpec,
    classes: Sequence[str] | None = None,
) -> Splits:
    """Nested, class-stratified cross-validation over patients (the honest protocol).

    First the sealed test patients are drawn, then ``spec.folds`` folds of the others
    (``StratifiedGroupKFold``), then from each fold's remaining patients those that choose epochs
    and thresholds. Classes keep their proportions at every step, counted in patients.

    Scheme ``published``: one random cut instead, classes in proportion, with or without ``val``.

    Args:
        patients: one entry per scan; the outcome does not depend on their order. With
            ``spec.unit`` image: the scans' own names.
        labels: class index of each entry (see :func:`patient_labels`).
        classes: names for messages.

    Raises:
        UserError: "cannot stratify" when some role of some fold would lack a class.
    """
    label_of = patient_labels(patients, labels)
    names = np.array(sorted(label_of))
    strata = np.array([label_of[name] for name in names.tolist()], int)
    n_classes = max(2, len(classes or ()), int(strata.max(initial=-1)) + 1)
    counts = np.bincount(strata, minlength=n_classes)
    if spec.scheme == "published":
        _check_one_cut(counts, spec, classes)
        return _one_cut(names, strata, spec)
    _check_feasible(counts, spec, classes)
    return _nested_folds(names, strata, spec)


def _nested_folds(names: np.ndarray, strata: np.ndarray, spec: SplitSpec) -> Splits:
    """Scheme ``grouped_kfold`` over patients who are known to suffice."""
    from sklearn.model_selection import StratifiedGroupKFold  # a second that only this needs

    test = _hold_out(strata, spec.test_fraction, spec.seed, "test")
    rest = np.flatnonzero(~test)
    cut = StratifiedGroupKFold(
        spec.folds, shuffle=True, random_state=seed_of(spec.seed, "folds") % 2**32
    )
    folds = []
    for number, (training, held_out) in enumerate(cut.split(rest, strata[rest], names[rest])):
        inside, outside = rest[training], rest[held_out]
        chooses = _hold_out(strata[inside], spec.val_fraction, spec.seed, "val", number)
        roles = (inside[~chooses], inside[chooses], outside)
        assert all(len(np.unique(strata[role])) == len(np.unique(strata)) for role in roles)
        folds.append(Fold(*(tuple(names[role].tolist()) for role in roles)))
    return Splits(tuple(folds), tuple(names[test].tolist()), spec.seed)


def _one_cut(names: np.ndarray, strata: np.ndarray, spec: SplitSpec) -> Splits:
    """The single fold of scheme ``published``."""
    held_out = _hold_out(strata, spec.eval_fraction, spec.seed, "published eval")
    inside = np.flatnonzero(~held_out)
    chooses = _hold_out(strata[inside], spec.val_fraction, spec.seed, "published val")
    roles = (inside[~chooses], inside[chooses], np.flatnonzero(held_out))
    fold = Fold(*(tuple(names[role].tolist()) for role in roles))
    return Splits((fold,), (), spec.seed, spec.unit)


def rename_patients(splits: Splits, new_name: Mapping[str, str]) -> Splits:
    """The same split under other names (raw ids -> pseudonyms), each role sorted by them."""

    def renamed(patients: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(new_name[patient] for patient in patients))

    folds = (Fold(renamed(f.train), renamed(f.val), renamed(f.eval)) for f in splits.folds)
    return Splits(tuple(folds), renamed(splits.test), splits.seed, splits.unit)


def patient_labels(patients: Sequence[str], labels: Sequence[int]) -> dict[str, int]:
    """One class per patient: the highest of its scans (a patient with one haemorrhage slice is a
    haemorrhage patient)."""
    label_of: dict[str, int] = {}
    for patient, label in zip(patients, labels, strict=True):
        label_of[patient] = max(label, label_of.get(patient, label))
    return label_of


def draw_patients(label_of: Mapping[str, int], n: int, seed: int) -> frozenset[str]:
    """``n`` random patients, the classes in their proportions (largest remainder, at least one)."""
    if n >= len(label_of):
        return frozenset(label_of)
    names = sorted(label_of)
    strata = np.array([label_of[name] for name in names])
    counts = np.bincount(strata)
    exact = n * counts / counts.sum()
    quota = np.where(counts > 0, np.maximum(1, np.floor(exact)), 0).astype(int)
    for index in np.argsort(quota - exact, kind="stable")[: max(0, n - quota.sum())]:
        quota[index] += 1
    drawn: list[int] = []
    for index, size in enumerate(quota):
        members = np.flatnonzero(strata == index)
        order = numpy_generator(seed, "patients", index).permutation(len(members))
        drawn.extend(members[order[:size]].tolist())
    return frozenset(names[index] for index in drawn)


def _hold_out(strata: np.ndarray, fraction: float, seed: int, *purpose: int | str) -> np.ndarray:
    """A mask of about ``fraction`` of every class, at least one patient of each."""
    held = np.zeros(len(strata), bool)
    for stratum in np.unique(strata) if fraction else ():
        members = np.flatnonzero(strata == stratum)
        order = numpy_generator(seed, *purpose, int(stratum)).permutation(len(members))
        held[members[order[: _share(len(members), fraction)]]] = True
    return held


def _share(n: int, fraction: float) -> int:
    """Of ``n`` patients: the nearest number to ``fraction``, leaving at least one on both sides."""
    return min(max(1, round(fraction * n)), n - 1)


def _check_one_cut(counts: np.ndarray, spec: SplitSpec, classes: Sequence[str] | None) -> None:
    """Each class needs one for every role."""
    wanted = 3 if spec.val_fraction else 2
    for index, count in enumerate(counts.tolist()):
        if count < wanted:
            name = classes[index] if classes else index
            raise UserError(
                f"split: cannot stratify: class {name} has {count} {spec.unit}s, too few for "
                f"{wanted} parts; add scans or drop the class"
            )


def _check_feasible(counts: np.ndarray, spec: SplitSpec, classes: Sequence[str] | None) -> None:
    """Each class needs a patient in every fold, and two in each fold's training part."""
    for index, count in enumerate(counts.tolist()):
        left = count - (_share(count, spec.test_fraction) if spec.test_fraction else 0)
        in_training = left - -(-left // spec.folds)
        if left < spec.folds or in_training < 2:
            name = classes[index] if classes else index
            raise UserError(
                f"split: cannot stratify: class {name} has {count} patients, too few for "
                f"{spec.folds} folds with train, val and eval parts"
                f"{' and a test set' if spec.test_fraction else ''}; change split.folds, add "
                "patients or drop the class"
            )
