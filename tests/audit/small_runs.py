"""Studies of a few seconds, run in this process as the sweep runs them: stores, ledgers, results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from medaug.data.splits import make_splits
from medaug.experiment import run_trial
from medaug.plan.trials import plan_study
from medaug.spec import StudySpec, build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.store import Store
from medaug.train.checkpoint import Ledger
from medaug.train.world import World
from tests.store.cohorts import SLICES, patients_of, write_cohort

PATIENTS, EACH, SIZE = 24, 4, 32


def study(storage: Path, **changes: Any) -> StudySpec:
    """Images as rows, a linear probe, a quarter of the patients sealed."""
    body: dict[str, Any] = {
        "name": "small",
        "data": {"image_size": SIZE},
        "split": {"folds": 2, "test_fraction": 0.25},
        "arms": {"none": {}, "duplicate": {}, "classical": {}},
        "classifier": {"kind": "linear", "epochs": 4, "lr": 0.05},
        "sweep": {"n_synthetic": [24], "seeds": [0, 1, 2]},
        "controls": "none",
        "storage": str(storage),
    }
    return build_study(body | changes, ARM_CONFIGS)


def of_features(storage: Path, **changes: Any) -> StudySpec:
    """The same on features of a U-Net."""
    body = {
        "segmenter": {"base": 1, "epochs": 1, "init": "kaiming", "augment": None, "pretrain": None},
        "features": {"tap": "conv4"},
        "arms": {"none": {}, "duplicate": {}, "classical": {}, "gaussian": {"components": 4}},
    }
    return study(storage, **(body | changes))


def write_slices(study: StudySpec, sealed_glow: float = 0.0, every: int = 2) -> Store:
    """A brighter disc is of class HGG, as a rule, which one patient of ``every`` has; sealed slices
    are brighter by ``sealed_glow``."""
    rng = np.random.default_rng(0)
    patients = patients_of(PATIENTS)
    labels = (np.arange(PATIENTS) % every == every - 1).astype(int)
    splits = make_splits(patients, labels.tolist(), study.split)
    row, column = np.mgrid[:SIZE, :SIZE]
    mask = np.hypot(row - 15.5, column - 15.5) < 9
    glow = 100 + 14 * labels + 8 * rng.standard_normal(PATIENTS)
    x = 10 * rng.standard_normal((PATIENTS, EACH, SIZE, SIZE)) + 60
    x += mask * glow[:, None, None, None]
    x[np.isin(patients, splits.test)] += sealed_glow
    x = x.clip(0).astype(np.float32)
    return write_cohort(study, x, labels, mask)


def run(study: StudySpec, sealed_glow: float = 0.0) -> Path:
    """The folder of ``study`` with every trial done but those of its linear models."""
    write_slices(study, sealed_glow)
    return run_trials(study, SLICES)


def run_trials(study: StudySpec, slices: str) -> Path:
    """The same on slices that are there already."""
    folder = study.storage / study.name
    for _, trials in plan_study(study, slices).waves():
        for config in trials:
            beside = getattr(config, "linear", False) or getattr(config, "encoder", None)
            if beside and study.image_encoder is None:
                continue
            place = folder / "trials" / config.key
            place.mkdir(parents=True)
            for progress in run_trial(config, World.single(), study.storage):
                if progress.checkpoint is not None:
                    Ledger(place).commit(progress.checkpoint, fingerprint=config.key)
            (place / "config.json").write_text(config.model_dump_json())
            (place / "result.json").write_text(progress.result.model_dump_json())
    (folder / "study.json").write_text(json.dumps(study.canonical()))
    return folder
