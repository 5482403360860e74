"""How many device-hours a run has held so far, and when that is all that it may hold."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medaug.spec import TrialConfig
from medaug.storage.files import write_whole
from medaug.storage.json_files import read_json, write_json
from medaug.sweep.events import Outcome

if TYPE_CHECKING:
    from medaug.sweep.trial.bundle import Bundle

SPENT = "spent.json"
"""In a run's folder: ``device_seconds`` of all drivers that it has had."""
MARK = "budget-spent"
"""There while a run has stopped for its budget: the recipes of clusters then do not try again."""
SAVE_S = 15.0


class Budget:
    """A listener of the sweep that counts what its trials hold: for each rank its device, from the
    trial's start to its end, its restarts included; GPUs where ranks have any, else CPU ranks.

    What drivers before this one have counted is part of it; one that is killed loses what it has
    not saved, :data:`SAVE_S` seconds at most. ``hours`` None: it counts all the same, since a later
    driver may be given a budget. Threads may share it.
    """

    def __init__(
        self, experiment: Path, hours: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._mark = experiment / SPENT, experiment / MARK
        self._hours = hours
        self._clock = clock
        self._share = 1.0
        self._held: dict[str, int] = {}
        self._spent_s = 0.0
        self._at = self._saved_at = clock()
        self._lock = threading.Lock()

    def open(self) -> None:
        """Go on from what was counted before."""
        if (before := read_json(self._path)) is not None:
            self._spent_s = float(before["device_seconds"])
        if not self.is_spent:
            self._mark.unlink(missing_ok=True)

    def use(self, gpus_per_rank: float) -> None:
        """Ranks hold so much of a GPU from now on; 0: a CPU rank counts as one device."""
        with self._lock:
            self._count()
            self._share = gpus_per_rank or 1.0

    @property
    def spent_hours(self) -> float:
        with self._lock:
            self._count()
            return self._spent_s / 3600

    @property
    def is_spent(self) -> bool:
        return self._hours is not None and self.spent_hours >= self._hours

    @property
    def text(self) -> str:
        """``0.52 of 2 device-hours are spent``; nothing without a budget."""
        if self._hours is None:
            return ""
        return f"{self.spent_hours:.2f} of {self._hours:g} device-hours are spent"

    def is_set(self) -> bool:
        """Whether trials are to stop for it: as an event of :mod:`threading` says it."""
        return self.is_spent

    def save_when_due(self) -> None:
        if self._clock() - self._saved_at > SAVE_S:
            self.save()

    def save(self) -> None:
        """Write down what was counted."""
        seconds = 3600 * self.spent_hours
        self._saved_at = self._clock()
        write_json(self._path, {"device_seconds": round(seconds, 3)}, durable=False)

    def mark(self) -> None:
        """Leave a sign for whoever would try again."""
        write_whole(self._mark, f"{self.text}\n".encode())

    def on_wave_start(self, stage: str, n: int, reused: int) -> None:
        """Nothing is held yet."""

    def on_place(self, unit: TrialConfig | Bundle, device: str) -> None:
        """Every device counts alike."""

    def on_epoch(self, config: TrialConfig, epoch: int, metrics: Mapping[str, float]) -> None:
        """What is held, is held between epochs too."""

    def on_trial_start(self, config: TrialConfig) -> None:
        self._hold(config.key, config.ranks)

    def on_trial_end(self, outcome: Outcome) -> None:
        self._free(outcome.key)

    def on_bundle_start(self, bundle: Bundle) -> None:
        self._hold(bundle.key, bundle.ranks)

    def on_bundle_end(self, bundle: Bundle) -> None:
        self._free(bundle.key)

    def on_wave_end(self) -> None:
        with self._lock:
            self._count()
            self._held.clear()

    def _hold(self, key: str, ranks: int) -> None:
        with self._lock:
            self._count()
            self._held[key] = ranks

    def _free(self, key: str) -> None:
        with self._lock:
            self._count()
            self._held.pop(key, None)

    def _count(self) -> None:
        now = self._clock()
        self._spent_s += (now - self._at) * self._share * sum(self._held.values())
        self._at = now
