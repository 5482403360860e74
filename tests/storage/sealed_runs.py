"""A finished run of a few seconds, sealed as a sweep seals it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from medaug.audit.scan import note_leakage, scan_slices
from medaug.cli import main
from medaug.data.privacy import KEY_ENV
from medaug.experiment import bundle_by, run_bundle, run_trial
from medaug.ownership.seals import RunSeals
from medaug.plan.trials import plan_study
from medaug.spec import StudySpec, TrialConfig
from medaug.storage.artifacts import Artifacts
from medaug.storage.bundle_folder import BundleFolder, Member
from medaug.storage.trial_folder import TrialFolder, write_json
from medaug.store.manifest import MANIFEST as STORE_MANIFEST
from medaug.sweep.ended import ended_before
from medaug.sweep.events import Outcome
from medaug.sweep.trial.bundle import Bundle, pack
from medaug.sweep.trial.failures import GroupFailed, triage
from medaug.train.checkpoint import Ledger
from medaug.train.world import World
from medaug.waves import to_make_again
from tests.audit.small_runs import SLICES, study, write_slices


def ask(run: Path, *words: str) -> Result:
    """The command ``words`` about ``run``; it may end as it likes, but not in a traceback."""
    out = ["--out", str(run.parents[1] / "out")] if words[0] == "export" else []
    result = CliRunner().invoke(main, [*words, run.name, *out, "--storage", str(run.parent)])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


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
    folder = begun_run(study)
    go_on(study)
    return folder


def begun_run(study: StudySpec) -> Path:
    """The folder of ``study`` with its scans read, and no trial."""
    write_slices(study)
    folder = study.storage / study.name
    folder.mkdir(parents=True)
    write_json(folder / "study.json", study.canonical())
    write_json(folder / "data.json", {"slices": SLICES})
    write_json(folder / "version.json", {"medaug": "0.2.0", "then": []})
    note_leakage(folder, scan_slices(Artifacts(study.storage), SLICES))
    return folder


def go_on(study: StudySpec) -> None:
    """Run what has not ended of ``study``, as a sweep does with one rank in this process.

    Raises:
        GroupFailed: a trial did not make it.
    """
    folder = study.storage / study.name
    seals = RunSeals(folder)
    seals.made(study.storage / "stores" / SLICES / STORE_MANIFEST)
    plan = plan_study(study, SLICES)
    again = to_make_again(plan, folder, Artifacts(study.storage))
    for _, trials in plan.waves():
        seals.plan([config.key for config in trials])
        before = ended_before(trials, folder, study.storage, stops=False, again=again)
        todo = [config for config in trials if config.key not in before]
        seals.begin({k: o.status for k, o in before.items()}, [config.key for config in todo])
        try:
            for unit in pack(todo, lambda c: None if c.key in again else bundle_by(c), slots=1):
                for outcome in _ends(unit, folder, study.storage, again):
                    seals.on_trial_end(outcome)
        finally:
            seals.flush()


def _ends(
    unit: TrialConfig | Bundle, experiment: Path, storage: Path, again: Collection[str]
) -> Iterator[Outcome]:
    if not isinstance(unit, Bundle):
        if unit.key in again:
            TrialFolder(experiment, unit.key).undo()
        yield _run(unit, experiment, storage)
        return
    folder = BundleFolder(experiment, unit.key)
    try:
        folder.claim_all(unit.trials)
        for config, result in run_bundle(unit.trials, World.single(), storage):
            folder.commit([Member(config.key, result, 0.5, 1e9)])
            yield Outcome(config.key, "done", 1, result)
    except Exception as error:
        raise GroupFailed(triage(error)) from error


def _run(config: TrialConfig, experiment: Path, storage: Path) -> Outcome:
    trial, ledger = TrialFolder(experiment, config.key), Ledger(experiment / "trials" / config.key)
    trial.claim(config)
    trial.reopen()
    try:
        for progress in run_trial(config, World.single(), storage, ledger.latest(config.key)):
            if progress.checkpoint is not None:
                ledger.commit(progress.checkpoint, fingerprint=config.key, keep_last=1)
            row = {"epoch": progress.epoch, "metrics": progress.metrics, "seconds": 0.5}
            trial.log_epoch({**row, "save_seconds": 0.1, "time": 1e9 + progress.epoch})
        assert progress.result is not None
        trial.finish(progress.result)
    except Exception as error:
        raise GroupFailed(triage(error)) from error
    return Outcome(config.key, "done", progress.epoch, progress.result)
