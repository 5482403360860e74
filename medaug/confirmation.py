"""Scoring a run's chosen configurations on patients that had no part in choosing them.

Which configurations these are is decided by the leaderboard alone; the classifiers of all folds
vote under each seed: their probabilities are averaged, and so are the thresholds that each chose on
its own validation patients. The sealed test set (:mod:`medaug.unseal`) and another cohort
(:mod:`medaug.score`) are scored alike, and each leaves a record of who asked, and when.
"""

from __future__ import annotations

import getpass
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medaug.errors import UserError
from medaug.experiment.trained import load_classifier
from medaug.metrics.board import Board, Contrast
from medaug.metrics.predictions import Predictions
from medaug.metrics.uncertainty import Interval, interval
from medaug.ownership.seals import open_journal
from medaug.results.external import text
from medaug.results.records import TrialRecord, read_trial, read_trials
from medaug.results.rows import UNRANKABLE, Leaderboard, Row
from medaug.storage import storage_at
from medaug.store import Store
from medaug.train.world import World

Progress = Callable[[int, int, str], None]
Record = dict[str, Any]
RowsOf = Callable[[TrialRecord, World], AbstractContextManager[Store]]
"""The rows to score, as the classifier of a trial takes them; the same for all trials whose
features have one name."""
BEST = "best-ranked"


def roles_of(folder: Path, board: Leaderboard) -> dict[str, Row]:
    """What is to be scored, and as what: the best, the best with synthetic data, the reference and
    ``none``.

    Raises:
        UserError: trials are unfinished, or no configuration is rankable.
    """
    begun = any(row.replicates == row.expected for row in board.rows)
    unfinished = sum(trial.status == "unfinished" for trial in read_trials(folder))
    if unfinished or not begun:
        raise UserError(
            f"{folder.name}: {unfinished or 'all'} trials are unfinished, and patients who confirm "
            f"are scored only once; `medaug resume {folder.name}` first"
        )
    best = board.rows[0]
    if best.rank is None:
        why = next(flag for flag in best.flags if flag.startswith(UNRANKABLE))
        raise UserError(
            f"{folder.name}: {why.removeprefix(UNRANKABLE)}, so no configuration is rankable and "
            "there is none to test"
        )
    peers = [row for row in board.rows if row.train_rows == best.train_rows]
    roles = {BEST: best}
    for role, belongs in {
        "best-ranked with synthetic data": lambda row: row.synthetic and row.rank,
        "reference": lambda row: row.title == best.reference,
        "no added rows": lambda row: row.kind == "none" and row.classifier == best.classifier,
    }.items():
        if (row := next(filter(belongs, peers), None)) is not None:
            roles[role] = row
    return roles


def confirm(
    folder: Path,
    board: Leaderboard,
    roles: Mapping[str, Row],
    rows_of: RowsOf,
    progress: Progress | None = None,
    *,
    retrain: bool = False,
) -> Record:
    """``patients`` by class, ``slices`` and ``rows``: the scores of each configuration in ``roles``
    and its gain over the reference, with intervals, 95 %, over patients, seeds and draws.

    The balanced accuracy and the gain are of patients, as on the leaderboard; scores of slices
    stand beside them. ``retrain``: networks whose weights are gone are trained again.

    Raises:
        UserError: a classifier is gone, or its features cannot be made.
        IntegrityError: a store, model or checkpoint is damaged.
    """
    chosen = list({row.title: row for row in roles.values()}.values())
    votes, about = votes_of(folder, chosen, rows_of, progress, retrain=retrain)
    tables = {title: _table(each, about, len(board.classes)) for title, each in votes.items()}
    reference = roles["reference"].title if "reference" in roles else None
    together = Board.of(tables)
    rows = [
        {
            "configuration": row.title,
            "roles": [role for role, holder in roles.items() if holder is row],
            "scores": {
                "balanced_accuracy": _of_contrast(together.contrast(row.title)),
                **dict(_recalls(together, row.title, board.classes)),
                **dict(_slice_scores(tables[row.title], board.classes)),
            },
            "gain": None
            if reference is None or row.title == reference
            else _of_contrast(together.contrast(row.title, reference)),
            "cross_validated": {"mean": row.mean, "low": row.low, "high": row.high},
        }
        for row in chosen
    ]
    return {
        "patients": _patients(about, board.classes),
        "slices": len(about),
        "rows": rows,
    }


Votes = list[tuple[int, int, np.ndarray, float]]
"""Seed, draw, class probabilities (n, K) float64 and threshold: means over the folds."""


def votes_of(
    folder: Path,
    chosen: Sequence[Row],
    rows_of: RowsOf,
    progress: Progress | None = None,
    *,
    retrain: bool = False,
) -> tuple[dict[str, Votes], Store]:
    """What the classifiers of each configuration say, by its title, and a store with the rows'
    labels and patients (its tensors may be gone).

    Raises:
        UserError, IntegrityError: as :func:`confirm`.
    """
    world = World.single("cuda" if torch.cuda.is_available() else "cpu")
    trials = {
        row.title: [read_trial(folder / "trials" / key) for key in row.trials] for row in chosen
    }
    by_features: dict[str, list[TrialRecord]] = {}
    for trial in (trial for group in trials.values() for trial in group):
        by_features.setdefault(trial.classify.features, []).append(trial)
    total, probability = sum(map(len, trials.values())), dict[str, np.ndarray]()
    about: Store | None = None
    for group in by_features.values():
        with rows_of(group[0], world) as rows:
            for trial in group:
                classifier = load_classifier(trial, world, retrain=retrain)
                probability[trial.config.key] = classifier.predict(rows, world)
                if progress is not None:
                    progress(len(probability), total, trial.config.title)
            about = rows
    assert about is not None
    return {title: _votes(group, probability) for title, group in trials.items()}, about


def _votes(trials: Sequence[TrialRecord], probability: Mapping[str, np.ndarray]) -> Votes:
    votes: Votes = []
    for seed, draw in sorted({trial.replicate[:2] for trial in trials}):
        own = [trial for trial in trials if trial.replicate[:2] == (seed, draw)]
        mean = np.mean([probability[trial.config.key] for trial in own], axis=0, dtype=float)
        threshold = float(np.mean([trial.classified.threshold for trial in own]))
        votes.append((seed, draw, mean, threshold))
    return votes


def _table(votes: Votes, about: Store, n_classes: int) -> Predictions:
    return Predictions.concat(
        [
            Predictions.of_trial(
                about.patients,
                about.labels,
                probability,
                seed=seed,
                draw=draw,
                fold=0,
                threshold=threshold,
                n_classes=n_classes,
            )
            for seed, draw, probability, threshold in votes
        ]
    )


def _patients(rows: Store, classes: Sequence[str]) -> dict[str, int]:
    """Patients by class, each in the highest of its slices'."""
    highest: dict[str, int] = {}
    for patient, label in zip(rows.patients.tolist(), rows.labels.tolist(), strict=True):
        highest[patient] = max(label, highest.get(patient, 0))
    counts = Counter(highest.values())
    return {name: counts[label] for label, name in enumerate(classes)}


def _recalls(board: Board, title: str, classes: Sequence[str]) -> Iterator[tuple[str, Record]]:
    """Share of each class's patients that are right, without an interval."""
    for name, value in zip(classes, board.hits[title].recalls().tolist(), strict=True):
        yield f"recall/{name}", _finite(mean=value, low=math.nan, high=math.nan)


def _slice_scores(table: Predictions, classes: Sequence[str]) -> Iterator[tuple[str, Record]]:
    """Each score of single slices with its interval."""
    metrics = {"slice_balanced_accuracy": "balanced_accuracy"}
    metrics |= {f"slice_recall/{name}": f"recall_class{k}" for k, name in enumerate(classes)}
    metrics |= {f"slice_{name}": name for name in ("accuracy", "macro_f1", "mcc")}
    if len(classes) == 2:
        metrics |= {f"slice_{name}": name for name in ("auroc", "auprc")}
    for name, metric in metrics.items():
        yield name, _plain(interval(table, metric))


def rendered_rows(record: Record) -> Iterator[str]:
    """The rows of a record for a terminal."""
    for row in record["rows"]:
        yield f"{row['configuration']} ({', '.join(row['roles'])})"
        yield from (
            f"  {name:<26}{text(value) or 'undefined'}" for name, value in row["scores"].items()
        )
        if row["gain"] is not None:
            yield f"  {'gain over the reference':<26}{text(row['gain'], signed=True)}"
        before = text(row["cross_validated"])
        yield f"  {'cross-validated before':<26}{before} (balanced accuracy)"


def asked_again(openings: Sequence[Record]) -> Iterator[str]:
    """How often it was asked for, where that is more than once."""
    if len(openings) > 1:
        last, n = openings[-1], len(openings)
        yield ""
        yield f"opened {n} times in all, last by {last['who']} on {last['when']}"


def log_opening(folder: Path, log: str, board: Leaderboard, **about: str) -> Record:
    """Add to the run's file ``log`` who asks now, and after how many configurations; ``about``
    tells what is asked for. Returns what was written."""
    opening = {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "who": _user(),
        "configurations_tried": board.tried,
        **about,
    }
    storage_at(folder).append(folder / log, json.dumps(opening).encode(), durable=True)
    seal(folder, log)
    return opening


def seal(folder: Path, *names: str) -> None:
    """Have the run's journal vouch for these files, if it has one."""
    journal = open_journal(folder)
    if journal.record.lines:
        journal.seal(*(folder / name for name in names))
        journal.flush()


def _plain(value: Interval) -> Record:
    """JSON, in which numbers that do not exist are null."""
    return _finite(mean=value.mean, low=value.low, high=value.high)


def _of_contrast(found: Contrast) -> Record:
    low, high = found.bounds()
    return _finite(mean=found.estimate, low=low, high=high)


def _finite(**bounds: float) -> Record:
    return {key: number if math.isfinite(number) else None for key, number in bounds.items()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"
