"""Where the time of a run went: every second of a trial in exactly one bucket.

``good`` are the steps whose result is in the final model (ML productivity goodput, Google Cloud,
2024). The rest is badput: ``startup`` of the ranks, ``data_wait`` for rows, ``ckpt_save`` and
``ckpt_load``, ``redone`` steps (their result was lost), ``detect`` (a hang that nobody had noticed
yet), ``restart`` after a fault, and ``idle`` (between epochs, and between an interruption and the
resumption). The sweep writes them into each trial's ``times.jsonl``; a trial that was run without a
sweep (``torchrun``) has its epochs only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medaug.results.records import TrialRecord

Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Spent:
    """Seconds by bucket, of one trial or summed over several."""

    trials: int = 0
    good: float = 0.0
    startup: float = 0.0
    data_wait: float = 0.0
    ckpt_save: float = 0.0
    ckpt_load: float = 0.0
    redone: float = 0.0
    detect: float = 0.0
    restart: float = 0.0
    idle: float = 0.0

    @property
    def wall(self) -> float:
        return sum(getattr(self, name) for name in BUCKETS)

    @property
    def goodput(self) -> float:
        """Share of the time that is in the final models; NaN without any."""
        return self.good / self.wall if self.wall else float("nan")

    @property
    def saving(self) -> float:
        return self.ckpt_save + self.ckpt_load

    @property
    def waiting(self) -> float:
        """All that was neither computing nor saving."""
        return self.wall - self.good - self.redone - self.saving

    def __add__(self, other: Spent) -> Spent:
        names = ("trials", *BUCKETS)
        return Spent(**{name: getattr(self, name) + getattr(other, name) for name in names})


BUCKETS = tuple(field.name for field in dataclasses.fields(Spent) if field.name != "trials")


def spent_by(trials: Iterable[TrialRecord]) -> Spent:
    """The sum over trials that have finished an epoch."""
    return sum((spent(trial.epochs, trial.laps) for trial in trials if trial.epochs), Spent())


def spent(epochs: Lines, laps: Lines = ()) -> Spent:
    """Of one trial's lines of ``epochs.jsonl`` and ``times.jsonl``."""
    if not laps:
        return _without_laps(epochs)
    last = {row["epoch"]: place for place, row in enumerate(laps) if "epoch" in row}
    seconds = dict.fromkeys(BUCKETS, 0.0)
    for place, row in enumerate(laps):
        for name, value in row["seconds"].items():
            kept = name != "step" or last[row["epoch"]] == place
            seconds[name if name != "step" else "good" if kept else "redone"] += value
    return Spent(1, **seconds)


def _without_laps(epochs: Lines) -> Spent:
    last = {row["epoch"]: place for place, row in enumerate(epochs)}
    good = sum(epochs[place]["seconds"] for place in last.values())
    saving = sum(row["save_seconds"] for row in epochs)
    redone = sum(row["seconds"] for place, row in enumerate(epochs) if last[row["epoch"]] != place)
    begun, ended = elapsed(epochs)
    idle = max(0.0, ended - begun - good - saving - redone)
    return Spent(1, good=good, ckpt_save=saving, redone=redone, idle=idle)


def elapsed(epochs: Lines) -> tuple[float, float]:
    """When the first epoch began and when the last was safe, in seconds since 1970."""
    first = epochs[0]
    return first["time"] - first["seconds"] - first["save_seconds"], epochs[-1]["time"]
