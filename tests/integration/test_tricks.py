"""Tricks that would win a weaker comparison are refused or matched: whole studies, real code.

``pytest -m slow -s tests/integration/test_tricks.py`` prints the numbers of docs/calibration.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medaug.errors import UserError
from medaug.experiment import run_trial
from medaug.results.records import read_trials
from medaug.results.rows import Leaderboard
from medaug.spec import StudySpec
from medaug.storage.artifacts import Artifacts
from medaug.store import Store
from medaug.train.world import World
from tests.integration.planted import (
    Truth,
    beside,
    plan_here,
    planted,
    row_of_arm,
    run_planted,
    shown,
    write_rows,
)
from tests.store.cohorts import write_cohort

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

REPETITIONS = 3
SIMPLE = ("none", "duplicate", "classical")


def told(name: str, study: StudySpec, board: Leaderboard) -> tuple[bool, bool]:
    """Whether SMOTE's bound is above zero beside ``none`` alone, and beside all controls."""
    alone = row_of_arm(beside(study, ("none", "smote")), "smote")
    simple = row_of_arm(beside(study, (*SIMPLE, "smote")), "smote")
    whole = row_of_arm(board, "smote")
    print(f"\n{name}: smote beside none alone {shown(alone)}")
    print(f"  beside none, duplicate and classical {shown(simple)}: {simple.ending}")
    print(f"  beside all controls {shown(whole)}: {whole.ending}")
    assert whole.conclusion is not None, "a row that cannot be ranked would prove nothing"
    assert not alone.conclusion, "without its controls it is not rankable"
    return alone.gain_low > 0, whole.ending == "gain"


def test_smote_under_imbalance(tmp_path: Path) -> None:
    """Each fold trains on 60, 60 and 6 patients: SMOTE adds 60 of each class."""
    truth, seen, gains = Truth((400, 400, 40), apart=2.6, dimensions=20, slices=1), 0, 0
    for number in range(REPETITIONS):
        study = planted(
            tmp_path / str(number),
            truth,
            split={"folds": 2, "val_fraction": 0.7},
            arms={"smote": {}},
            classifier={"kind": "probe", "refit": False},
            sweep={"n_synthetic": [180], "seeds": [0, 1, 2]},
        )
        write_cohort(study, *truth.images(np.random.default_rng([13, number])))
        above_none, gain = told("60:60:6", study, run_planted(study))
        seen += above_none
        gains += gain
    assert seen == REPETITIONS, "the study could not have seen SMOTE rebalance"
    assert gains == 0


def test_smote_under_wrong_labels(tmp_path: Path) -> None:
    """30 % of the training patients are of another class than their label says."""
    truth, seen, gains = Truth((120, 120), dimensions=20, slices=1), 0, 0
    for number in range(REPETITIONS):
        # Hardly penalised, as where nobody chooses the penalty, so that SMOTE might smooth it.
        study = planted(
            tmp_path / str(number),
            truth,
            arms={"smote": {}},
            classifier={"kind": "probe", "c_grid": [10.0]},
            sweep={"n_synthetic": [120], "train_rows": [60], "draws": 3, "seeds": [0]},
        )
        rng = np.random.default_rng([14, number])
        x, right = truth.images(rng)
        wrong = np.where(rng.random(len(right)) < 0.3, 1 - right, right)
        write_cohort(study, x, wrong)

        def scored(patients: np.ndarray, right: np.ndarray = right) -> np.ndarray:
            return right[[int(name[2:], 16) for name in patients]]

        above_none, gain = told("30 % wrong labels", study, run_planted(study, scored))
        seen += above_none
        gains += gain
    print(f"\n30 % wrong labels: above none in {seen}, a gain in {gains} of {REPETITIONS}")
    assert gains == 0


SMALL = Truth((40, 40), dimensions=20, slices=2)


def small(storage: Path, rows: str, **changes: Any) -> tuple[StudySpec, Store]:
    """A study with an arm ``theirs`` that reads ``rows``, and its slices."""
    theirs = {"kind": "folder", "path": str(storage / rows), "made_from": "study_train"}
    sweep = {"n_synthetic": [120], "seeds": [0, 1, 2]}
    study = planted(storage, SMALL, arms={"none": {}, "theirs": theirs}, sweep=sweep, **changes)
    return study, write_cohort(study, *SMALL.images(np.random.default_rng(15)))


def images_of(slices: Store, part: Any, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, side, side) and labels of a fold's part."""
    rows = slices.split(part, fold)
    return rows.read().x[:, 0].numpy(), rows.labels


def bring_training_rows(storage: Path, slices: Store, copies: int, noise: float) -> None:
    """For each fold its own training images, each ``copies`` times, with noise."""
    rng = np.random.default_rng(16)
    for fold in (0, 1):
        x, label = images_of(slices, "train", fold)
        x, label = x.repeat(copies, axis=0), label.repeat(copies)
        x = x + noise * rng.standard_normal(x.shape)
        write_rows(storage / f"fold{fold}.npz", x, label)


@pytest.mark.parametrize("part", ["eval", "val"])
def test_copies_of_scored_patients_are_refused(tmp_path: Path, part: str) -> None:
    """Whatever the arm declares: images of those who are scored or choose end the study."""
    study, slices = small(tmp_path, "fold{fold}.npz")
    bring_training_rows(tmp_path, slices, 2, 1.0)
    plan_here(study)  # training rows are nobody's copies
    x, label = (np.concatenate(each) for each in zip(
        images_of(slices, "train", 0), images_of(slices, "train", 0),
        images_of(slices, part, 0), strict=True))  # fmt: skip
    write_rows(tmp_path / "fold0.npz", x, label)
    with pytest.raises(UserError, match=r"copies of patients who are scored") as refused:
        plan_here(study)
    print(f"\n{refused.value}")


@pytest.mark.parametrize("near", [0.0, 0.05])
def test_features_of_scored_patients_are_refused(tmp_path: Path, near: float) -> None:
    """The same as vectors of the study's encoder, and with noise of a twentieth of their spread."""
    study, slices = small(tmp_path, "fold{fold}.npz")
    bring_training_rows(tmp_path, slices, 2, 1.0)
    plan = plan_here(study)
    for trial in plan.extract:
        list(run_trial(trial, World.single(), tmp_path))
    for fold, extract in enumerate(plan.extract):
        features = Artifacts(tmp_path).open_store(f"features-{extract.key}")
        rows = features.split("eval", fold)
        x = rows.read().x.float().numpy().reshape(len(rows), -1)
        x = x + near * x.std(axis=0) * np.random.default_rng(17).standard_normal(x.shape)
        write_rows(tmp_path / f"fold{fold}.npz", np.tile(x, (2, 1)), np.tile(rows.labels, 2))
    trial = next(t for t in plan_here(study).generate if t.arm == "theirs")
    with pytest.raises(
        UserError, match=r"arms\.theirs: of its 120 rows .* are .*copies"
    ) as refused:
        list(run_trial(trial, World.single(), tmp_path))
    print(f"\n{refused.value}")


def test_more_steps_are_no_gain(tmp_path: Path) -> None:
    """Training rows again, as a generator's: a network that passed over them too would take three
    times the steps, and more steps are better here."""
    network = {"kind": "linear", "lr": 0.01, "dropout": 0, "batch_size": 16}
    short, long = ({**network, "epochs": epochs} for epochs in (3, 9))
    study, slices = small(
        tmp_path,
        "fold{fold}.npz",
        classifier=short,
        classifiers={"short": short, "long": long},
        controls=["none", "duplicate", "classical", "class_weights", "logit_adjust"],
    )
    bring_training_rows(tmp_path, slices, 4, 0.0)
    board = run_planted(study)
    for row in board.rows:
        print(f"\n{row.title}: {row.mean:.3f}, {shown(row)}: {row.ending}", end="")
    mean = {row.title: row.mean for row in board.rows}
    assert mean["none by long"] > mean["none by short"], "steps would not have mattered"
    steps: dict[tuple[str, int], set[int]] = {}
    for record in read_trials(study.storage / study.name):
        if record.config.stage == "classify":
            place = record.classify.classifier_name, record.config.fold
            steps.setdefault(place, set()).add(record.classified.steps)
    assert len(steps) == 4
    assert all(len(each) == 1 for each in steps.values()), steps
    theirs = [row for row in board.rows if row.arm == "theirs"]
    assert len(theirs) == 2
    assert all(row.conclusion is not None and row.ending != "gain" for row in theirs)


def test_a_memoriser_is_no_gain(tmp_path: Path) -> None:
    """A generator that gives its training rows back, with noise of a twentieth of a pixel's."""
    study, slices = small(tmp_path, "fold{fold}.npz")
    bring_training_rows(tmp_path, slices, 2, 1.0)
    row = row_of_arm(run_planted(study), "theirs")
    near, usual = row.quality["near_copy_rate_low"], row.quality["near_copy_rate_heldout"]
    attack = [row.quality[f"membership_auc{end}"] for end in ("", "_low", "_high")]
    print(
        f"\nmemoriser: {shown(row)}: {row.ending}; near-copies at least {near:.2f}, of held-out rows"
        f" {usual:.2f}; membership attack {attack[0]:.2f} [{attack[1]:.2f}, {attack[2]:.2f}]"
    )
    assert row.conclusion is not None
    assert row.ending != "gain"
    assert near > 2 * usual
    assert attack[1] > 0.5
