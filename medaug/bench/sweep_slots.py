"""Ranks that do nothing, to see what a sweep itself costs.

A trial's ranks are processes of hundreds of megabytes that load torch. Without them, thousands of
trials run on a machine that develops software in minutes: real are our runner, its record and the
trials' folders, Ray Tune, the placement groups and the trials' own actors and processes.
"""

from __future__ import annotations

import time
from pathlib import Path

from medaug.spec import GenerateTrial, ResourceSpec
from medaug.storage.results import ExtractResult
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial.rank import Epoch


class IdleRanks:
    """In place of a trial's ranks: one epoch, recorded as rank 0 records it."""

    device = "cpu"

    def __init__(self, size: int, resources: ResourceSpec) -> None:
        self._folder: TrialFolder | None = None

    def begin(self, folder: TrialFolder, storage: Path, work: str, turn: tuple[int, int]) -> int:
        self._folder = folder
        return 0

    def advance(self) -> Epoch:
        assert self._folder is not None
        config = self._folder.config()
        assert isinstance(config, GenerateTrial)
        time.sleep(max(0.0, config.maker.get("seconds")))
        row = {"epoch": 1, "metrics": {"val/score": 0.0}, "seconds": 0.0, "save_seconds": 0.0}
        self._folder.log_epoch({**row, "time": time.time()})
        self._folder.finish(ExtractResult(output="none", rows=0, shape=()))
        return Epoch(1, {"val/score": 0.0}, finished=True)

    def leaving(self) -> list[str]:
        return []

    def end(self) -> None:
        pass

    def close(self) -> None:
        pass

    kill = close
