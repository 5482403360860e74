"""Rows 35 and 44: an object store that is full, a trial that tells more than anybody reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_trials import config, count, expected_total

from medaug.spec import ResourceSpec
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep import Sweep
from medaug.sweep.cluster.start import OBJECT_STORE_BYTES
from medaug.sweep.trial.stopwatch import Stopwatch
from tests.chaos.board import Fault
from tests.chaos.injectors import cluster

EPOCHS = 10_000
MOST_BYTES = 50_000_000


@pytest.mark.chaos
def test_ten_thousand_epochs(faults: Callable[[int, str], Fault], tmp_path: Path) -> None:
    fault = faults(44, "10,000 epochs of 20 metrics told by one trial")
    folder = TrialFolder(tmp_path, "0123456789ab")
    folder.path.mkdir(parents=True)
    watch = Stopwatch(folder, "flood")
    metrics = {f"val/metric_{i}": 1 / 3 + i for i in range(20)}
    fault.inject()
    for epoch in range(1, EPOCHS + 1):
        row = {"epoch": epoch, "metrics": metrics, "seconds": 1.0, "save_seconds": 0.1}
        folder.log_epoch(row | {"time": round(time.time(), 3)})
        watch.lap("idle", epoch=epoch, step=1.0)
    written = sum(path.stat().st_size for path in folder.path.iterdir())
    assert written < MOST_BYTES
    assert len(folder.epochs()) == len(folder.laps()) == EPOCHS == folder.epoch()
    fault.survive()


@pytest.mark.chaos
@pytest.mark.ray
def test_an_object_store_that_is_full(faults: Callable[[int, str], Fault], tmp_path: Path) -> None:
    """Trials keep nothing there: what others have filled it with is not in their way."""
    fault = faults(35, f"Ray's object store of {OBJECT_STORE_BYTES >> 20} MiB full")
    trial = config("calm", ranks=2, epochs=4)
    with cluster(2):
        import ray

        blocks = [
            ray.put(bytes(OBJECT_STORE_BYTES // 8)) for _ in range(12)
        ]  # the last are spilled
        fault.inject()
        with Sweep(tmp_path / "experiment", tmp_path, ResourceSpec()) as sweep:
            (outcome,) = sweep.run([trial], work=count)
        assert outcome.status == "done", outcome
        assert outcome.result is not None
        assert outcome.result.scores["total"] == expected_total(4, 2)
        assert all(len(ray.get(block)) == OBJECT_STORE_BYTES // 8 for block in blocks)
        fault.survive()
