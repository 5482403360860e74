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

from medaug.errors import EnvironmentFault
from medaug.spec import AshaSpec, TrialConfig
from medaug.sweep.events import Listeners, Outcome, Status
from medaug.sweep.failures import Failure
from medaug.sweep.halving import Halving
from medaug.sweep.trial import Trial, Wave, as_param, bundles, key_of
from medaug.trial_folder import TrialFolder

log = logging.getLogger(__name__)

MOVES = 20
"""How often a trial may lose its place. ``max_failures`` counts tries of one epoch; that a node was
taken away says nothing about the trial."""


class TuneRun:
    """A fresh Tuner in a background thread, so that this process stays able to act on signals.

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
            self._tuner(private).fit()
        except BaseException as error:
            self._error = error
        finally:
            shutil.rmtree(private, ignore_errors=True)

    def _tuner(self, private: Path) -> tune.Tuner:
        resources = self._wave.resources
        trial = tune.with_resources(
            tune.with_parameters(Trial, wave=self._wave),
            lambda config: bundles(config["trial"], resources),
        )
        params = [as_param(config) for config in self._trials.values()]
        return tune.Tuner(
            trial,
            param_space={"trial": tune.grid_search(params)},
            tune_config=tune.TuneConfig(
                scheduler=self._halving,
                max_concurrent_trials=resources.max_concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="wave",
                storage_path=str(private),
                stop=StopAll(self._stop),
                callbacks=[self._record],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=MOVES),
                verbose=0,
            ),
        )


class StopAll(tune.Stopper):
    """Ends the whole run when asked to."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stop.is_set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its settings into a file that nobody reads


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

    def __getstate__(self) -> dict[str, Any]:
        return {}

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
                self._tell_missed(key)
            if epoch == self._told[key] + 1:
                self._tell(key, epoch, result["metrics"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = key_of(trial.config)
        last = trial.last_result
        folder = TrialFolder(self._experiment, key)
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
        if key in self._told:
            self._tell_missed(key)
        self._devices.pop(key, None)
        folder = TrialFolder(self._experiment, key)
        result = folder.result()
        stopped = folder.stopped()
        status: Status
        if result is not None:
            status = "diverged" if result.get("status") == "diverged" else "done"
        else:
            status = "failed" if error else "stopped" if stopped else "interrupted"
        seconds = time.monotonic() - self._begun.get(key, time.monotonic())
        outcome = Outcome(key, status, folder.epoch(), result, error, seconds)
        self._outcomes[key] = outcome
        self._listeners.tell("on_trial_end", outcome)


def lost(text: str) -> Failure:
    """What Tune's error file says of a trial whose own actor could not go on, once too often."""
    found = re.search(
        r"(?:GroupFailed: lost node: |The actor is dead because its )([^\n;.]*)", text
    )
    if found:
        return Failure("lost node", f"lost too often: {found[1]}", text)
    return Failure("error", text.strip().splitlines()[-1], text)


def _halving(
    wave: Wave, trials: Mapping[str, TrialConfig], asha: AshaSpec, ended: Mapping[str, Outcome]
) -> Halving:
    earlier = {key: TrialFolder(wave.experiment, key).epochs() for key in [*trials, *ended]}
    halving = Halving(asha, earlier)
    halving.replay_ended(ended)
    return halving
