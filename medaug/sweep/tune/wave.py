"""One Tune run over a wave's trials, and what becomes of each."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.search import Searcher

from medaug.errors import EnvironmentFault, lines_of
from medaug.spec import StopSpec, TrialConfig
from medaug.storage.temporary import temporary_folder
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.events import Listeners, Outcome
from medaug.sweep.trial.bundle import Bundle
from medaug.sweep.trial.failures import ran_low_on_memory
from medaug.sweep.trial.group import RankGroup, StartRanks
from medaug.sweep.trial.trainable import Trial, Wave, as_param, key_of, room_for
from medaug.sweep.tune.record import MOVES, Record
from medaug.sweep.tune.stopping import Stopping, peers_of

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
    """A fresh Tuner in a background thread, so that this process stays able to act on signals.

    ``stop`` ends it: no further trial starts, running ones finish their epoch if they do so within
    15 seconds (how long Tune waits for them; Slurm and Kubernetes kill after 30).
    """

    def __init__(
        self,
        wave: Wave,
        units: Mapping[str, TrialConfig | Bundle],
        stopping: StopSpec | None,
        ended: Mapping[str, Outcome],
        listeners: Listeners,
        stop: Flag,
        start_ranks: StartRanks | None = None,
    ) -> None:
        self._wave = wave
        self._start_ranks = start_ranks or RankGroup
        self._units = units
        self._stop = stop
        self._record = Record(wave, units, listeners)
        self._stopping = _stopping(wave, units, stopping, ended) if stopping else None
        self._metric = stopping.metric if stopping else None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, name="tune", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether the run is over, after waiting for at most so long."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def outcomes(self) -> dict[str, Outcome]:
        """One for each trial. Raises EnvironmentFault when Tune itself failed."""
        if self._error is not None:
            raise EnvironmentFault(_why(self._error)) from self._error
        if (failure := self._record.unloadable) is not None:
            raise EnvironmentFault(str(failure))
        if self._stopping and not self._stopping.seen and not self._stop.is_set():
            log.warning("sweep: no trial reported %s, so none was stopped early", self._metric)
        return self._record.settle()

    def _fit(self) -> None:
        try:
            with temporary_folder("medaug-tune-") as private:  # Tune insists on writing
                self._tuner(private).fit()
        except BaseException as error:
            self._error = error

    def _tuner(self, private: Path) -> tune.Tuner:
        resources = self._wave.resources
        kind: Any = tune.with_resources(
            tune.with_parameters(Trial, wave=self._wave, start_ranks=self._start_ranks),
            lambda config: room_for(config["trial"], resources),
        )
        kind.__qualname__ = Trial.__qualname__  # which its processes are shown as
        return tune.Tuner(
            kind,
            tune_config=tune.TuneConfig(
                search_alg=Feed(self._units.values()),
                num_samples=len(self._units),
                max_concurrent_trials=resources.max_concurrent,
                scheduler=self._stopping,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: key_of(trial.config),
            ),
            run_config=tune.RunConfig(
                name="wave",
                storage_path=str(private),
                stop=StopAll(AnyOf(self._stop, Unloadable(self._record))),
                callbacks=[self._record],
                failure_config=tune.FailureConfig(max_failures=MOVES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )


class Feed(Searcher):
    """Hands out ``units`` one by one, when Tune has room for another."""

    def __init__(self, units: Iterable[TrialConfig | Bundle]) -> None:
        super().__init__()
        self._units = iter(units)

    def suggest(self, trial_id: str) -> Any:
        """What Tune has to know of the next trial, or that there is none."""
        unit = next(self._units, None)
        return {"trial": as_param(unit)} if unit is not None else self.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing to learn from it."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles it for a restoration that never comes."""
        return {}


class StopAll(tune.Stopper):
    """Ends the whole run when asked to."""

    def __init__(self, stop: Flag) -> None:
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stop.is_set()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles it for a restoration that never comes."""
        return {}


def _why(error: BaseException) -> str:
    """Why Tune itself failed, in a line."""
    if (failure := ran_low_on_memory(str(error))) is not None:
        return f"{failure}; `medaug resume` goes on"
    return f"Ray Tune gave up: {lines_of(error)[-1][:300]}; `medaug resume` goes on"


def _stopping(
    wave: Wave,
    units: Mapping[str, TrialConfig | Bundle],
    spec: StopSpec,
    ended: Mapping[str, Outcome],
) -> Stopping:
    folders = {key: TrialFolder(wave.experiment, key) for key in [*units, *ended]}
    earlier = {key: rows for key, folder in folders.items() if (rows := folder.epochs())}
    configs = {key: folders[key].config() for key in earlier if key not in units}
    configs |= {key: unit for key, unit in units.items() if isinstance(unit, TrialConfig)}
    return Stopping(spec, earlier, {key: peers_of(config) for key, config in configs.items()})
