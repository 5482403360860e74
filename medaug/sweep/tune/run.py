"""One Tune run over a sweep's waves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from medaug.errors import EnvironmentFault, lines_of
from medaug.spec import StopSpec, TrialConfig
from medaug.storage.temporary import temporary_folder
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.events import Listeners, Outcome
from medaug.sweep.trial.bundle import Bundle
from medaug.sweep.trial.failures import ran_low_on_memory
from medaug.sweep.trial.group import RankGroup, StartRanks
from medaug.sweep.trial.trainable import Setting, Trial, Wave, as_param, room_for
from medaug.sweep.tune.record import MOVES, Record
from medaug.sweep.tune.stopping import Stopping, peers_of
from medaug.sweep.tune.unsaved import Unsaved

log = logging.getLogger(__name__)


class Flag(Protocol):
    """What may ask to stop: an event of :mod:`threading`, or a budget."""

    def is_set(self) -> bool: ...


class AnyOf:
    """Set when one of several flags is."""

    def __init__(self, *flags: Flag) -> None:
        self._flags = flags

    def is_set(self) -> bool:
        return any(flag.is_set() for flag in self._flags)


class Unloadable:
    """Set when no trial can start: every further try would end in the same way."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def is_set(self) -> bool:
        return self._record.unloadable is not None


class TuneRun:
    """A Tuner in a background thread, so that this process stays able to act on signals.

    It is given one wave after another. Tune keeps one actor for the trial that may come next, and
    the actor its ranks, so a wave's first trial need not wait for processes that import Ray and
    torch: on two cores five seconds of each wave.

    ``stop`` ends it: no further trial starts, running ones finish their epoch if they do so within
    15 seconds (how long Tune waits for them; Slurm and Kubernetes kill after 30).
    """

    def __init__(
        self,
        setting: Setting,
        listeners: Listeners,
        stop: Flag,
        start_ranks: StartRanks | None = None,
    ) -> None:
        self._setting = setting
        self._start_ranks = start_ranks or RankGroup
        self._stop = stop
        self._feed = Feed()
        self._record = Record(setting.experiment, listeners, self._feed.again)
        self._early = Early()
        self._metric: str | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, name="tune", daemon=True)
        self.given = 0
        """Trials, of all waves."""

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it can take another wave."""
        return self._thread.is_alive()

    def begin(
        self,
        wave: Wave,
        units: Mapping[str, TrialConfig | Bundle],
        stopping: StopSpec | None,
        ended: Mapping[str, Outcome],
    ) -> None:
        """Run these next; the wave before has to be over."""
        self._metric = stopping.metric if stopping else None
        experiment = self._setting.experiment
        self._early.rule = _stopping(experiment, units, stopping, ended) if stopping else None
        self._record.begin(units)
        self.given += len(units)
        self._feed.give(as_param(unit, wave) for unit in units.values())

    def wait(self, seconds: float) -> bool:
        """Whether the wave is over, after waiting for at most so long."""
        return self._feed.over.wait(seconds) or not self.alive

    def outcomes(self) -> dict[str, Outcome]:
        """One for each trial of the wave. Raises EnvironmentFault when Tune itself failed."""
        if self._error is not None:
            raise EnvironmentFault(_why(self._error)) from self._error
        if (failure := self._record.unloadable) is not None:
            raise EnvironmentFault(str(failure))
        rule = self._early.rule
        if rule and not rule.seen and not self._stop.is_set():
            log.warning("sweep: no trial reported %s, so none was stopped early", self._metric)
        return self._record.settle()

    def close(self, seconds: float) -> None:
        """Take no more, and wait for at most so long until all that it holds is given back."""
        self._feed.close()
        self._thread.join(seconds)

    def _fit(self) -> None:
        try:
            with temporary_folder("medaug-tune-") as private:  # Tune insists on writing
                self._tuner(private).fit()
        except BaseException as error:
            self._error = error

    def _tuner(self, private: Path) -> tune.Tuner:
        resources = self._setting.resources
        kind: Any = tune.with_resources(
            tune.with_parameters(Trial, setting=self._setting, start_ranks=self._start_ranks),
            lambda config: room_for(config["trial"], resources),
        )
        kind.__qualname__ = Trial.__qualname__  # which its processes are shown as
        return tune.Tuner(
            kind,
            tune_config=tune.TuneConfig(
                search_alg=self._feed,
                num_samples=-1,  # until there are no more
                max_concurrent_trials=resources.max_concurrent,
                scheduler=self._early,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(private),
                stop=StopAll(AnyOf(self._stop, Unloadable(self._record))),
                callbacks=[self._record],
                failure_config=tune.FailureConfig(max_failures=MOVES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )


class Early(Unsaved, FIFOScheduler):
    """Stops trials early by the ``rule`` of the wave under way, if it has one."""

    def __init__(self) -> None:
        super().__init__()
        self.rule: Stopping | None = None

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if self.rule is None:
            return self.CONTINUE
        return self.rule.on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if self.rule is not None:
            self.rule.on_trial_complete(tune_controller, trial, result)


class Feed(Unsaved, Searcher):
    """Hands out the trials of a wave one by one, when Tune has room for another.

    When all of them have ended it holds Tune's thread until it is given more: Tune itself would
    look once a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self.over = threading.Event()
        """Whether all that it was given has ended."""
        self._params: Iterator[dict[str, Any]] = iter(())
        self._running = 0
        self._closed = False
        self._changed = threading.Condition()

    def give(self, params: Iterable[dict[str, Any]]) -> None:
        """Hand these out next."""
        with self._changed:
            self._params = iter(params)
            self.over.clear()
            self._changed.notify()

    def again(self, param: dict[str, Any]) -> None:
        """Hand this one out once more, before the others."""
        with self._changed:
            self._params = chain([param], self._params)

    def close(self) -> None:
        """There will be no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def suggest(self, trial_id: str) -> Any:
        """What Tune has to know of the next trial; None while there is no other."""
        with self._changed:
            while (param := next(self._params, None)) is None:
                if self._closed:
                    return self.FINISHED
                if self._running:
                    return None
                self.over.set()
                self._changed.wait()
            self._running += 1
            return {"trial": param}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """One has ended, well or not."""
        with self._changed:
            self._running -= 1


class StopAll(Unsaved, tune.Stopper):
    """Ends the whole run when asked to."""

    def __init__(self, stop: Flag) -> None:
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stop.is_set()


def _why(error: BaseException) -> str:
    """Why Tune itself failed, in a line."""
    if (failure := ran_low_on_memory(str(error))) is not None:
        return f"{failure}; `medaug resume` goes on"
    return f"Ray Tune gave up: {lines_of(error)[-1][:300]}; `medaug resume` goes on"


def _stopping(
    experiment: Path,
    units: Mapping[str, TrialConfig | Bundle],
    spec: StopSpec,
    ended: Mapping[str, Outcome],
) -> Stopping:
    folders = {key: TrialFolder(experiment, key) for key in [*units, *ended]}
    earlier = {key: rows for key, folder in folders.items() if (rows := folder.epochs())}
    configs = {key: folders[key].config() for key in earlier if key not in units}
    configs |= {key: unit for key, unit in units.items() if isinstance(unit, TrialConfig)}
    return Stopping(spec, earlier, {key: peers_of(config) for key, config in configs.items()})
