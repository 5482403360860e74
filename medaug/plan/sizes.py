"""Training-set sizes, their draws, and how many real rows each leaves over."""

from __future__ import annotations

from collections.abc import Mapping

from medaug.errors import UserError
from medaug.experiment.rows import held_back_rows
from medaug.spec import StudySpec
from medaug.spec.trial import TrainingSet
from medaug.store import Store

Size = tuple[int | None, int]
"""Real training rows (None: all), and which draw of them."""

HeldBack = Mapping[int, int]
"""Real training rows -> the fewest that are left over, over folds and draws."""

Given = Mapping[tuple[str, int, int, Size], str]
"""Signature of an arm, fold, seed and size -> the store of what another tool has made for it."""


def held_back_counts(
    study: StudySpec, train_rows: int | None, held_back: HeldBack | None
) -> tuple[int, ...]:
    """How many real rows the positive control adds to a training set: as far as there are any.

    None are left over by all rows; without ``held_back`` there are taken to be enough.
    """
    if train_rows is None:
        return ()
    counts = study.sweep.n_synthetic
    return counts if held_back is None else tuple(n for n in counts if n <= held_back[train_rows])


def sizes_of(study: StudySpec) -> list[Size]:
    """Every size in every draw; there is one draw of all rows."""
    axis = study.sweep
    small: list[Size] = [(n, draw) for n in axis.small_sizes for draw in range(axis.draws)]
    everything: list[Size] = [(None, 0)]
    return small + (everything if axis.train_rows is None or "all" in axis.train_rows else [])


def held_back(study: StudySpec, slices: Store) -> HeldBack:
    """What is left of each fold's training rows.

    Raises:
        UserError: ``sweep.train_rows`` wants more than some fold can give.
    """
    folds = [slices.split("train", fold) for fold in range(study.split.folds)]
    have = min(map(len, folds))
    wanted = max(study.sweep.small_sizes, default=0)
    if wanted > have:
        raise UserError(
            f"sweep.train_rows: {wanted}, but the smallest fold trains on {have} rows; ask for "
            f"{have} at most, or for all"
        )
    return {
        n: min(
            len(held_back_rows(train, TrainingSet(n, fold, draw)))
            for fold, train in enumerate(folds)
            for draw in range(study.sweep.draws)
        )
        for n in study.sweep.small_sizes
    }
