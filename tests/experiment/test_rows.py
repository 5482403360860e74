"""The training-set size axis: whole patients, classes in turn, each size inside the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medaug.experiment.rows import first_rows, held_back_rows
from medaug.store import Fold, Provenance, Splits, Store, StoreSchema, StoreWriter

POSITIVE = ("p0", "p3", "p6")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Nine patients of 1 to 9 rows; patients 0, 3 and 6 have a positive row, their last."""
    patients = [f"p{i}" for i in range(9) for _ in range(i + 1)]
    index = np.concatenate([np.arange(i + 1) for i in range(9)])
    positive = np.isin(patients, POSITIVE) & (index == np.repeat(range(9), range(1, 10)))
    splits = Splits((Fold(tuple(f"p{i}" for i in range(9)), ("v",), ("e",)),))
    origin = Provenance("slices", "0" * 12, (), (), synthetic=False)
    shape = StoreSchema((1, 2, 2), "float32")
    with StoreWriter(
        tmp_path / "s", shape, provenance=origin, classes=("no", "yes"), splits=splits
    ) as writer:
        writer.write(
            np.zeros((45, 1, 2, 2), np.float32),
            label=positive.astype(int),
            patient=patients,
            volume=patients,
            slice_index=index,
        )
    return Store.open(tmp_path / "s")


def test_sizes_are_nested_whole_patients_of_both_classes(store: Store) -> None:
    before: set[str] = set()
    for n in (1, 5, 12, 20, 45, 100):
        kept = store.select(first_rows(store, n, fold=0, draw=0))
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
    firsts = {tuple(np.unique(store.patients[first_rows(store, 5, fold, 0)])) for fold in range(5)}
    assert len(firsts) > 1


def test_another_draw_is_another_set_and_what_is_left_completes_it(store: Store) -> None:
    sets = {tuple(np.flatnonzero(first_rows(store, 5, 0, draw))) for draw in range(8)}
    assert len(sets) > 4
    for draw in range(3):
        kept = np.flatnonzero(first_rows(store, 12, 0, draw))
        rest = held_back_rows(store, 12, 0, draw)
        assert sorted([*kept, *rest]) == list(range(45))
        # Held-back rows come in the order in which a larger training set would take them.
        larger = np.flatnonzero(first_rows(store, 20, 0, draw))
        more = len(larger) - len(kept)
        assert set(rest[:more]) == set(larger) - set(kept)
