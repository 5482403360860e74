"""Strikes at a running sweep at seeded moments, and what each of them cost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
from toy_trials import begun

from medaug.spec import TrialConfig
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep import Outcome
from tests.chaos.board import Fault

RECOVERED_S = 30.0
"""What is promised from a crash to the next new epoch."""


class Striker:
    """A listener of a sweep that strikes ``times`` times, each a random moment after a trial's
    epoch, and not again before every trial has recovered.

    ``strike`` breaks something and returns whether there was something to break.
    """

    def __init__(
        self, strike: Callable[[], bool], times: int, *, epoch_s: float, seed: int, every: int = 2
    ) -> None:
        self._strike = strike
        self._times = times
        self._dice = random.Random(seed)
        self._epoch_s = epoch_s
        self._every = every
        self._since: dict[str, int] = {}
        self._waiting: threading.Timer | None = None
        self.when: list[float] = []
        """Times of the strikes."""

    def on_wave_start(self, stage: str, n: int, reused: int) -> None: ...
    def on_trial_start(self, config: TrialConfig) -> None: ...
    def on_place(self, config: TrialConfig, device: str) -> None: ...
    def on_wave_end(self) -> None: ...

    def on_trial_end(self, outcome: Outcome) -> None:
        self._since.pop(outcome.key, None)

    def on_epoch(self, config: TrialConfig, epoch: int, metrics: Mapping[str, float]) -> None:
        if config.title.startswith("quick"):
            return
        self._since[config.key] = self._since.get(config.key, 0) + 1
        ready = min(self._since.values()) >= self._every
        if ready and self._waiting is None and len(self.when) < self._times:
            self._waiting = threading.Timer(self._dice.uniform(0, self._epoch_s), self._now)
            self._waiting.start()

    def _now(self) -> None:
        when = time.time()
        if self._strike():
            self.when.append(when)
        self._since = dict.fromkeys(self._since, 0)
        self._waiting = None


def account(
    fault: Fault,
    strikes: Sequence[float],
    storage: Path,
    trials: Sequence[TrialConfig],
    *,
    within_s: float = RECOVERED_S,
) -> None:
    """Enter the strikes into the table: no trial lost an epoch but the one that was running, and
    every trial that ran went on within ``within_s``."""
    for when, until in zip(strikes, [*strikes[1:], float("inf")], strict=True):
        lost, seconds = 0, 0.0
        for trial in trials:
            starts = begun(storage, trial)
            before = {start.epoch for start in starts if start.time <= when}
            after = [start for start in starts if when < start.time <= until]
            lost = max(lost, len(before & {start.epoch for start in after}))
            if after:
                seconds = max(seconds, _finished(storage, trial, after[0].time) - when)
        assert lost <= 1, f"{lost} epochs of a trial were lost by one fault"
        fault.judge(seconds, within_s)
        fault.survive(lost=[lost], seconds=seconds)


def _finished(storage: Path, trial: TrialConfig, begun_at: float) -> float:
    """When the first epoch was safe that began then, or later."""
    rows = TrialFolder(storage / "experiment", trial.key).epochs()
    return min(row["time"] for row in rows if row["time"] > begun_at)


def kill_rank(storage: Path, trial: TrialConfig, rank: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal to a rank of a toy trial."""
    starts = begun(storage, trial, rank)
    if not starts:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(starts[-1].pid, number)
        return True
    return False


def processes_named(start: str) -> list[psutil.Process]:
    """Descendants of this process whose title begins so."""
    children = sorted(psutil.Process().children(recursive=True), key=lambda child: child.pid)
    return [child for child in children if _title(child).startswith(start)]


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return (process.cmdline() or [""])[0]
    return ""
