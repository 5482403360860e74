"""A finished run of a few seconds, sealed as a sweep seals it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from medaug.audit.scan import note_leakage, scan_slices
from medaug.data.privacy import KEY_ENV
from medaug.experiment import run_trial
from medaug.ownership.seals import RunSeals
from medaug.plan.trials import plan_study
from medaug.spec import StudySpec
from medaug.storage.artifacts import Artifacts
from medaug.storage.trial_folder import TrialFolder, write_json
from medaug.store.manifest import MANIFEST as STORE_MANIFEST
from medaug.sweep.events import Outcome
from medaug.train.checkpoint import Ledger
from medaug.train.world import World
from tests.audit.small_runs import SLICES, study, write_slices

ARMS: dict[str, Any] = {"none": {}, "duplicate": {}, "classical": {}, "gaussian": {"components": 2}}


def small_study(storage: Path, seeds: Sequence[int] = (0,)) -> StudySpec:
    """Two arms and two controls, two folds, a sealed test set."""
    return study(storage, arms=ARMS, sweep={"n_synthetic": [24], "seeds": list(seeds)})


@contextmanager
def site_key(file: Path) -> Iterator[None]:
    """This machine's site key is that of ``file``, which is made."""
    file.write_text("7" * 64)
    file.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_ENV, str(file))
        yield


def sealed_run(study: StudySpec) -> Path:
    """The folder of ``study`` with every trial done, and its journal."""
    write_slices(study)
    folder = study.storage / study.name
    folder.mkdir(parents=True)
    write_json(folder / "study.json", study.canonical())
    write_json(folder / "data.json", {"slices": SLICES})
    write_json(folder / "version.json", {"medaug": "0.2.0", "then": []})
    note_leakage(folder, scan_slices(Artifacts(study.storage), SLICES))
    seals = RunSeals(folder)
    seals.made(study.storage / "stores" / SLICES / STORE_MANIFEST)
    for _, trials in plan_study(study, SLICES).waves():
        seals.plan([config.key for config in trials])
        seals.begin({}, [config.key for config in trials])
        for config in trials:
            trial = TrialFolder(folder, config.key)
            trial.claim(config)
            for progress in run_trial(config, World.single(), study.storage):
                if progress.checkpoint is not None:
                    Ledger(trial.path).commit(
                        progress.checkpoint, fingerprint=config.key, keep_last=1
                    )
                row = {"epoch": progress.epoch, "metrics": progress.metrics, "seconds": 0.5}
                trial.log_epoch({**row, "save_seconds": 0.1, "time": 1e9 + progress.epoch})
            trial.finish(progress.result)
            seals.on_trial_end(Outcome(config.key, "done", progress.epoch, progress.result))
        seals.flush()
    return folder
