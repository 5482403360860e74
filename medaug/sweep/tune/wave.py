"""One Tune run over a wave's trials, and what becomes of each."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import tune
from ray.train._internal.storage import StorageContext

from medaug.errors import EnvironmentFault
from medaug.spec import AshaSpec, TrialConfig
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.events import Listeners, Outcome, Status
from medaug.sweep.trial.failures import Failure
from medaug.sweep.trial.trainable import Trial, Wave, as_param, bundles, key_of
from medaug.sweep.tune.controller import Controller, Feed, OfKind
from medaug.sweep.tune.halving import Halving

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
        trials: Mapping[str, TrialConfig],
        asha: AshaSpec | None,
        ended: Mapping[str, Outcome],
        listeners: Listeners,
        stop: threading.Event,
    ) -> None:
        self._wave = wave
        self._trials = trials
        self._stop = stop
        self._record = Record(wave, trials, listeners)
        self._halving = _halving(wave, trials, asha, ended) if asha else None
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

        def tune_trial(config: TrialConfig) -> OfKind:
            param = as_param(config)
            return OfKind(
                kind,
                config={"trial": param},
                trial_id=config.key,
                storage=storage,
                placement_group_factory=bundles(param, resources),
                max_failures=MOVES,
            )

        return Controller(
            search_alg=Feed(map(tune_trial, self._trials.values()), resources.max_concurrent),
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


class Record(tune.Callback):
    """Follows the trials: tells the listeners, and keeps an outcome for each trial that ends.

    Each epoch of this run is told once. One that a crash swallowed between its checkpoint and its
    report is told late, from ``epochs.jsonl``.
    """

    def __init__(self, wave: Wave, trials: Mapping[str, TrialConfig], listeners: Listeners) -> None:
        self._experiment = wave.experiment
        self._trials = trials
        self._listeners = listeners
        self._outcomes: dict[str, Outcome] = {}
        self._begun: dict[str, float] = {}
        self._told: dict[str, int] = {}
        self._devices: dict[str, str] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = key_of(trial.config)
        self._begun.setdefault(key, time.monotonic())
        self._listeners.tell("on_trial_start", self._trials[key])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        key = key_of(trial.config)
        if remark := result.get("remark"):
            log.warning("trial %s: %s", key, remark)
        if (device := result.get("device")) and device != self._devices.get(key):
            self._devices[key] = device
            self._listeners.tell("on_place", self._trials[key], device)
        if result.get("metrics"):
            epoch = result["epoch"]
            if epoch > self._told.setdefault(key, epoch - 1) + 1:
                TrialFolder(self._experiment, key).refresh()
                self._tell_missed(key)
            if epoch == self._told[key] + 1:
                self._tell(key, epoch, result["metrics"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = key_of(trial.config)
        last = trial.last_result
        folder = TrialFolder(self._experiment, key)
        folder.refresh()
        if (error := last.get("failure")) is None and folder.result() is None:
            with suppress(OSError):  # it will run on after a resume
                folder.stop(last["epoch"], last["metrics"])
        self._end(key, error)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = key_of(trial.config)
        failure = lost(Path(trial.error_file).read_text())
        with suppress(OSError):
            TrialFolder(self._experiment, key).fail(failure.as_dict())
        self._end(key, str(failure))

    def settle(self) -> dict[str, Outcome]:
        """The outcomes, those of trials that Tune let go without a word included."""
        for key in self._trials:
            if key not in self._outcomes:
                self._end(key, None)
        return self._outcomes

    def _tell(self, key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        self._told[key] = epoch
        self._listeners.tell("on_epoch", self._trials[key], epoch, metrics)

    def _tell_missed(self, key: str) -> None:
        rows = {row["epoch"]: row for row in TrialFolder(self._experiment, key).epochs()}
        for epoch in sorted(rows):
            if epoch > self._told[key]:
                self._tell(key, epoch, rows[epoch]["metrics"])

    def _end(self, key: str, error: str | None) -> None:
        folder = TrialFolder(self._experiment, key)
        folder.refresh()
        if key in self._told:
            self._tell_missed(key)
        self._devices.pop(key, None)
        result = folder.result()
        stopped = folder.stopped()
        status: Status
        if result is not None:
            status = result.status
        else:
            status = "failed" if error else "stopped" if stopped else "interrupted"
        self._told.pop(key, None)
        now = time.monotonic()
        seconds = now - self._begun.pop(key, now)
        outcome = Outcome(key, status, folder.epoch(), result, error, seconds)
        self._outcomes[key] = outcome
        self._listeners.tell("on_trial_end", outcome)


def lost(text: str) -> Failure:
    """What Tune's error file says of a trial whose own actor could not go on, once too often."""
    found = re.search(
        r"(?:GroupFailed: lost node: |The actor is dead because its )([^\n;.]*)", text
    )
    if found:
        return Failure("lost node", f"node lost too often: {found[1]}", text)
    return Failure("error", text.strip().splitlines()[-1], text)


def _halving(
    wave: Wave, trials: Mapping[str, TrialConfig], asha: AshaSpec, ended: Mapping[str, Outcome]
) -> Halving:
    earlier = {key: TrialFolder(wave.experiment, key).epochs() for key in [*trials, *ended]}
    halving = Halving(asha, earlier)
    halving.replay_ended(ended)
    return halving
