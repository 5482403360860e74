"""What became of each trial of a wave, and who is told of it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import tune

from medaug.spec import TrialConfig
from medaug.storage.bundle_folder import BundleFolder, Member, read_part
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.events import Listeners, Outcome, Status
from medaug.sweep.trial.bundle import Bundle
from medaug.sweep.trial.failures import Failure, not_imported, ran_low_on_memory
from medaug.sweep.trial.trainable import key_of
from medaug.sweep.tune.unsaved import Unsaved

log = logging.getLogger(__name__)

MOVES = 20
"""How often a trial may lose its place. ``max_failures`` counts tries of one epoch; that a node was
taken away says nothing about the trial."""

SOON_S = 10.0
"""A place that is lost so soon after the one before was never a place."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Until a trial that has lost two places so soon is given the next; each pause is twice the one
before. Tune itself would try twenty times a second, and what ails a cluster takes longer. 20 moves
take a minute at least; other trials finish their epochs meanwhile."""

Again = Callable[[dict[str, Any]], None]


class Record(Unsaved, tune.Callback):
    """Follows the trials: tells the listeners, and keeps an outcome for each trial that ends."""

    def __init__(self, experiment: Path, listeners: Listeners, again: Again) -> None:
        """``again`` hands a trial to Tune once more."""
        self._experiment, self._listeners, self._again = experiment, listeners, again
        self._running: dict[str, _Trial | _Bundle] = {}
        self._outcomes: dict[str, Outcome] = {}
        self.unloadable: Failure | None = None
        """Why no trial can start: a node's environment lacks what they are made of."""

    def begin(self, units: Mapping[str, TrialConfig | Bundle]) -> None:
        """Expect these, of one wave; :meth:`settle` tells what became of them."""
        self._running = {
            key: _Bundle(self._experiment, unit, self._listeners)
            if isinstance(unit, Bundle)
            else _Trial(self._experiment, unit, self._listeners)
            for key, unit in units.items()
        }
        self._outcomes = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        running = self._running[key_of(trial.config)]
        running.has_place = True
        running.start()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        key = key_of(trial.config)
        if remark := result.get("remark"):
            log.warning("trial %s: %s", key, remark)
        self._running[key].report(result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = key_of(trial.config)
        self._running[key].complete(trial.last_result)
        self._end(key, trial.last_result.get("failure"))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune tries it again: in vain where its actor cannot be loaded."""
        self._running[key_of(trial.config)].move()
        self.unloadable = self.unloadable or not_imported(Path(trial.error_file).read_text())

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune gives it up, and at once where its process ended before it began there, as one may
        that was kept between two waves: then it is to have another."""
        key = key_of(trial.config)
        running = self._running[key]
        text = Path(trial.error_file).read_text()
        self.unloadable = self.unloadable or not_imported(text)
        of_the_place = self.unloadable is None and ran_low_on_memory(text) is None
        if of_the_place and not running.has_place and running.moves < MOVES:
            running.move()
            self._again(trial.config["trial"])
            return
        folder = running.folder
        folder.refresh()
        failure = lost(folder, text)
        with suppress(OSError):
            folder.fail(failure.as_dict())
        self._end(key, str(failure))

    def settle(self) -> dict[str, Outcome]:
        """The outcomes, those of trials that Tune let go without a word included."""
        for key in list(self._running):
            self._end(key, None)
        return self._outcomes

    def _end(self, key: str, error: str | None) -> None:
        self._outcomes |= self._running.pop(key).end(error)


class _Running:
    """What Tune has been given and has not ended."""

    has_place = False
    """Whether it has begun in the process that it was given last."""
    moves = 0
    """How often it has lost its place."""
    _moved = -math.inf
    _pause = 0.0

    def move(self) -> None:
        """It has lost its place; returns when it may have the next."""
        self.has_place = False
        self.moves += 1
        since = time.monotonic() - self._moved
        soon = since < SOON_S
        self._pause = min(max(2 * self._pause, FIRST_PAUSE_S), LONGEST_PAUSE_S) if soon else 0.0
        time.sleep(max(0.0, self._pause - since))  # trials that lose theirs together wait together
        self._moved = time.monotonic()


class _Trial(_Running):
    """A trial under way. Each of its epochs in this run is told once; one that a crash swallowed
    between its checkpoint and its report is told late, from ``epochs.jsonl``."""

    def __init__(self, experiment: Path, config: TrialConfig, listeners: Listeners) -> None:
        self.folder = TrialFolder(experiment, config.key)
        self._config = config
        self._tell = listeners.tell
        self._began: float | None = None
        self._told: int | None = None
        self._device = ""

    def start(self) -> None:
        self._began = self._began or time.monotonic()
        self._tell("on_trial_start", self._config)

    def report(self, result: Mapping[str, Any]) -> None:
        if (device := result.get("device")) and device != self._device:
            self._device = device
            self._tell("on_place", self._config, device)
        if not result.get("metrics"):
            return
        epoch = result["epoch"]
        self._told = epoch - 1 if self._told is None else self._told
        if epoch > self._told + 1:
            self.folder.refresh()
            self._tell_missed()
        if epoch == self._told + 1:
            self._tell_epoch(epoch, dict(result["metrics"]))

    def complete(self, last: Mapping[str, Any]) -> None:
        """Tune has no more of it; if it has no end of its own, successive halving stopped it."""
        self.folder.refresh()
        if "failure" not in last and self.folder.result() is None:
            with suppress(OSError):  # it will run on after a resume
                self.folder.stop(last["epoch"], dict(last["metrics"]))

    def end(self, error: str | None) -> dict[str, Outcome]:
        self.folder.refresh()
        if self._told is not None:
            self._tell_missed()
        result = self.folder.result()
        status: Status
        if result is not None:
            status = result.status
        elif error:
            status = "failed"
        else:
            status = "stopped" if self.folder.stopped() else "interrupted"
        seconds = time.monotonic() - self._began if self._began else 0.0
        outcome = Outcome(self._config.key, status, self.folder.epoch(), result, error, seconds)
        self._tell("on_trial_end", outcome)
        return {outcome.key: outcome}

    def _tell_missed(self) -> None:
        rows = {row["epoch"]: row for row in self.folder.epochs()}
        for epoch in sorted(rows):
            if epoch > (self._told or 0):
                self._tell_epoch(epoch, rows[epoch]["metrics"])

    def _tell_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._told = epoch
        self._tell("on_epoch", self._config, epoch, metrics)


class _Bundle(_Running):
    """A bundle under way: its trials' ends are told as its folder gets them."""

    def __init__(self, experiment: Path, bundle: Bundle, listeners: Listeners) -> None:
        self.folder = BundleFolder(experiment, bundle.key)
        self._bundle = bundle
        self._tell = listeners.tell
        self._outcomes: dict[str, Outcome] = {}
        self._read = set(self.folder.parts())
        self._device = ""

    def start(self) -> None:
        self._tell("on_bundle_start", self._bundle)

    def report(self, result: Mapping[str, Any]) -> None:
        if (device := result.get("device")) and device != self._device:
            self._device = device
            self._tell("on_place", self._bundle, device)
        self._tell_new()

    def complete(self, last: Mapping[str, Any]) -> None:
        """Nothing to add: nobody stops a bundle early."""

    def end(self, error: str | None) -> dict[str, Outcome]:
        self._tell_new()
        for trial in self._bundle.trials:
            if trial.key not in self._outcomes:
                status: Status = "failed" if error else "interrupted"
                self._end(Outcome(trial.key, status, 0, None, error, bundle=self._bundle.key))
        self._tell("on_bundle_end", self._bundle)
        return self._outcomes

    def _tell_new(self) -> None:
        self.folder.refresh()
        for part in self.folder.parts():
            if part not in self._read:
                self._read.add(part)
                for member in read_part(part):
                    self._end(outcome_of(member, self._bundle.key))

    def _end(self, outcome: Outcome) -> None:
        self._outcomes[outcome.key] = outcome
        self._tell("on_trial_end", outcome)


def outcome_of(member: Member, bundle: str) -> Outcome:
    """The outcome of a bundle's trial."""
    if member.result is None:
        assert member.failure is not None
        error = member.failure["error"]
        return Outcome(member.key, "failed", 0, None, error, member.seconds, bundle)
    result = member.result
    return Outcome(member.key, result.status, 1, result, None, member.seconds, bundle)


def lost(folder: TrialFolder, text: str) -> Failure:
    """The failure of a trial that Tune gave up, as its own actor lives no more to say it.

    What goes wrong in the actor, it tells itself; so it could not be loaded, or was ended, or its
    node was lost once too often. ``text``: what Tune says.
    """
    if (failure := not_imported(text) or ran_low_on_memory(text)) is not None:
        return failure
    rows = folder.failures()
    why = rows[-1]["what"] if rows and rows[-1]["kind"] == "lost node" else "no word was left"
    return Failure("lost node", f"node lost {MOVES} times: {why}", text)
