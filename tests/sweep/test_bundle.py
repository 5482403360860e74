"""Many short trials as one: packed, run, written down, found again, and told."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from toy_trials import begun, config, count, count_many, result_of, settings_of

from medaug.errors import IntegrityError
from medaug.results.records import read_trial, read_trials
from medaug.spec import ResourceSpec, TrialConfig
from medaug.storage.bundle_folder import Bundled, BundleFolder, Member
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep import Outcome, Sweep
from medaug.sweep.trial import bundle as module
from medaug.sweep.trial.bundle import Bundle, BundleRun, pack
from medaug.sweep.trial.fence import Fence
from medaug.train.world import World


def short(name: str, group: str = "a", **settings: Any) -> TrialConfig:
    return config(name, group=group, **settings)


def by_group(trial: TrialConfig) -> str | None:
    return settings_of(trial).get("group")


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.bundles: list[Bundle] = []
        self.open = 0
        self.ended: list[Outcome] = []
        self.waves: list[tuple[str, int, int]] = []

    def on_wave_start(self, stage: str, n: int, reused: int) -> None:
        self.waves.append((stage, n, reused))

    def on_bundle_start(self, bundle: Bundle) -> None:
        self.bundles.append(bundle)
        self.open += 1

    def on_bundle_end(self, bundle: Bundle) -> None:
        self.open -= 1

    def on_place(self, unit: Bundle | TrialConfig, device: str) -> None:
        assert device == "cpu"

    def on_trial_start(self, config: TrialConfig) -> None: ...
    def on_epoch(self, config: TrialConfig, epoch: int, metrics: object) -> None: ...

    def on_trial_end(self, outcome: Outcome) -> None:
        self.ended.append(outcome)

    def on_wave_end(self) -> None:
        assert not self.open


def run(
    path: Path, trials: Sequence[TrialConfig], *ears: Any, run_name: str = "run", **resources: Any
) -> list[Outcome]:
    spec = ResourceSpec(**{"max_concurrent": 1, **resources})
    with Sweep(path / run_name, path, spec, listeners=ears) as sweep:
        return sweep.run(trials, work=count, bundle_by=by_group, bundle_work=count_many)


def test_trials_of_a_group_are_neighbours_and_places_are_filled() -> None:
    trials = [short(f"{i}", "ab"[i % 2]) for i in range(40)] + [config("alone"), short("x", "c")]
    units = pack(trials, by_group, slots=2)
    bundles = [unit for unit in units if isinstance(unit, Bundle)]
    assert [unit.key for unit in units if unit not in bundles] == [trials[40].key]
    assert [len(bundle.trials) for bundle in bundles] == [6] * 6 + [5]
    inside = [by_group(trial) for bundle in bundles for trial in bundle.trials]
    assert inside == ["a"] * 20 + ["b"] * 20 + ["c"]
    assert len({bundle.key for bundle in bundles}) == len(bundles)


def test_ranks_are_not_mixed_and_no_bundle_is_endless() -> None:
    trials = [short(f"{i}", ranks=1 + i % 2) for i in range(3000)]
    bundles = [unit for unit in pack(trials, by_group, slots=1) if isinstance(unit, Bundle)]
    assert {len({trial.ranks for trial in bundle.trials}) for bundle in bundles} == {1}
    assert max(len(bundle.trials) for bundle in bundles) == module.LARGEST
    assert sum(len(bundle.trials) for bundle in bundles) == 3000


@pytest.fixture
def folder(tmp_path: Path) -> BundleFolder:
    """A bundle of three that has begun."""
    bundle = Bundle(tuple(short(name) for name in "xyz"))
    folder = BundleFolder(tmp_path, bundle.key)
    folder.claim_all(bundle.trials)
    return folder


def member(trial: TrialConfig, score: float | None) -> Member:
    result = None if score is None else result_of(total=score)
    failure = {"error": "configuration: wrong"} if score is None else None
    return Member(trial.key, result, 0.5, 1e9, failure)


def test_a_bundle_is_read_back_trial_by_trial(folder: BundleFolder) -> None:
    x, y, z = folder.trials()
    folder.commit([member(x, 1.0), member(y, None)])
    folder.commit([])
    records = {record.config.key: record for record in read_trials(folder.experiment)}
    assert [records[trial.key].status for trial in (x, y, z)] == ["done", "failed", "unfinished"]
    assert records[y.key].error == "configuration: wrong"
    assert folder.ended() == {x.key}
    folder.commit([member(y, 2.0), member(z, 3.0)])
    records = {record.config.key: record for record in read_trials(folder.experiment)}
    assert [records[trial.key].status for trial in (x, y, z)] == ["done"] * 3
    one = read_trial(folder.experiment / "trials" / y.key)
    assert one == records[y.key]
    assert one.config == y
    assert one.scores == {"total": 2.0}
    assert one.device_seconds == 0.5
    assert len(folder.parts()) == 2


def test_a_trial_that_ran_by_itself_and_in_a_bundle_counts_once(folder: BundleFolder) -> None:
    x, y, _ = folder.trials()
    folder.commit([member(x, 1.0)])
    for trial in (x, y):
        TrialFolder(folder.experiment, trial.key).claim(trial)
    TrialFolder(folder.experiment, y.key).finish(result_of())
    records = list(read_trials(folder.experiment))
    assert len(records) == 3
    assert {r.config.key for r in records if r.status == "done"} == {x.key, y.key}


@pytest.mark.parametrize("where", [5, -5])
def test_a_changed_part_is_refused(folder: BundleFolder, where: int) -> None:
    folder.commit([member(trial, 1.0) for trial in folder.trials()])
    (part,) = folder.parts()
    content = bytearray(part.read_bytes())
    content[where] ^= 1
    part.write_bytes(content)
    with pytest.raises(IntegrityError, match=part.name):
        list(read_trials(folder.experiment))


def test_what_has_ended_is_kept_when_a_bundle_is_left(folder: BundleFolder) -> None:
    def work(configs: Sequence[TrialConfig], *_: object) -> Any:
        for number, trial in enumerate(configs):
            if number == 2:
                raise MemoryError
            yield trial, result_of(number=number)

    fence = Fence(folder, (1, 1))
    run = BundleRun(folder, World.single(), folder.experiment, work, fence)
    with pytest.raises(MemoryError):  # not the trial's fault: the sweep may try again
        list(run.epochs())
    x, y, z = folder.trials()
    assert folder.ended() == {x.key, y.key}
    again = BundleRun(folder, World.single(), folder.experiment, work, fence)
    assert again.n_ended == 2
    assert [progress.epoch for progress in again.epochs()] == [3]
    assert Bundled(folder.experiment).members([z.key])[z.key].result == result_of(number=0)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_bundles_run_resume_and_fail_trial_by_trial(tmp_path: Path) -> None:
    wrong = short("wrong", "b", fault="raise", tries=2)
    trials = [*(short(f"{i}", "ab"[i % 2]) for i in range(30)), wrong, config("alone")]
    ear = Ear()
    first = run(tmp_path, trials, ear)
    assert [outcome.key for outcome in first] == [trial.key for trial in trials]
    assert {outcome.status for outcome in first[:30]} == {"done"}
    assert [outcome.status for outcome in first[30:]] == ["failed", "done"]
    assert first[30].error is not None
    assert first[30].error.startswith("configuration: settings.fault: ")
    assert sorted(outcome.key for outcome in ear.ended) == sorted(trial.key for trial in trials)
    assert sum(len(bundle.trials) for bundle in ear.bundles) == 31
    records = {record.config.key: record for record in read_trials(tmp_path / "run")}
    assert records[trials[0].key].result == first[0].result
    assert {records[trial.key].status for trial in trials[:30]} == {"done"}
    assert not (tmp_path / "run" / "trials" / trials[0].key).exists()

    ear = Ear()
    second = run(tmp_path, trials, ear)
    assert ear.waves == [("generate", 32, 31)]
    assert [len(bundle.trials) for bundle in ear.bundles] == [1]
    assert second[30].status == "failed"
    third = run(tmp_path, trials)
    assert third[30].status == "done"
    assert {outcome.status for outcome in third[:30]} == {"reused"}
    assert third[0].result == first[0].result
    assert len(begun(tmp_path, trials[0])) == 1

    elsewhere = run(tmp_path, trials, run_name="other")
    assert {outcome.status for outcome in elsewhere} == {"reused"}
    assert len(begun(tmp_path, trials[0])) == 1
    assert sum(r.status == "done" for r in read_trials(tmp_path / "other")) == 32


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_rank_costs_no_trial_that_was_written_down(tmp_path: Path) -> None:
    slow = [short(f"{i}", seconds=0.5) for i in range(6)]
    trials = [*slow, short("killer", fault="kill"), *(short(f"{i}") for i in range(6, 12))]
    many = config("two", ranks=2, group="b")
    outcomes = run(tmp_path, [*trials, many], max_concurrent=1)
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert outcomes[-1].result is not None
    assert outcomes[-1].result.scores == {"total": 6.0}
    assert sum(len(begun(tmp_path, trial)) for trial in slow) <= 6 + 4
    assert len(begun(tmp_path, trials[6])) == 2


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_three_thousand_cost_seconds(tmp_path: Path) -> None:
    """What Ray, the folders and the listeners take of 3,000 trials that take nothing themselves."""
    trials = [short(f"{i}", f"{i % 40}") for i in range(3000)]
    started, cpu = time.monotonic(), os.times()
    outcomes = run(tmp_path, trials, Ear())
    took_s = time.monotonic() - started
    assert {outcome.status for outcome in outcomes} == {"done"}
    files = sum(1 for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert files < 300
    driver_s = sum(os.times()[:2]) - sum(cpu[:2])
    print(json.dumps({"wall_s": round(took_s, 1), "driver_s": round(driver_s, 1), "files": files}))
    assert took_s < 60, "on two busy cores; some 10 s on idle ones"
