"""One Tune run over a wave's trials, and what becomes of each."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.train._internal.storage import StorageContext

from medaug.errors import EnvironmentFault
from medaug.spec import AshaSpec, TrialConfig
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.events import Listeners, Outcome
from medaug.sweep.trial.bundle import Bundle
from medaug.sweep.trial.trainable import Trial, Wave, as_param, room_for
from medaug.sweep.tune.controller import Controller, Feed, OfKind
from medaug.sweep.tune.halving import Halving
from medaug.sweep.tune.record import Record

log = logging.getLogger(__name__)

MOVES = 20
"""How often a trial may lose its place. ``max_failures`` counts tries of one epoch; that a node was
taken away says nothing about the trial."""


class TuneRun:
    """A fresh controller in a background thread, so that this process stays able to act on signals.

    ``stop`` ends it: no further trial starts, running ones finish their epoch if they do so within
    15 seconds (how long Tune waits for them; Slurm and Kubernetes kill after 30).
    """

    def __init__(
        self,
        wave: Wave,
        units: Mapping[str, TrialConfig | Bundle],
        asha: AshaSpec | None,
        ended: Mapping[str, Outcome],
        listeners: Listeners,
        stop: threading.Event,
    ) -> None:
        self._wave = wave
        self._units = units
        self._stop = stop
        self._record = Record(wave, units, listeners)
        self._halving = _halving(wave, units, asha, ended) if asha else None
        self._metric = asha.metric if asha else None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, name="tune", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether the run is over, after waiting for at most so long."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def outcomes(self) -> dict[str, Outcome]:
        """One for each trial. Raises EnvironmentFault when the controller itself failed."""
        if self._error is not None:
            lines = str(self._error).strip().splitlines() or [type(self._error).__name__]
            raise EnvironmentFault(
                f"Ray Tune gave up: {lines[-1]}; resume goes on"
            ) from self._error
        if self._halving and not self._halving.seen and not self._stop.is_set():
            log.warning("asha: no trial reported %s, so none was stopped early", self._metric)
        return self._record.settle()

    def _fit(self) -> None:
        private = Path(tempfile.mkdtemp(prefix="medaug-tune-"))
        try:
            self._controller(private).run()
        except BaseException as error:
            self._error = error
        finally:
            shutil.rmtree(private, ignore_errors=True)

    def _controller(self, private: Path) -> Controller:
        """``private`` is a folder for what Tune insists on writing."""
        resources = self._wave.resources
        kind = tune.with_parameters(Trial, wave=self._wave)
        kind.__qualname__ = Trial.__qualname__  # which its processes are shown as
        storage = StorageContext(private, "wave")

        def tune_trial(unit: TrialConfig | Bundle) -> OfKind:
            param = as_param(unit)
            return OfKind(
                kind,
                config={"trial": param},
                trial_id=unit.key,
                storage=storage,
                placement_group_factory=room_for(param, resources),
                max_failures=MOVES,
            )

        return Controller(
            search_alg=Feed(map(tune_trial, self._units.values()), resources.max_concurrent),
            scheduler=self._halving,
            stopper=StopAll(self._stop),
            callbacks=[self._record],
            storage=storage,
            reuse_actors=True,
        )


class StopAll(tune.Stopper):
    """Ends the whole run when asked to."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stop.is_set()


def _halving(
    wave: Wave, units: Iterable[str], asha: AshaSpec, ended: Mapping[str, Outcome]
) -> Halving:
    earlier = {key: TrialFolder(wave.experiment, key).epochs() for key in [*units, *ended]}
    halving = Halving(asha, earlier)
    halving.replay_ended(ended)
    return halving
