"""What runs in a storage folder: who holds each run, how far its trials are, and to stop it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from medaug.errors import EnvironmentFault
from medaug.ownership.lease import Holder, Lease

STOP_TIMEOUT_S = 60.0
"""A driver that is asked to stop ends within 25 s; a loaded machine gets more."""
BEAT_S = 0.2

_SIGNS = {"result.json": "done", "stopped.json": "stopped early", "failure.json": "failed"}


@dataclass(frozen=True)
class RunState:
    """Of one run. ``trials`` counts those that were planned so far, wave by wave."""

    name: str
    holder: Holder | None
    """Its driver, if one is running."""
    trials: dict[str, int]
    """done, stopped early, failed, begun (running, or to go on with) and waiting."""

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {what}" for what, n in self.trials.items() if n)
        state = f"running ({self.holder})" if self.holder else "not running"
        return f"{self.name}: {state}; trials: {counts or 'none yet'}"


def runs_in(storage: Path) -> list[str]:
    """Names of the runs in ``storage``, the latest first."""
    studies = sorted(storage.glob("*/study.json"), key=lambda path: path.stat().st_mtime)
    return [path.parent.name for path in reversed(studies)]


def state_of(folder: Path) -> RunState:
    """State of the run in ``folder``. It is only looked at."""
    counts: Counter[str] = Counter()
    for config in (folder / "trials").glob("*/config.json"):
        trial = config.parent
        ends = [end for name, end in _SIGNS.items() if (trial / name).exists()]
        counts[ends[0] if ends else _unfinished(trial)] += 1
    order = [*_SIGNS.values(), "begun", "waiting"]
    return RunState(folder.name, Lease(folder).holder(), {what: counts[what] for what in order})


def stop(folder: Path) -> Holder | None:
    """Ask the driver of the run in ``folder`` to end after the running epochs; wait until it has.

    Returns who it was, or None when the run is not running.

    Raises:
        EnvironmentFault: its driver is on another machine, or does not end.
    """
    lease = Lease(folder)
    holder = lease.holder()
    if holder is None:
        return None
    if not holder.ask_to_stop():
        raise EnvironmentFault(
            f"run {folder.name}: its driver is elsewhere ({holder}); stop it there, or give "
            "--address http://HOST:8265 if it was submitted"
        )
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while lease.holder() == holder:
        if time.monotonic() > deadline:
            raise EnvironmentFault(
                f"run {folder.name}: {holder} has not ended after {STOP_TIMEOUT_S:.0f} s; look "
                f"what it does, or end it with `kill -9 {holder.pid}` (no finished epoch is lost)"
            )
        time.sleep(BEAT_S)
    return holder


def _unfinished(trial: Path) -> str:
    return "begun" if (trial / "epochs.jsonl").exists() else "waiting"
