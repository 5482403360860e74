"""Where there is nothing to find, nothing is found: a phantom cohort without class information."""

from __future__ import annotations

import json
from pathlib import Path

from medaug.data.layouts import read_cohort
from medaug.data.slices import ingest, ingest_signature
from medaug.experiment import run_trial
from medaug.plan.trials import plan_study
from medaug.results.leaderboard import leaderboard_of
from medaug.results.rows import CHANCE
from medaug.spec import build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import Artifacts
from medaug.train.world import World

NULL = {
    "name": "null",
    "data": {"image_size": 32, "phantom": {"patients": 40, "d_prime": 0, "slices": [4, 6]}},
    "split": {"folds": 4},
    "arms": {"none": {}, "duplicate": {}, "classical": {}, "gaussian": {}},
    "classifier": {"kind": "linear", "epochs": 5, "dropout": 0},
    "controls": "none",
    "sweep": {"n_synthetic": [60]},
}


def test_balanced_accuracy_of_the_null_cohort_contains_one_half(tmp_path: Path) -> None:
    study = build_study(NULL, ARM_CONFIGS)
    cohort = read_cohort(study.data)
    name = f"slices-{ingest_signature(cohort, study.data, study.split)}"
    ingest(study.data, study.split, Artifacts(tmp_path).store_path(name), cohort=cohort)
    folder = tmp_path / study.name
    for _, trials in plan_study(study, name).waves():
        for config in trials:
            if getattr(config, "linear", False) or getattr(config, "encoder", None):
                continue
            *_, last = run_trial(config, World.single(), tmp_path)
            place = folder / "trials" / config.key
            place.mkdir(parents=True)
            (place / "config.json").write_text(config.model_dump_json())
            (place / "result.json").write_text(last.result.model_dump_json())
    (folder / "study.json").write_text(json.dumps(study.canonical()))
    board = leaderboard_of(folder)
    assert {"none", "duplicate", "classical", "gaussian"} <= {row.arm for row in board.rows}
    assert all(row.replicates == row.expected for row in board.rows)
    missed = [row.title for row in board.rows if not row.low < 0.5 < row.high]
    assert len(missed) <= 1, missed  # one in twenty does, by design
    for row in board.rows:
        assert (CHANCE in row.flags) == (row.low <= 0.5)
        assert row.ending != "gain"
