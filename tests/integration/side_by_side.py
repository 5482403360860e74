"""What a finished run scores without synthetic rows, beside a linear model of scikit-learn.

    python -m tests.integration.side_by_side RUN_FOLDER …

Same stores, folds and small training sets (:mod:`tests.integration.linear_reference`, none of
medaug's classifiers); balanced accuracy of slices, mean over folds and draws.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medaug.experiment import output_name
from medaug.experiment.rows import first_rows
from medaug.results.leaderboard import leaderboard_of
from medaug.results.rows import MORE_REAL
from medaug.spec import ExtractTrial
from medaug.storage.artifacts import Artifacts
from medaug.storage.trial_folder import TrialFolder
from medaug.store import Store
from tests.integration.linear_reference import Fold, reference

OWN = ("", "probe")
"""What a study that ``medaug init`` wrote calls its classifier."""


@dataclass(frozen=True)
class Line:
    """One training-set size of one run."""

    run: str
    train_rows: int | None
    best: str
    """The best configuration without synthetic rows, by its slices."""
    ours: float
    plain: float
    """Of that, and of the run's probe on the real rows as they are."""
    pixels: float
    network: float
    """The yardstick on pixels, and on the frozen network's features."""

    def __str__(self) -> str:
        size = "all" if self.train_rows is None else self.train_rows
        return (
            f"{self.run:8} {size!s:>5} rows: medaug {self.ours:.3f} ({self.best}; none"
            f" {self.plain:.3f}), scikit-learn"
            f" {self.network:.3f} (lite0), {self.pixels:.3f} (pixels)"
        )


def compare(folder: Path) -> Iterator[Line]:
    """A line a training-set size of the run in ``folder``."""
    artifacts = Artifacts(folder.parent)
    trials = [TrialFolder(folder, path.name).config() for path in (folder / "trials").iterdir()]
    slices, network = _stores(trials, artifacts)
    board = leaderboard_of(folder)
    for size in sorted({row.train_rows for row in board.rows}, key=lambda n: n or 1 << 30):
        rows = [
            row
            for row in board.rows
            if row.train_rows == size and not row.synthetic and row.kind != MORE_REAL
        ]
        best = max(rows, key=lambda row: row.scores["slice_balanced_accuracy"])
        scores = [
            reference(
                store.read().x.float().numpy(), store.labels, _folds(store, size, best.draws)
            ).balanced_accuracy
            for store in (slices, network)
        ]
        plain = next(row for row in rows if row.kind == "none" and row.classifier in OWN)
        pair = (row.scores["slice_balanced_accuracy"] for row in (best, plain))
        yield Line(folder.name, size, best.title, *pair, *scores)


def _stores(trials: Sequence[object], artifacts: Artifacts) -> tuple[Store, Store]:
    for trial in trials:
        if not isinstance(trial, ExtractTrial) or trial.maker is not None:
            continue
        if trial.encoder is not None and trial.encoder.kind == "efficientnet_lite0":
            name = output_name(trial)
            return artifacts.open_store(trial.slices), artifacts.open_store(name)
    raise SystemExit("the run has no features of efficientnet_lite0")


def _folds(store: Store, size: int | None, draws: int) -> list[Fold]:
    """Rows that are fitted to (all but the scored ones, or a small draw of the training ones), and
    scored ones."""
    assert store.splits is not None
    folds: list[Fold] = []
    for fold in range(len(store.splits.folds)):
        scored = _numbers(store, store.split("eval", fold))
        if size is None:
            rest = [_numbers(store, store.split(part, fold)) for part in ("train", "val")]
            folds.append((np.concatenate(rest), scored))
            continue
        train = store.split("train", fold)
        for draw in range(draws):
            chosen = train.select(np.flatnonzero(first_rows(train, size, fold, draw)))
            folds.append((_numbers(store, chosen), scored))
    return folds


def _numbers(store: Store, part: Store) -> np.ndarray:
    return np.flatnonzero(np.isin(store.units, part.units))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        for line in compare(Path(name)):
            print(line, flush=True)
