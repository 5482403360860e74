"""What one Tune run makes of its trials' reports, without a cluster."""

from __future__ import annotations

import math
import pickle
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune import TuneError
from ray.tune.schedulers import HyperBandScheduler
from toy_trials import config

from medaug.errors import EnvironmentFault
from medaug.spec import (
    AshaSpec,
    HyperbandSpec,
    MedianSpec,
    ResourceSpec,
    StopSpec,
    TrialConfig,
)
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.events import Listeners
from medaug.sweep.trial.failures import Failure
from medaug.sweep.trial.trainable import Setting, Trial, Wave, as_param, room_for
from medaug.sweep.tune import record as record_module
from medaug.sweep.tune.record import MOVES, Record, lost
from medaug.sweep.tune.run import Early, Feed, StopAll, TuneRun, Unloadable
from medaug.sweep.tune.stopping import Peers, Runner, Stopping, bracket_of

ASHA = AshaSpec(metric="val/fd", mode="min", grace_period=1, reduction_factor=2)
DISTANCE = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}


def tune_trial(key: str) -> Any:
    return SimpleNamespace(trial_id=key, config={"trial": {"key": key}})


def decide(stopping: Stopping, reports: list[tuple[str, int]], alive: set[str]) -> list[str]:
    """Let the trials that are alive report; those that are stopped leave ``alive``."""
    decisions = []
    for key, epoch in reports:
        if key in alive:
            result = {"epoch": epoch, "metrics": (("val/fd", DISTANCE[key] / epoch),)}
            decisions.append(stopping.on_trial_result(None, tune_trial(key), result))
            if decisions[-1] == "STOP":
                alive.remove(key)
    return decisions


def lines(reports: list[tuple[str, int]]) -> dict[str, list[dict[str, Any]]]:
    """What stands in the trials' folders of these reports, which came one a second."""
    earlier: dict[str, list[dict[str, Any]]] = {key: [] for key in DISTANCE}
    for second, (key, epoch) in enumerate(reports):
        metrics = {"val/fd": DISTANCE[key] / epoch}
        earlier[key].append({"epoch": epoch, "metrics": metrics, "time": float(second)})
    return earlier


@pytest.mark.parametrize(
    "spec",
    [
        ASHA,
        HyperbandSpec(grace_period=1, reduction_factor=2, brackets=2),
        MedianSpec(grace_period=1, min_samples=2),
    ],
)
def test_a_resumed_sweep_stops_whom_an_uninterrupted_one_does(spec: StopSpec) -> None:
    # The worse reports first at the first rung, so that all pass it; then the better does.
    reports = [(key, 1) for key in "dcba"] + [(key, epoch) for epoch in (2, 3, 4) for key in "abcd"]
    cut = 6  # in the middle of the second rung: a and b have passed it
    alive = set(DISTANCE)
    whole = Stopping(spec, {})
    before = decide(whole, reports[:cut], alive)
    still, again = set(alive), set(alive)
    after = decide(whole, reports[cut:], alive)
    assert "STOP" in [*before, *after]
    resumed = Stopping(spec, lines(reports[: len(before)]))
    assert decide(resumed, reports[cut:], still) == after
    if spec is ASHA:
        assert after.count("STOP") == 2
        assert decide(Stopping(ASHA, {}), reports[cut:], again) != after


def test_the_median_rule_ends_what_is_worse_than_half_of_the_others() -> None:
    spec = MedianSpec(grace_period=2, min_samples=2)
    alive = set(DISTANCE)
    first = decide(Stopping(spec, {}), [(key, 1) for key in "abcd"], alive)
    assert first == ["CONTINUE"] * 4  # still in their grace
    stopping = Stopping(spec, lines([(key, 1) for key in "abcd"]))
    decide(stopping, [(key, 2) for key in "abcd"], alive)
    # c's best, 1.5, is worse than .75, the median of .5 and 1; d's, 2, than that of all three.
    assert alive == {"a", "b"}
    nan = stopping.on_trial_result(
        None, tune_trial("b"), {"epoch": 3, "metrics": (("val/fd", math.nan),)}
    )
    assert nan == "CONTINUE"


def test_brackets_give_some_trials_a_longer_grace() -> None:
    spec = HyperbandSpec(grace_period=1, reduction_factor=2, brackets=3)
    keys = [f"{number:012x}" for number in range(3000)]
    placed = Counter(bracket_of(key, spec) for key in keys)
    shares = [placed[bracket] / len(keys) for bracket in range(3)]
    assert shares == pytest.approx([0.665, 0.245, 0.090], abs=0.03)  # e to 1 to 1/e
    for bracket in range(3):
        ours = [key for key in keys if bracket_of(key, spec) == bracket][:20]
        stopping = Stopping(spec, {})
        first: list[int] = []
        for epoch in range(1, 9):  # better ones report first: the others are stopped at a rung
            for place, key in enumerate(ours):
                result = {"epoch": epoch, "metrics": (("val/fd", float(place)),)}
                if stopping.on_trial_result(None, tune_trial(key), result) == "STOP":
                    first.append(epoch)
        assert min(first) == 2**bracket


def test_only_peers_are_compared_and_controls_are_never_stopped() -> None:
    peers = {"a": Peers("fold 0"), "b": Peers("fold 0", True), "c": Peers("fold 1")}
    peers["d"] = Peers("fold 0")
    stopping = Stopping(ASHA, {}, peers)
    alive = set(DISTANCE)
    decide(stopping, [(key, epoch) for epoch in (1, 2, 3, 4) for key in "abcd"], alive)
    assert alive == {"a", "b", "c"}  # b is worse than a, and a control; c is another fold's


def test_rays_hyperband_pauses_trials() -> None:
    """Why it is not used: a paused trial waits for those that Tune has not started yet, and which
    those are decides who is stopped, so that a resumed sweep stops others."""
    ray = HyperBandScheduler(time_attr="epoch", metric="fd", mode="min", max_t=9)
    a, b = (Runner(key) for key in "ab")
    for runner in (a, b):
        ray.on_trial_add(None, runner)  # type: ignore[arg-type]
    answers = [
        ray.on_trial_result(None, a, {"epoch": epoch, "fd": 1.0})  # type: ignore[arg-type]
        for epoch in range(1, 10)
    ]
    assert answers[-1] == "PAUSE"
    with pytest.raises(NotImplementedError):  # what Tune asks of a trial that it pauses
        Trial.save_checkpoint(object.__new__(Trial), "")


def test_a_metric_that_nobody_reports_is_noticed() -> None:
    stopping = Stopping(ASHA, {})
    stopping.on_trial_result(None, tune_trial("a"), {"epoch": 1, "metrics": (("loss", 1.0),)})
    assert not stopping.seen
    stopping.on_trial_result(None, tune_trial("a"), {"epoch": 2, "metrics": (("val/fd", 1.0),)})
    assert stopping.seen


@pytest.fixture
def heard(tmp_path: Path) -> tuple[Record, TrialFolder, list[int]]:
    epochs: list[int] = []

    class Ear:
        def on_trial_start(self, config: TrialConfig) -> None: ...
        def on_trial_end(self, outcome: object) -> None: ...
        def on_epoch(self, config: TrialConfig, epoch: int, metrics: Mapping[str, float]) -> None:
            assert metrics == {"val/score": float(epoch)}
            epochs.append(epoch)

    trial = config("x")
    folder = TrialFolder(tmp_path, trial.key)
    folder.claim(trial)
    for epoch in (1, 2, 3, 3, 4, 5):
        folder.log_epoch({"epoch": epoch, "metrics": {"val/score": float(epoch)}})
    record = Record(tmp_path, Listeners([Ear()]), Feed().again)  # type: ignore[list-item]
    record.begin({trial.key: trial})
    return record, folder, epochs


def test_epochs_lost_between_checkpoint_and_report_are_told_late(
    heard: tuple[Record, TrialFolder, list[int]],
) -> None:
    record, folder, epochs = heard
    trial = tune_trial(folder.key)
    record.on_trial_start(0, [], trial)
    for epoch in (2, 3, 3, 5):  # resumed after 1; 3 was redone; 4's report was lost
        report = {"epoch": epoch, "metrics": {"val/score": float(epoch)}}
        record.on_trial_result(0, [], trial, report)
    assert epochs == [2, 3, 4, 5]
    folder.log_epoch({"epoch": 6, "metrics": {"val/score": 6.0}})
    outcomes = record.settle()
    assert epochs == [2, 3, 4, 5, 6]
    assert (outcomes[folder.key].status, outcomes[folder.key].epoch) == ("interrupted", 6)


NOT_LOADED = (
    "ray.exceptions.RaySystemError: System error: No module named 'my_arms'\ntraceback: ...\n"
    "ModuleNotFoundError: No module named 'my_arms'\n"
)


@pytest.mark.parametrize("told", ["on_trial_recover", "on_trial_error"])
def test_a_process_that_cannot_load_its_code_is_no_lost_node(
    heard: tuple[Record, TrialFolder, list[int]], tmp_path: Path, told: str
) -> None:
    record, folder, _ = heard
    trial = tune_trial(folder.key)
    trial.error_file = str(tmp_path / "error.txt")
    Path(trial.error_file).write_text(NOT_LOADED)
    stop = Unloadable(record)
    assert not stop.is_set()
    getattr(record, told)(0, [], trial)  # after the first try, whatever Tune would do next
    assert stop.is_set()
    assert str(record.unloadable) == (
        "packages: a process of the cluster cannot load its code: No module named 'my_arms'; "
        "install the same packages on every node, medaug included, and resume"
    )


class Clock:
    """The record's: nobody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.slept = 1000.0, 0.0
        ours = SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep)
        monkeypatch.setattr(record_module, "time", ours)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


def test_a_trial_that_finds_no_place_is_given_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune alone tries all its places within a second."""
    clock = Clock(monkeypatch)
    record = Record(tmp_path, Listeners(()), lambda param: None)
    names = [f"x{i}" for i in range(50)]
    record.begin({config(name).key: config(name) for name in names})
    trials = [tune_trial(config(name).key) for name in names]
    (tmp_path / "error.txt").write_text("The actor died unexpectedly before finishing this task.")
    for trial in trials:
        trial.error_file = str(tmp_path / "error.txt")
        record.on_trial_recover(0, [], trial)
    assert clock.slept == 0, "a place that is lost once costs no time"
    for _ in range(MOVES - 1):
        for trial in trials:
            record.on_trial_recover(0, [], trial)
    assert 60 < clock.slept < 80, "all wait together"
    clock.now += 600
    before = clock.slept
    record.on_trial_recover(0, [], trials[0])
    assert clock.slept == before, "another node, much later"


def test_a_trial_whose_process_ended_before_it_began_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    again: list[dict[str, Any]] = []
    record = Record(tmp_path, Listeners(()), again.append)
    TrialFolder(tmp_path, config("x").key).claim(config("x"))
    record.begin({config("x").key: config("x")})
    trial = tune_trial(config("x").key)
    trial.error_file = str(tmp_path / "error.txt")
    Path(trial.error_file).write_text("The actor died unexpectedly before finishing this task.")
    for _ in range(MOVES - 1):
        record.on_trial_error(0, [], trial)
    record.on_trial_start(0, [], trial)
    record.on_trial_recover(0, [], trial)  # Tune itself looks for another
    assert again == [trial.config["trial"]] * (MOVES - 1)
    record.on_trial_error(0, [], trial)
    assert len(again) == MOVES - 1, "not for ever"
    (outcome,) = record.settle().values()
    assert outcome.status == "failed"
    assert str(outcome.error).startswith("lost node: node lost 20 times")


def test_what_became_of_a_trial_that_tune_gave_up(folder: TrialFolder) -> None:
    died = "ray.exceptions.ActorDiedError: ...\nThe actor is dead because its node has died. Node"
    assert str(lost(folder, died)).startswith("lost node: node lost 20 times: no word was left;")
    failure = Failure("lost node", "a rank's node x is gone")
    folder.log_failure({"time": 0.0, "epoch": 1, **failure.as_dict()})
    told = lost(folder, died)
    assert str(told).startswith("lost node: node lost 20 times: a rank's node x is gone;")
    assert told.details == died


LOW = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: "
    "10.0.0.7, ID: e1d6) was 22.81GB used / 23.54GB limit (0.969)\nOOM kill reason: ...\n"
    "Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/..."
)
"""As Ray 2.60 says it of an actor of Tune's."""


def test_a_process_that_was_ended_for_its_memory_is_no_lost_node(folder: TrialFolder) -> None:
    told = "out of memory: Ray ended its process, as its node ran low on memory (22.81GB used / "
    assert str(lost(folder, LOW)).startswith(told + "23.54GB limit); lower the batch size, or")


def test_why_tune_gave_up_is_one_line(tmp_path: Path) -> None:
    setting = Setting(tmp_path, tmp_path, ResourceSpec())

    def says(error: Exception) -> str:
        run = TuneRun(setting, Listeners(()), threading.Event())
        run._error = error
        with pytest.raises(EnvironmentFault) as caught:
            run.outcomes()
        return str(caught.value)

    assert says(TuneError(LOW)).startswith("out of memory: Ray ended its process, as its node ran")
    assert says(TuneError("x\n" + "long " * 999)).endswith("; `medaug resume` goes on")
    assert len(says(TuneError("long " * 999))) < 400


def test_trials_are_handed_out_one_by_one() -> None:
    taken: list[TrialConfig] = []

    def units() -> Iterator[TrialConfig]:
        for name in "ab":
            taken.append(config(name))
            yield taken[-1]

    feed = Feed()
    feed.give({"key": unit.key} for unit in units())
    assert feed.suggest("1") == {"trial": {"key": config("a").key}}
    assert len(taken) == 1
    assert feed.suggest("2") == {"trial": {"key": config("b").key}}
    assert feed.suggest("3") is None
    feed.again({"key": config("a").key})
    assert feed.suggest("4") == {"trial": {"key": config("a").key}}
    assert not feed.over.is_set()


def test_between_two_waves_tune_waits() -> None:
    feed, asked = Feed(), []
    feed.give([{"key": "a"}])
    feed.suggest("1")
    feed.on_trial_complete("1")
    assert not feed.over.is_set(), "Tune has yet to let go of what it ran on"
    tune = threading.Thread(target=lambda: asked.extend(feed.suggest(i) for i in "23"))
    tune.start()
    assert feed.over.wait(10)
    feed.give([{"key": "b"}])
    assert not feed.over.is_set()
    tune.join(10)
    assert asked == [{"trial": {"key": "b"}}, None]
    feed.on_trial_complete("2", error=True)
    feed.close()
    assert feed.suggest("4") == Feed.FINISHED


def test_nothing_of_a_study_gets_into_the_files_of_tune(
    heard: tuple[Record, TrialFolder, list[int]],
) -> None:
    for part in (Feed(), Early(), StopAll(threading.Event()), heard[0]):
        assert not pickle.loads(pickle.dumps(part)).__dict__


def test_a_trial_takes_what_its_ranks_take_and_nothing_more() -> None:
    resources = ResourceSpec(cpus_per_rank=2, gpus_per_rank=1, strategy="SPREAD")
    request = room_for(as_param(config("x", ranks=3), Wave("toy_trials:count")), resources)
    assert request.bundles == [{"CPU": 2.0, "GPU": 1.0}] * 3
    assert request.head_bundle_is_empty
    assert request.strategy == "SPREAD"
    assert request.required_resources == {"CPU": 6.0, "GPU": 3.0}
