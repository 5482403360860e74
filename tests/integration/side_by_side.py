"""What a finished run scores without synthetic rows, beside a linear model of scikit-learn.

    python -m tests.integration.side_by_side RUN_FOLDER …

Same stores, folds and small training sets (:mod:`tests.integration.linear_reference`, none of
medaug's classifiers); balanced accuracy of slices, mean over folds and draws. Beside it the
difference to the network's features with a 95 % interval over patients, of all folds together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medaug.experiment import output_name
from medaug.experiment.rows import first_rows
from medaug.results.leaderboard import leaderboard_of
from medaug.results.records import predictions_of, read_trial
from medaug.results.rows import MORE_REAL, Row
from medaug.spec import ExtractTrial
from medaug.spec.trial import TrainingSet
from medaug.storage.artifacts import Artifacts
from medaug.storage.trial_folder import TrialFolder
from medaug.store import Store
from tests.integration.linear_reference import Fold, of_rows, reference, score_folds

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
    above: tuple[float, float, float]
    """The best less the latter, with the ends of its interval."""

    def __str__(self) -> str:
        size = "all" if self.train_rows is None else self.train_rows
        difference, low, high = self.above
        return (
            f"{self.run:8} {size!s:>5} rows: medaug {self.ours:.3f} ({self.best}; none"
            f" {self.plain:.3f}), scikit-learn"
            f" {self.network:.3f} (lite0), {self.pixels:.3f} (pixels);"
            f" medaug - lite0 {difference:+.3f} [{low:+.3f}, {high:+.3f}]"
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
        folds = _folds(network, size, best.draws)
        p = list(of_rows(network.read().x.float().numpy(), network.labels, folds))
        lite0 = score_folds(network.labels, folds, p).balanced_accuracy
        pixels = reference(
            slices.read().x.float().numpy(), slices.labels, _folds(slices, size, best.draws)
        ).balanced_accuracy
        plain = next(row for row in rows if row.kind == "none" and row.classifier in OWN)
        pair = (row.scores["slice_balanced_accuracy"] for row in (best, plain))
        theirs = _their_hits(network, folds, [each.argmax(1) for each in p])
        above = _difference(_our_hits(folder, best, len(network.classes)), theirs)
        yield Line(folder.name, size, best.title, *pair, pixels, lite0, above)


def _our_hits(folder: Path, row: Row, n_classes: int) -> pd.DataFrame:
    """The share of a patient's slices of a class that is called right, by patient and class."""
    trials = [read_trial(folder / "trials" / key) for key in row.trials]
    p = predictions_of(trials, n_classes)
    return _hits(p.patient, p.label, p.predicted)


def _their_hits(
    network: Store, folds: Sequence[Fold], called: Sequence[np.ndarray]
) -> pd.DataFrame:
    rows = np.concatenate([scored for _, scored in folds])
    return _hits(network.patients[rows], network.labels[rows], np.concatenate(called))


def _hits(patient: np.ndarray, label: np.ndarray, called: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame({"patient": patient, "label": label, "hit": called == label})
    return table.groupby(["patient", "label"])["hit"].agg(["mean", "size"])


def _difference(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[float, float, float]:
    """Balanced accuracy of ours less theirs, and the ends of its interval over patients."""
    gap = (ours["mean"] - theirs["mean"]) * theirs["size"]
    gaps, sizes = (
        each.astype(float).unstack(fill_value=0.0).to_numpy() for each in (gap, theirs["size"])
    )
    n = len(gaps)
    times = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), 2000)
    times = np.concatenate([np.ones((1, n)), times])
    with np.errstate(invalid="ignore"):
        found = np.nanmean((times @ gaps) / (times @ sizes), axis=1)
    return float(found[0]), *map(float, np.quantile(found[1:], (0.025, 0.975)))


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
            chosen = train.select(np.flatnonzero(first_rows(train, TrainingSet(size, fold, draw))))
            folds.append((_numbers(store, chosen), scored))
    return folds


def _numbers(store: Store, part: Store) -> np.ndarray:
    return np.flatnonzero(np.isin(store.units, part.units))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        for line in compare(Path(name)):
            print(line, flush=True)
