"""A sweep without a cluster: its trials run in this process, as a rank runs them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from medaug.errors import UserError
from medaug.experiment import run_trial
from medaug.spec import TrialConfig
from medaug.sweep.events import Outcome
from medaug.sweep.trial.failures import triage
from medaug.train.checkpoint import Progress
from medaug.train.world import World


class InProcess:
    """What runs waves of trials on ``storage``; ``trials`` has all that it was given."""

    def __init__(self, storage: Path, on_progress: Callable[[Progress], None] | None = None):
        self.storage, self.on_progress = storage, on_progress
        self.trials: list[TrialConfig] = []

    def run(self, trials: Sequence[TrialConfig], *, again: Collection[str] = ()) -> list[Outcome]:
        return [self._run(trial) for trial in trials]

    def _run(self, trial: TrialConfig) -> Outcome:
        self.trials.append(trial)
        try:
            for progress in run_trial(trial, World.single(), self.storage):
                if self.on_progress is not None:
                    self.on_progress(progress)
        except UserError as error:
            return Outcome(trial.key, "failed", 0, error=str(triage(error)))
        return Outcome(trial.key, "done", progress.epoch, progress.result)
