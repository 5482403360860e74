"""Asynchronous successive halving (Li et al. 2020, MLSys) that survives a resume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler

from medaug.spec import AshaSpec
from medaug.sweep.trial.trainable import key_of

NO_LIMIT = 10**9
"""Rungs go on for as long as the trials do: how long that is, they know themselves."""

Row = Mapping[str, Any]


class Halving(AsyncHyperBandScheduler):
    """Ray's scheduler, told first what its trials reported before this run.

    ``earlier`` maps a trial's key to its rows of ``epochs.jsonl``. Without them a resumed sweep
    would compare only what comes after the interruption, and stop other trials.
    """

    def __init__(self, asha: AshaSpec, earlier: Mapping[str, Sequence[Row]]) -> None:
        super().__init__(
            time_attr="epoch",
            metric=f"metrics/{asha.metric}",
            mode=asha.mode,
            max_t=NO_LIMIT,
            grace_period=asha.grace_period,
            reduction_factor=asha.reduction_factor,
        )
        self._earlier = dict(earlier)
        self._wanted = asha.metric
        self.seen = False
        """Whether any trial has reported the metric."""

    def replay_ended(self, keys: Iterable[str]) -> None:
        """Enter trials that ended before this run into the rungs."""
        for key in keys:
            ended = SimpleNamespace(trial_id=f"ended-{key}", config={"trial": {"key": key}})
            self.on_trial_add(None, ended)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        for row in self._earlier.get(key_of(trial.config), ()):
            metrics = {f"metrics/{name}": value for name, value in row["metrics"].items()}
            self.on_trial_result(tune_controller, trial, {"epoch": row["epoch"], **metrics})

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self.seen |= f"metrics/{self._wanted}" in result
        return super().on_trial_result(tune_controller, trial, result)
