"""Replicates of one configuration as one trial: the sweep drives the first, which trains them all.

The others keep their own folders: each has its ledger, its epochs and its result, as if it had been
run by itself. What is left of them when the first has ended (one that failed, or was interrupted)
is for the sweep to run as any other trial, from wherever it stands.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from medaug.spec import GenerateTrial, TrialConfig, signature
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial.fence import Fence, newest_turn, next_turn
from medaug.sweep.trial.recorder import Recorder

if TYPE_CHECKING:
    from medaug.sweep.runner import Sweep
    from medaug.train.checkpoint import Checkpoint, Progress
    from medaug.train.world import World

AT_ONCE = 16
"""Replicates in one pass, at most: from there on a device is busy, and memory is what runs out."""


def share_passes(sweep: Sweep, trials: Sequence[TrialConfig], experiment: Path) -> None:
    """Run those of ``trials`` that can share passes; the sweep then finds most of them finished.

    Raises:
        EnvironmentFault, Interrupted: as :meth:`medaug.sweep.runner.Sweep.run`.
    """
    firsts = folded(trials, experiment)
    sweep.run(firsts, work=run_replicates)
    keys = {first.key for first in firsts}
    for trial in trials:
        TrialFolder(experiment, trial.key).refresh()
        if trial.key in keys:  # what it was run with is no part of what it is
            TrialFolder(experiment, trial.key).claim(trial)


def folded(trials: Iterable[TrialConfig], experiment: Path) -> list[GenerateTrial]:
    """One trial for each group of unfinished ones that can share passes; it trains them all.

    Claims the folders of the others. Trials without such peers are left out.
    """
    from medaug.experiment import generator_name
    from medaug.storage.artifacts import Artifacts

    groups: dict[str, list[GenerateTrial]] = defaultdict(list)
    artifacts = Artifacts(experiment.parent)
    for trial in trials:
        if trains_a_gan(trial) and TrialFolder(experiment, trial.key).result() is None:
            if artifacts.has_model(generator_name(trial)):  # it only makes more rows
                continue
            apart = {"fold", "seed", "features", "slices", "unet", *GenerateTrial.FOR_PEOPLE}
            groups[signature(trial.model_dump(mode="json", exclude=apart))].append(trial)
    firsts = []
    for group in groups.values():
        for i in range(0, len(group), AT_ONCE):
            first, *others = group[i : i + AT_ONCE]
            if not others:
                continue
            for other in others:
                TrialFolder(experiment, other.key).claim(other)
            shared = [experiment.name, *(other.key for other in others)]
            firsts.append(first.model_copy(update={"together_with": tuple(shared)}))
    return firsts


def trains_a_gan(trial: TrialConfig) -> TypeGuard[GenerateTrial]:
    """Whether ``trial`` has passes to share."""
    from medaug.arms import ARMS
    from medaug.arms.adversarial import GanArm

    return isinstance(trial, GenerateTrial) and issubclass(ARMS[trial.maker.kind], GanArm)


def run_replicates(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None
) -> Iterator[Progress]:
    """The work of a trial that :func:`folded` has made: its own epochs, the others on the side.

    Raises:
        UserError: as :func:`medaug.experiment.run_together`.
    """
    from medaug import experiment
    from medaug.train.checkpoint import Ledger

    assert isinstance(config, GenerateTrial)
    name, *keys = config.together_with
    folders = [TrialFolder(storage / name, key) for key in keys]
    for folder in folders:
        folder.refresh()
    folders = [folder for folder in folders if folder.result() is None]
    own = TrialFolder(storage / name, config.key)
    lease, _ = newest_turn(own)
    recorders = [
        Recorder(folder, math.inf, Fence(folder, next_turn(folder, lease))) for folder in folders
    ]
    resumes = [Ledger(folder.path).latest(folder.key) for folder in folders]
    configs = [config, *(folder.config() for folder in folders)]
    first, *others = experiment.run_together(configs, world, storage, [resume, *resumes])
    going = [_Other(*each) for each in zip(recorders, others, strict=True)]
    ledger = Ledger(own.path)
    try:
        for progress in first:
            going = [other for other in going if other.advance()]
            while progress.result is not None and going:  # once it is told, the trial is over
                going = [other for other in going if other.advance()]
            yield progress
            if ledger.epoch() == progress.epoch:  # at the same epoch, to go on together from there
                _save(recorders)
    finally:
        _save(recorders)


def _save(recorders: Iterable[Recorder]) -> None:
    for recorder in recorders:
        recorder.save()


@dataclass(frozen=True)
class _Other:
    """A replicate besides the first, written down as a rank would."""

    recorder: Recorder
    epochs: Iterator[Progress]

    def advance(self) -> bool:
        """One epoch; whether there is another."""
        started = time.perf_counter()
        progress = next(self.epochs)
        self.recorder.record(progress, time.perf_counter() - started)
        return progress.result is None
