"""The work of a rehearsal's ranks: the study's own, and beside it what each epoch took."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from medaug.spec import TrialConfig

if TYPE_CHECKING:
    from medaug.train.checkpoint import Checkpoint, Progress
    from medaug.train.world import World

CPU_S, RAM, VRAM, VRAM_THERE = "plan/cpu_s", "plan/ram", "plan/vram", "plan/vram_there"


def run_measured(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None
) -> Iterator[Progress]:
    """As :func:`medaug.experiment.run_trial`; metrics of each epoch also hold this rank's CPU
    seconds (all threads), peak resident bytes, and on a GPU the peak that torch reserved and what
    the device has."""
    import torch

    from medaug import experiment

    cpu_s = time.process_time()
    for progress in experiment.run_trial(config, world, storage, resume):
        now = time.process_time()
        taken = {
            CPU_S: now - cpu_s,
            RAM: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
        }
        if world.device.type == "cuda":
            taken[VRAM] = float(torch.cuda.max_memory_reserved())
            taken[VRAM_THERE] = float(torch.cuda.get_device_properties(0).total_memory)
        progress.metrics = {**progress.metrics, **taken}
        yield progress
        cpu_s = now
