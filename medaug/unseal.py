"""Opening a run's sealed test set: the best configurations, their reference and ``none``, once.

Until then nothing has read the test patients' rows but the leakage scan (pixels, no labels), and no
score of theirs exists. Opening it is written down: who, when, and how many configurations had been
tried by then. A second look shows what the first one saw, and is written down too.
"""

from __future__ import annotations

import getpass
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medaug.audit.sealed import FILE, LOG, openings_of, unsealed_of
from medaug.errors import UserError
from medaug.experiment.sealed import load_classifier, sealed_rows
from medaug.metrics.board import Board, Contrast
from medaug.metrics.predictions import Predictions
from medaug.metrics.uncertainty import Interval, interval
from medaug.ownership.seals import open_journal
from medaug.results.leaderboard import leaderboard_of
from medaug.results.records import TrialRecord, read_study, read_trial, read_trials
from medaug.results.rows import UNRANKABLE, Leaderboard, Row
from medaug.results.table import with_interval
from medaug.storage import storage_at
from medaug.storage.json_files import write_json
from medaug.store import Store
from medaug.train.world import World

Progress = Callable[[int, int, str], None]
Record = dict[str, Any]


def unseal(folder: Path, progress: Progress | None = None) -> Record:
    """Score the test patients of the run in ``folder``, or tell what they scored the first time.

    The classifiers of all folds vote under each seed: their probabilities are averaged, and so are
    the thresholds that each chose on its own validation patients. The balanced accuracy and the
    gain are of patients, as on the leaderboard; scores of slices stand beside them. Intervals are
    95 %, over patients, seeds and draws. The record is kept as ``unsealed.json``.

    Raises:
        UserError: no test set was sealed, trials are unfinished, or no configuration is rankable.
        IntegrityError: a store, model or checkpoint is damaged.
    """
    board = leaderboard_of(folder)
    if (record := unsealed_of(folder)) is not None:
        _log(folder, board)
        return record
    roles = _roles(folder, board)
    chosen = list({row.title: row for row in roles.values()}.values())
    opening = _log(folder, board)  # first: from now on somebody may have seen something
    tables, about = _test(folder, chosen, progress)
    reference, together = roles["reference"].title, Board.of(tables)
    rows = [
        {
            "configuration": row.title,
            "roles": [role for role, holder in roles.items() if holder is row],
            "scores": {
                "balanced_accuracy": _of_contrast(together.contrast(row.title)),
                **dict(_slice_scores(tables[row.title], board.classes)),
            },
            "gain": None
            if row.title == reference
            else _of_contrast(together.contrast(row.title, reference)),
            "cross_validated": {"mean": row.mean, "low": row.low, "high": row.high},
        }
        for row in chosen
    ]
    record = {"run": folder.name, **opening, **about, "rows": rows}
    write_json(folder / FILE, record)
    _seal(folder)
    return record


def render(folder: Path, record: Record) -> str:
    """The record for a terminal."""
    patients = " + ".join(f"{n} {name}" for name, n in record["patients"].items())
    tried = record["configurations_tried"]
    lines = [
        f"{record['run']}: sealed test set of {patients} patients ({record['slices']} slices)",
        f"opened by {record['who']} on {record['when']}, after {tried} configurations were tried",
        "",
    ]
    for row in record["rows"]:
        lines.append(f"{row['configuration']} ({', '.join(row['roles'])})")
        lines += [f"  {name:<26}{_text(value)}" for name, value in row["scores"].items()]
        if row["gain"] is not None:
            lines.append(f"  {'gain over the reference':<26}{_text(row['gain'], signed=True)}")
        before = _text(row["cross_validated"])
        lines.append(f"  {'cross-validated before':<26}{before} (balanced accuracy)")
    openings = openings_of(folder)
    if len(openings) > 1:
        last, n = openings[-1], len(openings)
        lines += ["", f"opened {n} times in all, last by {last['who']} on {last['when']}"]
    return "\n".join(lines)


def _roles(folder: Path, board: Leaderboard) -> dict[str, Row]:
    """What is to be tested, and as what.

    Raises:
        UserError: the test set cannot be opened; says why.
    """
    if not read_study(folder).split.test_fraction:
        raise UserError(
            f"{folder.name}: no test set was sealed; set split.test_fraction (0.2, say) in a study "
            "of another name"
        )
    begun = any(row.replicates == row.expected for row in board.rows)
    unfinished = sum(trial.status == "unfinished" for trial in read_trials(folder))
    if unfinished or not begun:
        raise UserError(
            f"{folder.name}: {unfinished or 'all'} trials are unfinished, and the test set can be "
            f"opened only once; `medaug resume {folder.name}` first"
        )
    best = board.rows[0]
    if best.rank is None:
        why = next(flag for flag in best.flags if flag.startswith(UNRANKABLE))
        raise UserError(
            f"{folder.name}: {why.removeprefix(UNRANKABLE)}, so no configuration is rankable and "
            "there is none to test"
        )
    peers = [row for row in board.rows if row.train_rows == best.train_rows]
    roles = {"best-ranked": best}
    for role, belongs in {
        "best-ranked with synthetic data": lambda row: row.synthetic and row.rank,
        "reference": lambda row: row.title == best.reference,
        "no added rows": lambda row: row.kind == "none" and row.classifier == best.classifier,
    }.items():
        if (row := next(filter(belongs, peers), None)) is not None:
            roles[role] = row
    return roles


def _test(
    folder: Path, chosen: Sequence[Row], progress: Progress | None
) -> tuple[dict[str, Predictions], Record]:
    """Predictions on the test patients, by configuration, and what is to be said of them."""
    world = World.single("cuda" if torch.cuda.is_available() else "cpu")
    trials = {
        row.title: [read_trial(folder / "trials" / key) for key in row.trials] for row in chosen
    }
    by_features: dict[str, list[TrialRecord]] = {}
    for trial in (trial for group in trials.values() for trial in group):
        by_features.setdefault(trial.classify.features, []).append(trial)
    total, probability = sum(map(len, trials.values())), dict[str, np.ndarray]()
    for group in by_features.values():
        with sealed_rows(group[0], world) as rows:
            for trial in group:
                classifier = load_classifier(trial, world)
                probability[trial.config.key] = classifier.predict(rows, world)
                if progress is not None:
                    progress(len(probability), total, trial.config.title)
            labels, patients, about = rows.labels, rows.patients, _about(rows)
    tables = {
        title: _votes(group, probability, patients, labels, len(about["patients"]))
        for title, group in trials.items()
    }
    return tables, about


def _votes(
    trials: Sequence[TrialRecord],
    probability: Mapping[str, np.ndarray],
    patients: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
) -> Predictions:
    """The mean over folds, under each seed and draw."""
    tables = []
    for seed, draw in sorted({trial.replicate[:2] for trial in trials}):
        own = [trial for trial in trials if trial.replicate[:2] == (seed, draw)]
        thresholds = [trial.classified.threshold for trial in own]
        table = Predictions.of_trial(
            patients,
            labels,
            np.mean([probability[trial.config.key] for trial in own], axis=0, dtype=float),
            seed=seed,
            draw=draw,
            fold=0,
            threshold=float(np.mean(thresholds)),
            n_classes=n_classes,
        )
        tables.append(table)
    return Predictions.concat(tables)


def _about(rows: Store) -> Record:
    """Patients by class (each in the highest of its slices'), slices and the split's hash."""
    highest: dict[str, int] = {}
    for patient, label in zip(rows.patients.tolist(), rows.labels.tolist(), strict=True):
        highest[patient] = max(label, highest.get(patient, 0))
    counts = Counter(highest.values())
    return {
        "split": rows.manifest["splits"]["hash"],
        "patients": {name: counts[label] for label, name in enumerate(rows.classes)},
        "slices": len(rows),
    }


def _slice_scores(table: Predictions, classes: Sequence[str]) -> Iterator[tuple[str, Record]]:
    """Each score of single slices with its interval."""
    metrics = {"slice_balanced_accuracy": "balanced_accuracy"}
    metrics |= {f"slice_recall/{name}": f"recall_class{k}" for k, name in enumerate(classes)}
    metrics |= {f"slice_{name}": name for name in ("accuracy", "macro_f1", "mcc")}
    if len(classes) == 2:
        metrics |= {f"slice_{name}": name for name in ("auroc", "auprc")}
    for name, metric in metrics.items():
        yield name, _plain(interval(table, metric))


def _plain(value: Interval) -> Record:
    """JSON, in which numbers that do not exist are null."""
    return _finite(mean=value.mean, low=value.low, high=value.high)


def _of_contrast(found: Contrast) -> Record:
    low, high = found.bounds()
    return _finite(mean=found.estimate, low=low, high=high)


def _finite(**bounds: float) -> Record:
    return {key: number if math.isfinite(number) else None for key, number in bounds.items()}


def _text(value: Record, *, signed: bool = False) -> str:
    numbers = [math.nan if value[key] is None else value[key] for key in ("mean", "low", "high")]
    return with_interval(*numbers, signed=signed) or "undefined"


def _log(folder: Path, board: Leaderboard) -> Record:
    """Add this opening to the run's log."""
    opening = {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "who": _user(),
        "configurations_tried": board.tried,
    }
    storage_at(folder).append(folder / LOG, json.dumps(opening).encode(), durable=True)
    _seal(folder)
    return opening


def _seal(folder: Path) -> None:
    """Have the run's journal vouch for the record, if it has one."""
    journal = open_journal(folder)
    if journal.record.lines:
        journal.seal(folder / FILE, folder / LOG)
        journal.flush()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"
