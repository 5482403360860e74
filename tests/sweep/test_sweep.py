"""Waves of trials on a cluster: reuse, failures, early stops, and that everything is given back."""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from toy_trials import config, count, expected_total, settings_of

from medaug.errors import EnvironmentFault, Interrupted
from medaug.spec import AshaSpec, ResourceSpec, TrialConfig
from medaug.storage.results import GenerateResult
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep import Outcome, Sweep, runner
from medaug.sweep.cluster.start import Cluster
from medaug.sweep.events import Listener
from medaug.sweep.tune.run import TuneRun
from medaug.train.checkpoint import Ledger

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


class Diary:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.waves: list[tuple[Any, ...]] = []
        self.started: list[str] = []
        self.devices: dict[str, str] = {}
        self.epochs: dict[str, list[int]] = {}
        self.ended: dict[str, Outcome] = {}

    def on_wave_start(self, stage: str, n: int, reused: int) -> None:
        self.waves.append((stage, n, reused))

    def on_trial_start(self, config: TrialConfig) -> None:
        self.started.append(config.key)

    def on_place(self, config: TrialConfig, device: str) -> None:
        self.devices[config.key] = device

    def on_epoch(self, config: TrialConfig, epoch: int, metrics: Mapping[str, float]) -> None:
        assert metrics["val/score"] == settings_of(config).get("score", 0.0) + epoch
        self.epochs.setdefault(config.key, []).append(epoch)

    def on_trial_end(self, outcome: Outcome) -> None:
        self.ended[outcome.key] = outcome

    def on_wave_end(self) -> None:
        self.waves.append(("end",))


def sweep(path: Path, *listeners: Any, **resources: Any) -> Sweep:
    spec = ResourceSpec(**{"checkpoint_every_s": 0, **resources})
    return Sweep(path / "experiment", path, spec, listeners=listeners)


def logged(path: Path, trial: TrialConfig) -> list[int]:
    return [row["epoch"] for row in TrialFolder(path / "experiment", trial.key).epochs()]


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def kill_all(name: str) -> None:
    """The processes of the cluster that are called so, of which there is one at least."""
    found = [p for p in psutil.Process().children(recursive=True) if p.name().startswith(name)]
    assert found
    for process in found:
        process.kill()


def await_free_cpus(total: float) -> None:
    import ray

    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0.0) < total:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.05)


def test_a_long_wave_is_several_runs_and_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MOST_UNITS", 2)
    trials = [config(name, epochs=1) for name in "abc"]
    diary = Diary()
    with sweep(tmp_path, diary, max_concurrent=1) as running:
        assert statuses(running.run(trials, work=count)) == ["done"] * 3
    assert diary.waves == [("generate", 3, 0), ("end",)]
    assert diary.started == [trial.key for trial in trials]
    assert all(logged(tmp_path, trial) == [1] for trial in trials)


def test_after_a_stop_the_rest_of_a_long_wave_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopAtFirst(Listener):
        def on_trial_end(self, *about: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    begun: list[TuneRun] = []
    start = TuneRun.start
    monkeypatch.setattr(TuneRun, "start", lambda run: (begun.append(run), start(run)))
    monkeypatch.setattr(runner, "MOST_UNITS", 1)
    with (
        sweep(tmp_path, StopAtFirst()) as running,
        pytest.raises(Interrupted, match="SIGTERM"),
    ):
        running.run([config(name, epochs=1) for name in "abc"], work=count)
    assert len(begun) == 1


def test_a_wave_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    """In its process, unless that is of another number of ranks."""
    waves = [[config("a")], [config("b")], [config("c", ranks=2)], [config("d")]]
    with sweep(tmp_path) as running:
        outcomes = [one for trials in waves for one in running.run(trials, work=count)]
    assert statuses(outcomes) == ["done"] * 4
    pids = [outcome.result.scores["pid"] for outcome in outcomes if outcome.result]
    assert pids[0] == pids[1]
    assert len(set(pids)) == 3
    await_free_cpus(2)


@pytest.mark.parametrize("lost", ["ray::Trial", "ray::Rank"])
def test_a_wave_begins_though_the_process_kept_for_it_is_gone(tmp_path: Path, lost: str) -> None:
    with sweep(tmp_path, max_concurrent=1) as running:
        running.run([config("a")], work=count)
        kill_all(lost)
        (outcome,) = running.run([config("b")], work=count)
    assert outcome.status == "done"


def test_two_waves_of_mixed_trials_reuse_ranks_and_results(tmp_path: Path) -> None:
    trials = [config(f"t{i}", ranks=1 + i // 4) for i in range(8)]
    diary = Diary()
    with sweep(tmp_path, diary) as running:
        first = running.run(trials, work=count)
        second = running.run([*trials, config("new")], work=count)
        assert running.run([], work=count) == []
    assert statuses(first) == ["done"] * 8
    assert [outcome.key for outcome in first] == [trial.key for trial in trials]
    for trial, outcome in zip(trials, first, strict=True):
        assert outcome.result is not None
        assert outcome.result.scores["total"] == expected_total(3, trial.ranks)
        assert outcome.epoch == 3
        assert diary.epochs[trial.key] == [1, 2, 3]
        assert TrialFolder(tmp_path / "experiment", trial.key).config() == trial
    processes = {outcome.result.scores["pid"] for outcome in first if outcome.result}
    assert len(processes) < 8, "every trial started processes of its own"
    assert statuses(second) == ["reused"] * 8 + ["done"]
    assert second[0].result == first[0].result
    assert diary.waves == [("generate", 8, 0), ("end",), ("generate", 9, 8), ("end",)]
    assert len(diary.started) == 9
    assert {diary.devices[trial.key] for trial in trials} == {"cpu", "2 cpu"}
    await_free_cpus(2)


def test_a_trial_of_another_run_is_taken_over_if_what_it_made_is_there(tmp_path: Path) -> None:
    known, gone, new = config("known"), config("gone"), config("new")
    with sweep(tmp_path, max_concurrent=1) as running:
        running.run([known, gone], work=count)
    deleted = GenerateResult(output="rows-that-were-deleted", generator="so-was-this", n=1)
    TrialFolder(tmp_path / "experiment", gone.key).finish(deleted)
    diary = Diary()
    one = ResourceSpec(max_concurrent=1)
    with Sweep(tmp_path / "other", tmp_path, one, listeners=(diary,)) as running:
        outcomes = running.run([known, gone, new], work=count)
    assert statuses(outcomes) == ["reused", "done", "done"]
    assert sorted(diary.started) == sorted([gone.key, new.key])
    before, now = (TrialFolder(tmp_path / run, known.key) for run in ("experiment", "other"))
    assert now.result() == before.result() == outcomes[0].result
    assert now.epochs() == before.epochs()
    assert now.config() == known
    latest = [Ledger(folder.path).latest(known.key) for folder in (before, now)]
    assert [checkpoint.epoch for checkpoint in latest if checkpoint] == [3, 3]


def test_failures_lose_no_finished_epoch_and_leave_siblings_alone(tmp_path: Path) -> None:
    killed = config("killed", ranks=2, fault="kill", fault_epoch=2, fault_rank=1)
    wrong = config("wrong", fault="raise", fault_epoch=2)
    frozen = config("frozen", fault="freeze", fault_epoch=2)
    asleep = config("asleep", ranks=2, fault="sleep", fault_epoch=3, fault_rank=1)
    trials = [killed, asleep, wrong, frozen, config("fine")]
    with sweep(tmp_path, hang_timeout_s=4.0, max_failures=1) as running:
        outcomes = running.run(trials, work=count)
    assert statuses(outcomes) == ["done", "done", "failed", "done", "done"]
    for trial, outcome in zip(trials, outcomes, strict=True):
        if trial is not wrong:
            assert outcome.result is not None
            assert outcome.result.scores["total"] == expected_total(3, trial.ranks)
            assert logged(tmp_path, trial) == [1, 2, 3], "an epoch was lost, or done twice"
    failed = outcomes[2]
    assert failed.epoch == 1
    assert failed.error == (
        "configuration: settings.fault: 'raise' is no good; take it away; correct it and resume"
    )
    failure = (tmp_path / "experiment" / "trials" / wrong.key / "failure.json").read_text()
    assert "Traceback" in failure
    assert (tmp_path / f"tries-{wrong.key}").read_text() == "x", "tried again for nothing"
    await_free_cpus(2)


def test_a_fault_that_stays_fails_the_trial_and_a_resume_tries_again(tmp_path: Path) -> None:
    trial = config("dies", fault="kill", fault_epoch=2, tries=2)
    with sweep(tmp_path, max_failures=1) as running:
        (failed,) = running.run([trial], work=count)
        assert logged(tmp_path, trial) == [1]
        (done,) = running.run([trial], work=count)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.startswith("rank died: ")
    assert done.status == "done"
    assert logged(tmp_path, trial) == [1, 2, 3]
    assert not (tmp_path / "experiment" / "trials" / trial.key / "failure.json").exists()


def test_code_that_workers_cannot_import_ends_the_run_after_the_first_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    text = "from medaug.sweep.trial.group import RankGroup\nclass Here(RankGroup): pass\n"
    (code / "only_here.py").write_text(text)
    monkeypatch.syspath_prepend(str(code))  # after Ray has started: its workers have not heard
    here = importlib.import_module("only_here").Here
    spec = ResourceSpec(checkpoint_every_s=0)
    began = time.monotonic()
    with Sweep(tmp_path / "experiment", tmp_path, spec, start_ranks=here) as running:
        wanted = "packages: .*No module named 'only_here'; install the same packages on every node"
        with pytest.raises(EnvironmentFault, match=wanted):
            running.run([config("a"), config("b")], work=count)
    assert time.monotonic() - began < 60


def test_a_killed_trial_actor_is_started_again_from_the_ledger(tmp_path: Path) -> None:
    trial = config("victim", ranks=2, epochs=4, seconds=0.3)

    class Killer(Diary):
        def on_epoch(self, config: TrialConfig, epoch: int, metrics: Mapping[str, float]) -> None:
            super().on_epoch(config, epoch, metrics)
            if self.epochs[config.key] == [1, 2]:
                kill_all("ray::Trial")

    diary = Killer()
    with sweep(tmp_path, diary) as running:
        (outcome,) = running.run([trial], work=count)
    assert outcome.status == "done"
    assert diary.started == [trial.key] * 2
    assert set(logged(tmp_path, trial)) == {1, 2, 3, 4}
    assert len(logged(tmp_path, trial)) <= 5, "more than one epoch was done twice"


def test_a_killed_rank_costs_the_epochs_since_the_last_save_and_changes_nothing(
    tmp_path: Path,
) -> None:
    trial = config("unsaved", epochs=4, ranks=2, fault="kill", fault_epoch=3, fault_rank=1)
    diary = Diary()
    with sweep(tmp_path, diary, checkpoint_every_s=3600) as running:
        (outcome,) = running.run([trial], work=count)
    assert outcome.result is not None
    assert outcome.result.scores["total"] == expected_total(4, 2)
    assert logged(tmp_path, trial) == [1, 2, 1, 2, 3, 4]
    assert diary.epochs[trial.key] == [1, 2, 3, 4], "an epoch was told twice"


def test_halving_stops_trials_which_give_everything_back(tmp_path: Path) -> None:
    trials = [config(f"h{i}", epochs=5, score=-10.0 * i) for i in range(6)]
    asha = AshaSpec(metric="val/score", mode="max", grace_period=2, reduction_factor=2)
    with sweep(tmp_path, checkpoint_every_s=3600) as running:  # a stop saves what is unsaved
        outcomes = running.run(trials, work=count, stopping=asha)
        again = running.run(trials, work=count, stopping=asha)
        finished = running.run(trials, work=count)
    await_free_cpus(2)
    stopped = [outcome for outcome in outcomes if outcome.status == "stopped"]
    assert len(stopped) >= 3
    assert all(2 <= outcome.epoch < 5 for outcome in stopped)
    assert [outcome.key for outcome in again if outcome.status == "stopped"] == [
        outcome.key for outcome in stopped
    ]
    assert set(statuses(again)) == {"reused", "stopped"}
    assert set(statuses(finished)) == {"done", "reused"}
    assert all(logged(tmp_path, trial) == [1, 2, 3, 4, 5] for trial in trials)


def test_more_ranks_than_the_cluster_has_is_said_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    with sweep(tmp_path) as running, pytest.raises(EnvironmentFault) as caught:
        running.run([config("ok"), config("wide", ranks=9)], work=count)
    assert time.monotonic() - started < 30
    assert caught.value.exit_code == 3
    assert "wants 9 ranks of 1 CPU" in str(caught.value)
    assert "room for 2 (2 CPU and 0 GPU on 1 node)" in str(caught.value)


def test_ray_in_use_is_left_running(ray_cluster: Cluster) -> None:
    import ray

    guest = Cluster()
    guest.start()
    guest.stop()
    assert ray.is_initialized()
