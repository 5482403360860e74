"""Trials that only take time. Workers import this module by name."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medaug.spec import TrialConfig

if TYPE_CHECKING:
    from medaug.train.checkpoint import Checkpoint, Progress
    from medaug.train.world import World


def trials(n: int, seconds: float) -> list[TrialConfig]:
    """Configurations of ``n`` different trials of so many seconds."""
    settings: list[dict[str, Any]] = [{"number": i, "seconds": seconds} for i in range(n)]
    return [TrialConfig(stage="generate", settings=own, fold=0) for own in settings]


def wait(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None
) -> Iterator[Progress]:
    """One epoch of waiting (a device would train, the cores are free), and when that was."""
    from medaug.train.checkpoint import Progress

    begun = time.time()
    time.sleep(config.settings["seconds"])
    result = {"status": "done", "pid": os.getpid(), "begun": begun, "ended": time.time()}
    yield Progress(1, {"val/score": 0.0}, None, result)
