"""What a sweep tells its listeners, and what it gives back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from medaug.spec import TrialConfig
from medaug.storage.results import DivergedResult, TrialResult

if TYPE_CHECKING:
    from medaug.sweep.trial.bundle import Bundle

log = logging.getLogger(__name__)

Status = Literal["done", "reused", "stopped", "diverged", "failed", "interrupted"]


@dataclass(frozen=True)
class Outcome:
    """How one trial ended."""

    key: str
    status: Status
    """``done``; ``reused``: was done before, in this run or in another on the same storage;
    ``stopped``: early, by successive halving; ``diverged``: a result, not a fault; ``failed``;
    ``interrupted``: may be resumed."""
    epoch: int
    """Finished epochs."""
    result: TrialResult | None = None
    """What the trial's last epoch carried (``result.json``); only ``done``, ``reused`` and
    ``diverged`` have one."""
    error: str | None = None
    """One line: class of failure, what happened, and the next thing to try."""
    seconds: float = 0.0
    """Wall time of the trial in this run, its restarts included."""
    bundle: str = ""
    """Key of the bundle that it ran in, if it did."""

    @property
    def why(self) -> str:
        """Why it came to nothing, in one line; empty where it did not."""
        return self.result.why if isinstance(self.result, DivergedResult) else self.error or ""

    @property
    def storage_failed(self) -> bool:
        return self.status == "failed" and (self.error or "").startswith("storage: ")


class Listener(Protocol):
    """Watches a sweep; the terminal's table and the MLflow tracker are two.

    Calls come from one thread at a time, in the order of events, and must return soon: the sweep's
    controller waits for them. A trial that was finished before this run appears only in ``reused``.
    """

    def on_wave_start(self, stage: str, n: int, reused: int) -> None:
        """``n`` trials of ``stage`` begin, of which ``reused`` are finished already."""

    def on_trial_start(self, config: TrialConfig) -> None:
        """A trial got its resources, for the first time or again after a restart."""

    def on_bundle_start(self, bundle: Bundle) -> None:
        """As ``on_trial_start``, of many short trials; each tells its end only."""

    def on_bundle_end(self, bundle: Bundle) -> None:
        """All trials of the bundle have ended, or are interrupted."""

    def on_place(self, unit: TrialConfig | Bundle, device: str) -> None:
        """The trial's ranks compute on ``device``: told with its first epoch, and when it moves."""

    def on_epoch(self, config: TrialConfig, epoch: int, metrics: Mapping[str, float]) -> None:
        """Epoch number ``epoch`` (from 1) is finished and its checkpoint is safe."""

    def on_trial_end(self, outcome: Outcome) -> None:
        """A trial of this run has ended."""

    def on_wave_end(self) -> None:
        """No trial of the wave runs any more."""


class Listeners:
    """Several listeners as one. One that raises is dropped: watching must not end a sweep."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners = list(listeners)

    def tell(self, event: str, *args: Any) -> None:
        """Call method ``event`` of every listener."""
        for listener in list(self._listeners):
            try:
                getattr(listener, event)(*args)
            except Exception:
                self._listeners.remove(listener)
                log.exception("%s failed in %s; going on without it", type(listener), event)
