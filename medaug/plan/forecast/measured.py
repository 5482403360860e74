"""The work of a rehearsal's ranks: the study's own, and beside it what each epoch took."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from medaug.spec import GenerateTrial, TrialConfig

if TYPE_CHECKING:
    from medaug.train.checkpoint import Checkpoint, Progress
    from medaug.train.world import World

CPU_S, RAM, VRAM, VRAM_THERE = "plan/cpu_s", "plan/ram", "plan/vram", "plan/vram_there"
START_CPU_S, WARM = "plan/start_cpu_s", "plan/warm"

_run: Counter[tuple[str, str]] = Counter()
"""Trials that this process has run, by the code that they need."""


def run_measured(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None
) -> Iterator[Progress]:
    """As :func:`medaug.experiment.run_trial`; metrics of each epoch also hold this rank's CPU
    seconds (all threads), peak resident bytes, and on a GPU the peak that torch reserved and what
    the device has; CPU seconds that the process had used before its first trial; and whether it
    was warm, having run a trial of :func:`code_of` this one before."""
    import torch

    from medaug import experiment

    cpu_s = time.process_time()
    about = {WARM: float(_run[code_of(config)] > 0)}
    if not _run:
        about[START_CPU_S] = cpu_s
    _run[code_of(config)] += 1
    for progress in experiment.run_trial(config, world, storage, resume):
        now = time.process_time()
        taken = {
            **about,
            CPU_S: now - cpu_s,
            RAM: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
        }
        if world.device.type == "cuda":
            taken[VRAM] = float(torch.cuda.max_memory_reserved())
            taken[VRAM_THERE] = float(torch.cuda.get_device_properties(0).total_memory)
        progress.metrics = {**progress.metrics, **taken}
        yield progress
        cpu_s = now


def code_of(trial: TrialConfig) -> tuple[str, str]:
    """Trials for which this is the same need the same libraries and kernels."""
    return trial.stage, trial.maker.kind if isinstance(trial, GenerateTrial) else ""
