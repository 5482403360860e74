"""Rows 5, 6, 8, 10 and 45: ranks, trials and drivers killed or stopped at seeded moments."""

from __future__ import annotations

import logging
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from toy_trials import begun, config, count, expected_total, settings_of, small_steps

from medaug.results.goodput import spent
from medaug.spec import ResourceSpec, TrialConfig
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep import Sweep
from tests.chaos.board import Fault
from tests.chaos.injectors import cluster
from tests.chaos.strikes import Striker, account, kill_rank, processes_named
from tests.sweep.driving import Driver, trial

pytestmark = [pytest.mark.chaos, pytest.mark.ray]

EPOCHS, EPOCH_S = 16, 0.4
KILLS = 5


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """``HOST:PORT`` of a cluster for all tests of this file; it says that it has four CPUs."""
    with cluster(4) as found:
        yield found


def long_trial(name: str, ranks: int = 1, epochs: int = EPOCHS, **more: object) -> TrialConfig:
    return config(name, ranks=ranks, epochs=epochs, seconds=EPOCH_S, **more)


def run(storage: Path, trials: list[TrialConfig], *listeners: Striker, **resources: float) -> None:
    """Run a sweep to its end; every trial has the result of one that nobody disturbed."""
    spec = ResourceSpec(**{"max_failures": 20, "checkpoint_every_s": 0, **resources})  # type: ignore[arg-type]
    with Sweep(storage / "experiment", storage, spec, listeners=listeners) as sweep:
        outcomes = sweep.run(trials, work=count)
    assert [outcome.status for outcome in outcomes] == ["done"] * len(trials), outcomes
    for one, outcome in zip(trials, outcomes, strict=True):
        assert outcome.result is not None
        total = expected_total(settings_of(one)["epochs"], one.ranks)
        assert outcome.result.scores["total"] == total
        assert_every_second_is_counted(TrialFolder(storage / "experiment", one.key))


def assert_every_second_is_counted(folder: TrialFolder) -> None:
    """The buckets' sum is the time from the trial's start to its result, by another clock."""
    laps = folder.laps()
    began = laps[0]["time"] - sum(laps[0]["seconds"].values())
    wall = laps[-1]["time"] - began
    assert abs(spent(folder.epochs(), laps).wall - wall) <= 0.01 * wall
    assert (folder.path / "result.json").stat().st_mtime <= laps[-1]["time"] + 0.01 * wall


def assert_untouched(storage: Path, one: TrialConfig) -> None:
    assert len(begun(storage, one)) == settings_of(one)["epochs"], "a finished trial was run again"


def test_killed_ranks(faults: Callable[[int, str], Fault], address: str, tmp_path: Path) -> None:
    fault = faults(5, "a rank killed")
    dice = random.Random(5)
    victim, quick = long_trial("victim", ranks=2), config("quick", epochs=2)

    def strike() -> bool:
        fault.inject()
        return kill_rank(tmp_path, victim, dice.randrange(2))

    striker = Striker(strike, KILLS, epoch_s=EPOCH_S, seed=5)
    run(tmp_path, [victim, quick], striker)
    assert len(striker.when) == KILLS
    account(fault, striker.when, tmp_path, [victim])
    assert_untouched(tmp_path, quick)


def test_killed_trials(faults: Callable[[int, str], Fault], address: str, tmp_path: Path) -> None:
    fault = faults(8, "a trial's actor killed")
    dice = random.Random(8)
    trials = [long_trial("two-ranks", ranks=2), long_trial("one-rank")]
    quick = config("quick", epochs=2)

    def strike() -> bool:
        fault.inject()
        dice.choice(processes_named("ray::Trial")).kill()
        return True

    striker = Striker(strike, KILLS, epoch_s=EPOCH_S, seed=8)
    run(tmp_path, [quick, *trials], striker)
    assert len(striker.when) == KILLS
    account(fault, striker.when, tmp_path, trials)
    assert_untouched(tmp_path, quick)


def test_killed_drivers(
    faults: Callable[[int, str], Fault], address: str, tmp_path: Path, temporary: Path
) -> None:
    fault, left = faults(10, "the driver killed"), faults(43, "processes left by a killed driver")
    dice = random.Random(10)
    names, strikes = ("quick", "slow", "slower"), []
    options = {"address": address, "epochs": EPOCHS, "seconds": EPOCH_S}
    driver = Driver(tmp_path, temporary, *names, **options)  # type: ignore[arg-type]
    trials = [trial(name, EPOCHS, EPOCH_S) for name in names]
    driver.await_line(f"end {trials[0].key} done")
    for _ in range(KILLS):
        driver.await_line("epoch slow ")
        driver.await_line("epoch slow ")
        time.sleep(dice.uniform(0, EPOCH_S))
        fault.inject()
        left.inject()
        strikes.append(time.time())
        driver.process.kill()
        driver.finish(timeout=60)
        driver = Driver(tmp_path, temporary, *names, **options)  # type: ignore[arg-type]
        driver.await_line("wave")
        assert driver.lines[-1] == "wave 3 1", "the finished trial was started again"
    code, err = driver.finish(timeout=120)
    assert (code, err) == (0, "")
    account(fault, strikes, tmp_path, trials[1:])
    assert_untouched(tmp_path, trials[0])
    driver.await_no_leftovers(15)
    left.survive(KILLS)


@pytest.mark.parametrize("seed", range(7))
def test_killed_again_while_recovering(
    faults: Callable[[int, str], Fault], address: str, tmp_path: Path, seed: int
) -> None:
    fault = faults(45, "a second kill while recovering from one")
    dice = random.Random(45 + seed)
    victim = long_trial("victim", ranks=2, epochs=12)

    def strike() -> bool:
        fault.inject()
        kill_rank(tmp_path, victim, 0)
        time.sleep(dice.uniform(0.1, 3.0))
        found = processes_named("ray::Rank")
        for process in dice.sample(found, min(1, len(found))):
            process.kill()
        return True

    striker = Striker(strike, 3, epoch_s=EPOCH_S, seed=seed)
    run(tmp_path, [victim], striker)
    account(fault, striker.when, tmp_path, [victim], within_s=60)


HANG_TIMEOUT_S = 4.0


@pytest.mark.parametrize("how", ["stopped", "left out of a collective"])
def test_hanging_ranks(
    faults: Callable[[int, str], Fault], address: str, tmp_path: Path, how: str
) -> None:
    fault = faults(6, f"a rank {how}")
    if how == "stopped":
        victim = long_trial("victim", ranks=2, epochs=8)

        def strike() -> bool:
            fault.inject()
            return kill_rank(tmp_path, victim, 1, signal.SIGSTOP)

        striker = Striker(strike, 2, epoch_s=EPOCH_S, seed=6)
        run(tmp_path, [victim], striker, hang_timeout_s=HANG_TIMEOUT_S)
        strikes = striker.when
    else:
        more = {"fault": "skip", "fault_epoch": 3, "fault_rank": 1, "tries": 1}
        victim = long_trial("victim", ranks=2, epochs=5, **more)
        fault.inject()
        run(tmp_path, [victim], hang_timeout_s=HANG_TIMEOUT_S)
        strikes = [start.time for start in begun(tmp_path, victim) if start.epoch == 3][:1]
    folder = TrialFolder(tmp_path / "experiment", victim.key)
    found = [row for row in folder.failures() if row["kind"] in ("hang", "collective")]
    assert len(found) == len(strikes)
    for when, row in zip(strikes, found, strict=True):
        fault.judge(row["time"] - when, HANG_TIMEOUT_S + 5)
        fault.survive(seconds=row["time"] - when)
        assert "rank 1" in row["details"] or row["kind"] == "collective"
    assert len(begun(tmp_path, victim)) - settings_of(victim)["epochs"] <= len(strikes)


def test_a_rank_that_is_slow_is_named(
    faults: Callable[[int, str], Fault],
    address: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fault = faults(7, "a rank ten times slower than the others")
    slow = config("slow", ranks=2, seconds=0.05)
    fault.inject()
    with Sweep(tmp_path / "experiment", tmp_path, ResourceSpec()) as sweep:
        (outcome,) = sweep.run([slow], work=small_steps)
    assert outcome.status == "done", "being slow is no failure"
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    told = [text for text in said if "rank 1 takes" in text]
    assert len(told) == 1
    assert not TrialFolder(tmp_path / "experiment", slow.key).failures()
    fault.survive()


def test_a_rank_out_of_memory(
    faults: Callable[[int, str], Fault], address: str, tmp_path: Path
) -> None:
    fault = faults(34, "a rank out of memory")
    greedy = long_trial("greedy", epochs=4, fault="memory", fault_epoch=3)
    fault.inject()
    run(tmp_path, [greedy])
    (failure,) = TrialFolder(tmp_path / "experiment", greedy.key).failures()
    assert failure["kind"] == "out of memory"
    assert "lower the batch size" in failure["error"]
    account(fault, [begun(tmp_path, greedy)[2].time], tmp_path, [greedy])
