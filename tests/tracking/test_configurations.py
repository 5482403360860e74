"""Trials of bundles in MLflow: a run for each configuration, whenever and however often it is told."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from medaug.spec import ClassifyTrial
from medaug.storage.bundle_folder import BundleFolder, Member
from medaug.sweep.events import Outcome
from medaug.sweep.trial.bundle import Bundle
from medaug.tracking.configurations import name_of
from medaug.tracking.params import trial_params
from medaug.tracking.tracker import sync
from tests.tracking.made_runs import study
from tests.tracking.played_sweeps import Played, all_runs, client_of, played_result


@pytest.fixture
def played(tmp_path: Path, empty_database: Path) -> Played:
    """A sweep whose storage folder has a database."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return Played(study(tmp_path))


def begin(played: Played, trials: Sequence[ClassifyTrial]) -> tuple[Bundle, BundleFolder]:
    bundle = Bundle(tuple(trials))
    folder = BundleFolder(played.folder, bundle.key)
    folder.claim_all(bundle.trials)
    return bundle, folder


def ended(trial: ClassifyTrial, score: float | None) -> Member:
    if score is None:
        return Member(trial.key, None, 0.5, 1.8e9, {"error": "configuration: wrong"})
    result = played_result().model_copy(update={"scores": {"accuracy": score}})
    return Member(trial.key, result, 0.5, 1.8e9)


def of_arms(played: Played, *arms: str) -> list[list[ClassifyTrial]]:
    """The replicates of the first configuration of each of these arms."""
    groups = []
    for arm in arms:
        first = next(trial for trial in played.plan.classify if trial.arm == arm)
        alike = first.configuration
        groups.append([trial for trial in played.plan.classify if trial.configuration == alike])
    return groups


def test_replicates_are_one_run_with_their_means(played: Played) -> None:
    none, duplicate = of_arms(played, "none", "duplicate")
    assert len(none) == len(duplicate) == 9
    with played.tracker() as tracker:
        bundle, folder = begin(played, [*none, *duplicate[:5]])
        tracker.on_bundle_start(bundle)
        folder.commit([ended(trial, 0.5 + 0.01 * i) for i, trial in enumerate(none)])
        folder.commit([ended(trial, None) for trial in duplicate[:5]])
        for trial in bundle.trials:
            tracker.on_trial_end(Outcome(trial.key, "done", 1, bundle=bundle.key))
        tracker.on_bundle_end(bundle)
    client = client_of(played.study)
    runs = {run.data.tags.get("arm"): run for run in all_runs(client)}
    assert set(runs) == {None, "none", "duplicate"}, "the sweep's and one a configuration"
    one = runs["none"]
    assert one.data.metrics["score/accuracy"] == pytest.approx(0.54)
    assert (one.data.metrics["trials"], one.data.metrics["done"]) == (9, 9)
    assert one.data.metrics["seconds"] == pytest.approx(4.5)
    assert one.info.status == "FINISHED"
    assert one.data.tags["mlflow.parentRunId"] == runs[None].info.run_id
    assert "9 replicates" in one.info.run_name
    assert not {"fold", "seed", "draw"} & set(one.data.params)
    other = runs["duplicate"]
    assert (other.data.metrics["failed"], other.info.status) == (5, "FAILED")

    again, folder = begin(played, duplicate)
    folder.commit([ended(trial, 1.0) for trial in duplicate])
    assert sync(played.folder) == 0, "no trial has a run of its own"
    sync(played.folder)
    runs = {run.data.tags.get("arm"): run for run in all_runs(client)}
    assert len(runs) == 3
    other = runs["duplicate"]
    assert other.data.metrics["score/accuracy"] == 1.0
    assert (other.data.metrics["done"], other.data.metrics["failed"]) == (9, 0)
    assert other.info.status == "FINISHED"
    assert again.key != bundle.key


def test_whom_to_add_is_a_parameter_and_a_configuration(played: Played) -> None:
    (none,) = of_arms(played, "none")
    first = none[0].model_copy(update={"n_synthetic": 8})
    rare = first.model_copy(update={"per_class": "rare_only"})
    shares = first.model_copy(update={"per_class": {"HGG": 0.2, "LGG": 0.8}})
    assert len({name_of(trial) for trial in (first, rare, shares)}) == 3
    told = [trial_params(trial, played.study) for trial in (first, rare, shares)]
    assert "per_class" not in told[0]
    assert [each["sweep.per_class"] for each in told[1:]] == ["rare_only", "HGG=0.2,LGG=0.8"]


def test_what_runs_on_is_running(played: Played) -> None:
    (none,) = of_arms(played, "none")
    _, folder = begin(played, none)
    folder.commit([ended(trial, 0.5) for trial in none[:4]])
    with played.tracker():
        pass
    (run,) = (run for run in all_runs(client_of(played.study)) if run.data.tags.get("arm"))
    assert run.info.status == "RUNNING"
    assert run.data.metrics["done"] == 4
