"""What one trial does, from configuration to result. Knows no Ray and no MLflow.

The same code runs in one process, under ``torchrun`` and under Ray: each calls :func:`run_trial` on
every rank and draws its epochs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from medaug.arms import ARMS
from medaug.errors import UserError
from medaug.experiment.classify import classify
from medaug.experiment.draw import draw
from medaug.experiment.extract import extract
from medaug.experiment.generate import generate, generate_together
from medaug.experiment.names import generator_name, output_name
from medaug.experiment.rows import TooFewRows
from medaug.experiment.segment import segment
from medaug.experiment.solve import solve_all
from medaug.spec import ClassifyTrial, GenerateTrial, LinearSpec, Stage, TrialConfig
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import DivergedResult, TrialResult
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.loop import Diverged
from medaug.train.world import World

__all__ = [
    "bundle_by",
    "generator_name",
    "is_solved",
    "output_name",
    "run_bundle",
    "run_together",
    "run_trial",
]

StageFunction = Callable[[Any, World, Artifacts, Checkpoint | None], Iterator[Progress]]
"""Of the stage's own type of trial."""

STAGES: Mapping[Stage, StageFunction] = {
    "draw": draw,
    "segment": segment,
    "extract": extract,
    "generate": generate,
    "classify": classify,
}


def run_trial(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None = None
) -> Iterator[Progress]:
    """Run ``config`` on this rank, one :class:`Progress` per epoch.

    The last Progress carries the trial's result, of its stage's type or a
    :class:`~medaug.storage.results.DivergedResult`. Models and stores are published under
    ``storage`` before that. ``resume`` continues at the end of that checkpoint's epoch.

    Raises:
        UserError: an input is missing, or a generator has seen patients it must not have seen.
    """
    yield from _or_diverged(STAGES[config.stage](config, world, Artifacts(storage), resume), resume)


def run_bundle(
    configs: Sequence[TrialConfig], world: World, storage: Path
) -> Iterator[tuple[TrialConfig, TrialResult]]:
    """Run ``configs`` on this rank one after the other, each with its result as it ends.

    Classifiers that are solved share what they read, if they are next to each other.

    Raises:
        UserError: as :func:`run_trial`, for the first that has not been yielded.
    """
    for solvable, group in itertools.groupby(configs, is_solved):
        if solvable:
            yield from solve_all([*group], Artifacts(storage), world)  # type: ignore[list-item]
            continue
        for config in group:
            *_, last = run_trial(config, world, storage)
            assert last.result is not None, "a trial's last epoch carries its result"
            yield config, last.result


def is_solved(config: TrialConfig) -> TypeGuard[ClassifyTrial]:
    """Whether it is a classifier that takes milliseconds."""
    return isinstance(config, ClassifyTrial) and isinstance(config.classifier, LinearSpec)


def bundle_by(config: TrialConfig) -> Hashable | None:
    """Trials for which it gives the same are best run next to each other: they share rows. None:
    it is run by itself."""
    if isinstance(config, GenerateTrial) and ARMS[config.maker.kind].instant:
        return config.features, config.fold
    if not is_solved(config):
        return None
    spec = config.classifier
    assert isinstance(spec, LinearSpec)
    return config.features, config.fold, spec.pool


def run_together(
    configs: Sequence[TrialConfig],
    world: World,
    storage: Path,
    resumes: Sequence[Checkpoint | None],
) -> list[Iterator[Progress]]:
    """Trials of stage ``generate`` that differ in seed, fold and inputs, in shared passes.

    For each trial what :func:`run_trial` would yield, up to rounding: each has checkpoints and a
    result of its own, may be closed at any epoch, diverges alone, and goes on from its checkpoint
    here or by itself. Draw one epoch of each in turn; the trials that have come as far as the one
    that is drawn are trained with it.

    Raises:
        UserError: as :func:`run_trial`, or trials that have no passes to share.
    """
    generators = [config for config in configs if isinstance(config, GenerateTrial)]
    if len(generators) < len(configs):
        raise UserError("replicates: only trials of stage generate share passes")
    trials = generate_together(generators, world, Artifacts(storage), resumes)
    return [_or_diverged(trial, resume) for trial, resume in zip(trials, resumes, strict=True)]


def _or_diverged(epochs: Iterator[Progress], resume: Checkpoint | None) -> Iterator[Progress]:
    progress = Progress(resume.epoch if resume else 0, {})
    try:
        for progress in epochs:  # the last of them is needed below
            yield progress
    except (Diverged, TooFewRows) as why:
        yield Progress(progress.epoch, {}, result=DivergedResult(why=str(why)))
