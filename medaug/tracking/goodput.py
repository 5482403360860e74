"""Where the time of a run went: every second of a trial in exactly one bucket.

Of a trial's wall time, from the start of its first epoch to the end of its last, ``good`` are the
epochs whose result is in the final model. The rest is ``saving`` checkpoints, ``redone`` epochs,
and ``waiting``: between epochs, and between an interruption and the resumption.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medaug.tracking.records import TrialRecord


@dataclass(frozen=True)
class Spent:
    """Seconds by bucket, of one trial or summed over several."""

    trials: int = 0
    good: float = 0.0
    saving: float = 0.0
    redone: float = 0.0
    waiting: float = 0.0

    @property
    def wall(self) -> float:
        return self.good + self.saving + self.redone + self.waiting

    @property
    def goodput(self) -> float:
        """Share of the time that is in the final models; NaN without any."""
        return self.good / self.wall if self.wall else float("nan")

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.trials + other.trials,
            self.good + other.good,
            self.saving + other.saving,
            self.redone + other.redone,
            self.waiting + other.waiting,
        )


def spent_by(trials: Iterable[TrialRecord]) -> Spent:
    """The sum over trials that have finished an epoch."""
    return sum((spent(trial.epochs) for trial in trials if trial.epochs), Spent())


def spent(epochs: Sequence[Mapping[str, Any]]) -> Spent:
    """Of one trial's lines of ``epochs.jsonl``."""
    last = {row["epoch"]: place for place, row in enumerate(epochs)}
    good = sum(epochs[place]["seconds"] for place in last.values())
    saving = sum(row["save_seconds"] for row in epochs)
    redone = sum(row["seconds"] for place, row in enumerate(epochs) if last[row["epoch"]] != place)
    begun, ended = elapsed(epochs)
    waiting = max(0.0, ended - begun - good - saving - redone)
    return Spent(1, good, saving, redone, waiting)


def elapsed(epochs: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """When the first epoch began and when the last was safe, in seconds since 1970."""
    first = epochs[0]
    return first["time"] - first["seconds"] - first["save_seconds"], epochs[-1]["time"]
