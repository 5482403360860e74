"""Trials that only take time. Workers import this module by name."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from medaug.spec import GenerateTrial, TrialConfig, WrittenArm
from medaug.storage.results import GenerateResult

if TYPE_CHECKING:
    from medaug.train.checkpoint import Checkpoint, Progress
    from medaug.train.world import World


def trials(n: int, seconds: float) -> list[GenerateTrial]:
    """Configurations of ``n`` different trials of so many seconds."""
    maker = WrittenArm.model_validate({"kind": "wait", "seconds": seconds})
    return [
        GenerateTrial(arm="wait", maker=maker, n=1, features="none", fold=0, seed=i)
        for i in range(n)
    ]


def wait(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None
) -> Iterator[Progress]:
    """One epoch of waiting (a device would train, the cores are free), and when that was."""
    from medaug.train.checkpoint import Progress

    assert isinstance(config, GenerateTrial)
    begun = time.time()
    time.sleep(config.maker.get("seconds"))
    scores = {"pid": os.getpid(), "begun": begun, "ended": time.time()}
    result = GenerateResult(output="none", generator="none", n=0, scores=scores)
    yield Progress(1, {"val/score": 0.0}, None, result)
