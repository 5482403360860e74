"""Ray Tune's controller without a past: what a sweep costs depends on its slots, not its trials.

``Tuner.fit`` makes all trials beforehand, each from a copy of the whole search space, keeps them
with their results until the last has ended, and writes their states down. Nobody reads any of it
here: what became of a trial is in its folder and its outcome. So trials are made when there is
room for them, and forgotten when they are over. TuneController is open to developers only, and
the names that begin with an underscore are not: they are those of the pinned version of Ray.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ray.tune import Trainable
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import SearchAlgorithm

QUEUE = 200
"""Trials that wait for a place at once: as many as Tune asks a cluster for by itself, which tells
an autoscaler how much is wanted."""


class OfKind(TuneTrial):
    """A trial of the class ``kind``; Tune would fetch that from the cluster three times a trial."""

    def __init__(self, kind: type[Trainable], **how: Any) -> None:
        self._kind = kind
        super().__init__(kind.__name__, stub=True, **how)  # stub: do not look the class up

    def get_trainable_cls(self) -> type[Trainable]:
        return self._kind


class Feed(SearchAlgorithm):
    """Hands out ``trials`` one by one; of those, no more than ``at_once`` are under way."""

    def __init__(self, trials: Iterable[TuneTrial], at_once: int | None) -> None:
        self._trials = iter(trials)
        self._at_once = at_once
        self._under_way: set[str] = set()

    def next_trial(self) -> TuneTrial | None:
        """The next trial, or None: none is left, or there is no room for it yet."""
        if self._finished or len(self._under_way) == self._at_once:
            return None
        trial = next(self._trials, None)
        if trial is None:
            self.set_finished()
        else:
            self._under_way.add(trial.trial_id)
        return trial

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._under_way.discard(trial_id)


class Controller(TuneController):
    """Runs the trials of a :class:`Feed` on actors that they take over from each other."""

    def run(self) -> None:
        """Until all trials have ended, or the stopper says so. Raises what Tune does."""
        self.update_max_pending_trials(QUEUE)
        try:
            while not self.is_finished():
                self.step()
        finally:
            self.cleanup()

    def on_step_end(self) -> None:
        super().on_step_end()
        for trial in self._stopped_trials | self._failed_trials:
            self._forget(trial)

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Nothing: a sweep goes on from its trials' ledgers."""

    def _mark_trial_to_checkpoint(self, trial: TuneTrial) -> None:
        pass

    def _forget(self, trial: TuneTrial) -> None:
        self._trials.remove(trial)
        for trials in (
            self._live_trials, self._stopped_trials, self._failed_trials, self._resetting_trials
        ):  # fmt: skip
            trials.discard(trial)
        for decisions in (self._cached_trial_decisions, self._queued_trial_decisions):
            decisions.pop(trial.trial_id, None)
