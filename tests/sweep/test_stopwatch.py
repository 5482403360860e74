"""Every second of a trial is in one bucket, whatever happened to it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from medaug.results.goodput import BUCKETS, Spent, spent
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial.stopwatch import Stopwatch


class Clock:
    """Time that passes when it is told to, on both of a machine's clocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "time", lambda: self.now + 1.7e9)

    def tick(self, seconds: float) -> None:
        self.now += seconds


def test_buckets_add_up_over_faults_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    folder = TrialFolder(tmp_path, "0123456789ab")
    folder.path.mkdir(parents=True)
    epochs = [{"epoch": 1, "seconds": 1.0, "save_seconds": 1.0, "time": 0.0}]

    def lap(watch: Stopwatch, seconds: float, bucket: str, **more: float) -> None:
        clock.tick(seconds)
        watch.lap(bucket, **more)  # type: ignore[arg-type]

    first = Stopwatch(folder, "monday")
    assert not first.restarts
    lap(first, 5, "startup")
    lap(first, 1, "ckpt_load")
    lap(first, 10, "idle", epoch=1, step=6.0, data_wait=2.0, ckpt_save=1.5)
    lap(first, 10, "idle", epoch=2, step=8.0)
    lap(first, 7, "redone", detect=4.0)  # a rank hung in epoch 3
    lap(first, 3, "restart")
    lap(first, 10, "idle", epoch=2, step=8.0)  # epoch 2's checkpoint had been damaged
    clock.tick(20)  # the trial's actor is killed, and started again
    second = Stopwatch(folder, "monday")
    assert second.restarts
    lap(second, 5, "restart")
    clock.tick(1000)  # the driver is killed, and resumed after a night
    third = Stopwatch(folder, "tuesday")
    assert not third.restarts
    lap(third, 4, "startup")
    lap(third, 10, "idle", epoch=3, step=50.0)  # clocks that disagree: never more than there was

    found = spent(epochs, folder.laps())
    want = Spent(
        1, good=6 + 8 + 10, startup=9, data_wait=2, ckpt_save=1.5, ckpt_load=1, redone=3 + 8,
        detect=4, restart=3 + 20 + 5, idle=0.5 + 2 + 2 + 1000,
    )  # fmt: skip
    assert {name: getattr(found, name) for name in BUCKETS} == pytest.approx(
        {name: getattr(want, name) for name in BUCKETS}
    )
    assert found.wall == pytest.approx(clock.now - 1000.0)
    assert found.goodput == pytest.approx(24 / found.wall)
    assert (found + found).wall == pytest.approx(2 * found.wall)
