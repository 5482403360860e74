"""What one trial does, from configuration to result. Knows no Ray and no MLflow.

The same code runs in one process, under ``torchrun`` and under Ray: each calls :func:`run_trial` on
every rank and draws its epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from medaug.experiment.classify import classify
from medaug.experiment.extract import extract
from medaug.experiment.generate import generate
from medaug.experiment.names import generator_name, output_name
from medaug.experiment.rows import ARM_CONFIGS, TooFewRows
from medaug.experiment.segment import segment
from medaug.shelf import Shelf
from medaug.spec import Stage, TrialConfig
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.loop import Diverged
from medaug.train.world import World

__all__ = ["ARM_CONFIGS", "generator_name", "output_name", "run_trial"]

StageFunction = Callable[[TrialConfig, World, Shelf, Checkpoint | None], Iterator[Progress]]

STAGES: Mapping[Stage, StageFunction] = {
    "segment": segment,
    "extract": extract,
    "generate": generate,
    "classify": classify,
}


def run_trial(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None = None
) -> Iterator[Progress]:
    """Run ``config`` on this rank, one :class:`Progress` per epoch.

    The last Progress carries the trial's result: a JSON-ready dict with ``status`` (``done`` or
    ``diverged``), ``scores`` and what its stage adds. Models and stores are published under
    ``storage`` before that. ``resume`` continues at the end of that checkpoint's epoch.

    Raises:
        UserError: an input is missing, or a generator has seen patients it must not have seen.
    """
    progress = Progress(resume.epoch if resume else 0, {})
    try:
        for progress in STAGES[config.stage](config, world, Shelf(storage), resume):
            if progress.result is not None:
                progress = replace(progress, result={"status": "done", **progress.result})
            yield progress
    except (Diverged, TooFewRows) as why:
        yield Progress(progress.epoch, {}, result={"status": "diverged", "why": str(why)})
