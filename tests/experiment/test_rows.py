"""The training-set size axis: whole patients, classes in turn, each size inside the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medaug.experiment.rows import first_rows, held_back_rows
from medaug.spec.trial import TrainingSet
from medaug.store import Fold, Provenance, Splits, Store, StoreSchema, StoreWriter

POSITIVE = ("p0", "p3", "p6")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return written(tmp_path / "s", [f"p{i}" for i in range(9)])


def written(path: Path, names: list[str]) -> Store:
    """Nine patients of 1 to 9 rows; patients 0, 3 and 6 have a positive row, their last."""
    which = np.repeat(range(9), range(1, 10))
    patients = [names[i] for i in which]
    index = np.concatenate([np.arange(i + 1) for i in range(9)])
    positive = (which % 3 == 0) & (index == which)
    splits = Splits((Fold(tuple(names), ("v",), ("e",)),))
    origin = Provenance("slices", "0" * 12, (), (), synthetic=False)
    shape = StoreSchema((1, 2, 2), "float32")
    with StoreWriter(
        path, shape, provenance=origin, classes=("no", "yes"), splits=splits
    ) as writer:
        writer.write(
            np.zeros((45, 1, 2, 2), np.float32),
            label=positive.astype(int),
            patient=patients,
            volume=patients,
            slice_index=index,
        )
    return Store.open(path)


def test_what_patients_are_called_decides_nothing(store: Store, tmp_path: Path) -> None:
    """Their pseudonyms follow the site's key, which no other lab has."""
    other = written(tmp_path / "other", [f"p-{7 * i % 9}" for i in range(9)])
    for draw in range(3):
        wanted = TrainingSet(12, 0, draw)
        np.testing.assert_array_equal(first_rows(store, wanted), first_rows(other, wanted))
        np.testing.assert_array_equal(held_back_rows(store, wanted), held_back_rows(other, wanted))
    by_name = TrainingSet(12, 0, drawn_by="name")  # as older runs have been drawn
    assert first_rows(store, by_name).tolist() != first_rows(other, by_name).tolist()


def test_sizes_are_nested_whole_patients_of_both_classes(store: Store) -> None:
    before: set[str] = set()
    for n in (1, 5, 12, 20, 45, 100):
        kept = store.select(first_rows(store, TrainingSet(n, fold=0)))
        assert len(kept) >= min(n, 45)
        patients = set(kept.patients.tolist())
        assert before <= patients
        for patient in patients:
            assert (kept.patients == patient).sum() == (store.patients == patient).sum()
        assert patients & set(POSITIVE)
        assert patients - set(POSITIVE)
        before = patients
    assert len(before) == 9


def test_another_fold_begins_with_others(store: Store) -> None:
    firsts = {
        tuple(np.unique(store.patients[first_rows(store, TrainingSet(5, fold))]))
        for fold in range(5)
    }
    assert len(firsts) > 1


def test_another_draw_is_another_set_and_what_is_left_completes_it(store: Store) -> None:
    sets = {tuple(np.flatnonzero(first_rows(store, TrainingSet(5, 0, draw)))) for draw in range(8)}
    assert len(sets) > 4
    for draw in range(3):
        kept = np.flatnonzero(first_rows(store, TrainingSet(12, 0, draw)))
        rest = held_back_rows(store, TrainingSet(12, 0, draw))
        assert sorted([*kept, *rest]) == list(range(45))
        # Held-back rows come in the order in which a larger training set would take them.
        larger = np.flatnonzero(first_rows(store, TrainingSet(20, 0, draw)))
        more = len(larger) - len(kept)
        assert set(rest[:more]) == set(larger) - set(kept)
