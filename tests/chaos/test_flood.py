"""Row 44: a trial that tells more than anybody reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medaug.sweep.stopwatch import Stopwatch
from medaug.trial_folder import TrialFolder
from tests.chaos.board import Fault

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
