"""What MLflow shows of a sweep: one run a trial for ever, nothing twice, nothing private."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medaug.errors import Interrupted
from medaug.spec import SegmentTrial
from medaug.spec.study import PretrainSpec
from medaug.sweep.events import Status
from medaug.tracking import tracker
from medaug.tracking.params import PRIVATE, as_text, flatten, private_names, safe_name
from medaug.tracking.tracker import sync
from medaug.tracking.uri import private_database
from tests.tracking.played_sweeps import (
    Played,
    all_is_told,
    all_runs,
    client_of,
    missing_points,
    note_of,
    run_of,
    steps,
    wait_until,
)


@pytest.fixture(autouse=True)
def _all_is_sent_before_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests ask what was sent, not how soon: on a machine full of other tests MLflow's start,
    one thread at a time in the whole process, has taken longer than leaving usually may."""
    monkeypatch.setattr(tracker, "LEAVE_S", 120.0)


def test_a_sweep_is_one_run_and_its_trials_are_nested_in_it(play: Callable[..., Played]) -> None:
    played = play()
    trials = [*played.plan.segment[:1], *played.plan.classify[:2]]
    with played.tracker() as tracker:
        tracker.on_wave_start("classify", len(trials), 0)
        played.play(tracker, trials)
        tracker.on_wave_end()
    client = client_of(played.study)
    assert missing_points(client, played.folder) == []
    (sweep,) = (run for run in all_runs(client) if run.data.tags["stage"] == "sweep")
    assert sweep.info.run_name == "made"
    assert sweep.info.status == "FINISHED"
    assert len(all_runs(client)) == 1 + len(trials)
    for config in trials:
        run = run_of(client, config)
        assert run.info.status == "FINISHED"
        tags = {
            "mlflow.parentRunId": sweep.info.run_id,
            "medaug.key": f"made/{config.key}",
            "stage": config.stage,
            "fold": str(config.fold),
            "seed": str(config.seed),
            "status": "done",
            "lineage": "proven",
        }
        assert tags.items() <= run.data.tags.items()
        assert run.data.tags.get("arm") == getattr(config, "arm", None)
        assert run.data.metrics["score/accuracy"] == 0.75
        assert run.data.metrics["result/threshold"] == 0.5
        assert steps(client, run, "seconds") == [1, 2, 3]


def test_parameters_have_the_spec_s_names_and_values(play: Callable[..., Played]) -> None:
    played = play(sweep={"n_synthetic": [100], "grid": {"acgan.ngf": [8, 16]}})
    spec = {safe_name(k): as_text(v) for k, v in flatten(played.study.canonical()).items()}
    generate = next(t for t in played.plan.generate if t.point.get("ngf") == 16)
    classify = next(t for t in played.plan.classify if t.arm == "duplicate")
    with played.tracker() as tracker:
        played.play(tracker, [played.plan.segment[0], generate, classify])
    client = client_of(played.study)
    (sweep,) = (run for run in all_runs(client) if run.data.tags["stage"] == "sweep")
    assert sweep.data.params.keys() == spec.keys()
    changed = {name for name in spec if sweep.data.params[name] != spec[name]}
    assert changed == {"storage"}

    of_trials = {"fold", "seed", "arm", "kind", "synthetic", "n_synthetic", "ngf", "n", "protocol"}
    for config in (played.plan.segment[0], generate, classify):
        params = run_of(client, config).data.params
        assert params.keys() - of_trials <= spec.keys()
        assert params["fold"] == str(config.fold)
    assert run_of(client, played.plan.segment[0]).data.params["segmenter.augment.hflip"] == "0.5"
    assert run_of(client, generate).data.params["arms.acgan.ngf"] == "16"
    assert run_of(client, generate).data.params["ngf"] == "16"
    assert run_of(client, classify).data.params["sweep.n_synthetic"] == "100"
    assert run_of(client, classify).data.params["classifier.lr"] == "0.001"


@pytest.mark.parametrize("remembered", [True, False])
def test_a_resumed_trial_goes_on_in_its_run(play: Callable[..., Played], remembered: bool) -> None:
    played = play()
    config, *_ = played.plan.classify
    tracker = played.tracker().__enter__()
    played.begin(tracker, config)
    for epoch in (1, 2, 3):
        played.epoch(tracker, config, epoch)
    tracker.__exit__(Interrupted, Interrupted("stopped by SIGTERM"), None)
    client = client_of(played.study)
    before = run_of(client, config)
    assert before.info.status == "KILLED"
    assert before.data.tags["status"] == "interrupted"
    played.epoch(None, config, 4)
    if not remembered:
        (played.folder / "trials" / config.key / "mlflow.json").unlink()

    with played.tracker() as tracker:
        wait_until(lambda: steps(client, before, "train/loss") == [1, 2, 3, 4])
        played.begin(tracker, config)
        for epoch in (4, 5, 6):  # the checkpoint of epoch 4 was lost
            played.epoch(tracker, config, epoch)
        played.end(tracker, config)
    after = run_of(client, config)
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    assert steps(client, after, "train/loss") == [1, 2, 3, 4, 5, 6]
    assert steps(client, after, "score/accuracy") == [0]
    assert [run.info.status for run in all_runs(client)] == ["FINISHED", "FINISHED"]


def test_trials_of_an_earlier_run_appear_although_nobody_tells(
    play: Callable[..., Played], empty_database: Path
) -> None:
    played = play()
    done, begun, waiting = played.plan.classify[:3]
    with played.tracker() as tracker:
        played.play(tracker, [done])
        played.begin(tracker, begun)
        played.epoch(tracker, begun, 1)
        played.begin(tracker, waiting)
    # As if MLflow had not been there.
    shutil.copy(empty_database, played.study.storage / "mlflow.db")

    with played.tracker() as tracker:
        tracker.on_wave_start("classify", 1, 1)
    client = client_of(played.study)
    assert run_of(client, done).info.status == "FINISHED"
    assert run_of(client, begun).info.status == "KILLED"
    assert missing_points(client, played.folder) == []
    assert waiting.key not in {run.data.tags.get("key") for run in all_runs(client)}


@pytest.mark.parametrize(
    ("status", "shown"),
    [("done", "FINISHED"), ("diverged", "FINISHED"), ("stopped", "FINISHED"), ("failed", "FAILED")],
)
def test_every_end_of_a_trial_shows(
    play: Callable[..., Played], status: Status, shown: str
) -> None:
    played = play()
    config, *_ = played.plan.classify
    with played.tracker() as tracker:
        played.begin(tracker, config)
        played.epoch(tracker, config, 1)
        played.end(tracker, config, status)
    run = run_of(client_of(played.study), config)
    assert (run.info.status, run.data.tags["status"]) == (shown, status)
    assert run.data.tags.get("failure") == ("configuration" if status == "failed" else None)


def test_a_trial_that_failed_and_then_made_it_is_not_called_a_failure(
    play: Callable[..., Played],
) -> None:
    played = play()
    config, *_ = played.plan.classify
    for status in ("failed", "done"):
        with played.tracker() as tracker:
            played.begin(tracker, config)
            played.epoch(tracker, config, 1)
            played.end(tracker, config, status)
    run = run_of(client_of(played.study), config)
    assert run.info.status == "FINISHED"
    assert run.data.tags["failure"] == ""


@pytest.mark.parametrize("deleted", ["run", "experiment"])
def test_what_was_deleted_in_mlflow_is_there_again_and_whole(
    play: Callable[..., Played], deleted: str
) -> None:
    played = play()
    config, *_ = played.plan.classify
    client = client_of(played.study)
    with played.tracker() as tracker:
        played.begin(tracker, config)
        played.epoch(tracker, config, 1)
        wait_until(note_of(played, config).exists)
        info = run_of(client, config).info
        if deleted == "run":
            client.delete_run(info.run_id)
        else:
            client.delete_experiment(info.experiment_id)
        played.epoch(tracker, config, 2)
        wait_until(lambda: all_is_told(client, played))


def test_what_is_not_finite_is_named_and_not_logged(play: Callable[..., Played]) -> None:
    played = play()
    config, *_ = played.plan.classify
    bad = {"train/loss": float("nan"), "val/fd": float("inf"), "recall/no (yet) é+": 0.5}
    with played.tracker() as tracker:
        played.begin(tracker, config)
        played.epoch(tracker, config, 1, {"train/loss": 1.0})
        played.epoch(tracker, config, 2, bad)
        played.epoch(tracker, config, 3, {"train/loss": 0.5})
    client = client_of(played.study)
    run = run_of(client, config)
    assert steps(client, run, "train/loss") == [1, 3]
    assert run.data.tags["not_finite"] == "train/loss, val/fd"
    assert run.data.metrics["recall/no _yet_ é_"] == 0.5
    assert "val/fd" not in run.data.metrics


def test_nothing_private_reaches_mlflow(
    play: Callable[..., Played], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = play()
    secret = tmp_path / "Ward7" / "DOE^JOHN"
    segmenter = played.study.segmenter
    assert segmenter is not None
    pretrain = PretrainSpec(weights=secret / "weights.safetensors")
    played.study = played.study.model_copy(
        update={
            "data": played.study.data.model_copy(update={"root": secret}),
            "segmenter": segmenter.model_copy(update={"pretrain": pretrain}),
        }
    )
    assert private_names(played.study) == {
        "data.root",
        "segmenter.pretrain.weights",
        "storage",
        "tracking.uri",
    }
    assert played.study.segmenter is not None
    segment = SegmentTrial(segmenter=played.study.segmenter, slices="none", fold=0)
    with played.tracker() as tracker:
        played.begin(tracker, segment)
        played.epoch(tracker, segment, 1)
        played.end(tracker, segment, "failed")
    params = run_of(client_of(played.study), segment).data.params
    assert params["segmenter.pretrain.weights"] == PRIVATE
    database = (tmp_path / "mlflow.db").read_bytes()
    for planted in (b"Ward7", b"DOE^JOHN", b"truncated"):
        assert planted not in database


def test_what_we_make_is_the_owner_s_alone(play: Callable[..., Played], tmp_path: Path) -> None:
    played = play()
    with played.tracker():
        pass
    assert (tmp_path / "mlartifacts").stat().st_mode & 0o777 == 0o700
    assert (played.folder / "mlflow.json").stat().st_mode & 0o777 == 0o600
    private_database(tmp_path / "fresh")
    assert (tmp_path / "fresh" / "mlflow.db").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "mlflow.db").read_bytes()
    private_database(tmp_path)
    assert (tmp_path / "mlflow.db").read_bytes() == before


def test_the_driver_need_not_wait_for_mlflow_to_be_imported() -> None:
    code = "import sys, medaug.tracking.tracker; print('mlflow' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "False", answer.stderr


def test_sync_repairs_what_a_killed_driver_left(play: Callable[..., Played]) -> None:
    played = play()
    done, begun = played.plan.classify[:2]
    with played.tracker() as tracker:
        played.play(tracker, [done])
    for epoch in (1, 2):
        played.begin(tracker, begun)
        played.epoch(None, begun, epoch)
    (played.folder / "mlflow.json").write_text(json.dumps({"status": "running"}))
    assert sync(played.folder) == 1
    client = client_of(played.study)
    assert missing_points(client, played.folder) == []
    assert {run.data.tags["status"] for run in all_runs(client)} == {"interrupted", "done"}
