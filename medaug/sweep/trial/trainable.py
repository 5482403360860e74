"""One trial on Ray Tune: it owns a placement group, and its group of ranks inside that.

Tune decides when a trial gets resources and when it must stop. Everything else is ours: which
epoch a trial goes on from (its ledger), what is tried again, and what counts as done (its folder).
"""

from __future__ import annotations

import contextlib
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune

from medaug.spec import ResourceSpec, TrialConfig
from medaug.storage.bundle_folder import BundleFolder
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial.bundle import Bundle
from medaug.sweep.trial.failures import Failure, GroupFailed, triage
from medaug.sweep.trial.fence import next_turn
from medaug.sweep.trial.group import RankGroup, Ranks, StartRanks
from medaug.sweep.trial.stopwatch import Stopwatch


@dataclass(frozen=True)
class Setting:
    """What all trials of a sweep share."""

    experiment: Path
    storage: Path
    resources: ResourceSpec
    lease: int = 0
    """Number of the driver's lease: the later one wins a trial that two would write."""


@dataclass(frozen=True)
class Wave:
    """What all trials of a wave share."""

    work: str
    """``module:function``, so that only the ranks load it, and torch with it."""
    bundle_work: str = ""
    """The same for bundles."""
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    """Tells the time of this run of a trial from that of another."""


def room_for(trial: dict[str, Any], resources: ResourceSpec) -> tune.PlacementGroupFactory:
    """A share of the cluster for each rank. The trial's own actor only waits, so it takes nothing,
    and as many one-CPU trials run at once as there are CPUs."""
    rank = {"CPU": resources.cpus_per_rank}
    if resources.gpus:
        rank["GPU"] = resources.gpus
    return tune.PlacementGroupFactory([{}] + [rank] * trial["ranks"], strategy=resources.strategy)


class Trial(tune.Trainable):
    """Drives one trial after another, epoch by epoch, on ranks that it keeps between them.

    ``config`` holds only ``{"trial": as_param(…)}``; the rest is read from the trial's folder.
    A failure is a result with ``failure`` in it: Tune would try every exception again.
    """

    def setup(
        self,
        config: dict[str, Any],
        setting: Setting | None = None,
        start_ranks: StartRanks = RankGroup,
    ) -> None:
        assert setting is not None
        self._setting = setting
        self._start_ranks = start_ranks
        self._group: Ranks | None = None
        self._adopt(config["trial"])

    def get_auto_filled_metrics(self, *args: Any, **keys: Any) -> dict[str, Any]:
        """None of Tune's own: it keeps six statistics of each number of each trial, which nobody
        reads and which were a quarter of what a trial takes of the driver's memory."""
        return {}

    def reset_config(self, config: dict[str, Any]) -> bool:
        self._adopt(config["trial"])
        return True

    def _adopt(self, trial: dict[str, Any]) -> None:
        self._ranks = int(trial["ranks"])
        self._work = trial["work"]
        folder = BundleFolder if trial["bundle"] else TrialFolder
        self._folder = folder(self._setting.experiment, trial["key"])
        self._folder.refresh()
        self._epoch = self._furthest = 0
        self._running = False
        self._tries_left = self._setting.resources.max_failures
        self._turn = next_turn(self._folder, self._setting.lease)
        self._watch = Stopwatch(self._folder, trial["wave"])
        self._starting = "restart" if self._watch.restarts else "startup"

    def step(self) -> dict[str, Any]:
        """One epoch, however many tries it takes."""
        while True:
            try:
                return self._advance()
            except GroupFailed as caught:
                failure = caught.failure
            except Exception as error:  # ours: Tune would try it again, and again
                failure = triage(error)
            if failure.kind == "superseded":  # its folder is another's
                self._leave(failure)
                return {"epoch": self._epoch, "failure": str(failure), tune.result.DONE: True}
            self._account(failure)
            self._leave(failure)
            self._note(failure)
            if failure.kind == "lost node":
                raise GroupFailed(failure)  # Tune finds the whole trial another place
            if not failure.another_try or self._tries_left == 0:
                return self._give_up(failure)
            self._tries_left -= 1

    def cleanup(self) -> None:
        if self._group is not None:
            self._group.close()

    def _advance(self) -> dict[str, Any]:
        if not self._running:
            if self._folder.result() is not None:  # finished just before its node was lost
                return {"epoch": self._folder.epoch(), tune.result.DONE: True}
            self._group = self._group or self._start_ranks(self._ranks, self._setting.resources)
            self._watch.lap(self._starting)
            self._epoch = self._group.begin(
                self._folder, self._setting.storage, self._work, self._turn
            )
            self._watch.lap("ckpt_load")
            self._running = True
        assert self._group is not None
        self._watch.lap("idle")  # until Tune asked for the next epoch
        self._heed_notice(self._group)
        epoch = self._group.advance()
        self._watch.lap("idle", epoch=epoch.epoch, **epoch.seconds)
        if epoch.epoch > self._furthest:  # an epoch done again is no progress: it may fail again
            self._furthest = epoch.epoch
            self._tries_left = self._setting.resources.max_failures
        self._epoch = epoch.epoch
        if epoch.finished:
            self._group.end()
            self._watch.lap("idle")
        return {
            "epoch": epoch.epoch,
            "metrics": tuple(epoch.metrics.items()),  # of a dictionary's it would keep them, too
            "device": self._group.device,
            "remark": epoch.remark,
            tune.result.DONE: epoch.finished,
        }

    def _heed_notice(self, group: Ranks) -> None:
        """Leave nodes that will be taken away while there is time to save the last epoch."""
        if going := group.leaving():
            group.end()
            self._running = False
            raise GroupFailed(Failure("lost node", f"{', '.join(going)} is being drained"))

    def _account(self, failure: Failure) -> None:
        """Where the time since the last epoch went: what was computed has to be computed again."""
        if self._running:
            silent_s = self._setting.resources.hang_timeout_s if failure.kind == "hang" else 0.0
            self._watch.lap("redone", detect=silent_s)
        else:
            self._watch.lap(self._starting)
        self._starting = "restart"

    def _note(self, failure: Failure) -> None:
        row = {"time": round(time.time(), 3), "epoch": self._epoch, **failure.as_dict()}
        with contextlib.suppress(OSError):  # the failure may be just this: a full disk
            self._folder.log_failure(row)

    def _give_up(self, failure: Failure) -> dict[str, Any]:
        with contextlib.suppress(OSError):
            self._folder.fail(failure.as_dict())
        return {"epoch": self._epoch, "failure": str(failure), tune.result.DONE: True}

    def _leave(self, failure: Failure) -> None:
        """Give up the ranks, unless there is one only and it just said that its trial is wrong."""
        self._running = False
        healthy = self._ranks == 1 and not failure.another_try and not failure.of_the_gpu
        if self._group is not None and not healthy:
            self._group.kill()
            self._group = None


def key_of(config: dict[str, Any]) -> str:
    """Key of the trial that a Tune trial's ``config`` is about."""
    return config["trial"]["key"]


def as_param(unit: TrialConfig | Bundle, wave: Wave) -> dict[str, Any]:
    """What Tune has to know of a trial: the less, the less it copies around."""
    bundle = isinstance(unit, Bundle)
    return {
        "key": unit.key,
        "ranks": unit.ranks,
        "bundle": bundle,
        "work": wave.bundle_work if bundle else wave.work,
        "wave": wave.name,
    }
