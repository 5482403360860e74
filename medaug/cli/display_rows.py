"""What the terminal's table says of one running trial, or bundle of trials."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medaug.spec import ClassifyTrial, GenerateTrial, NetworkSpec, SegmentTrial, TrialConfig
from medaug.sweep.trial.bundle import Bundle

HEADLINES = {
    "val/iou": "IoU",
    "val/balanced_accuracy": "bal. acc.",
    "val/fd": "FD",
    "fd": "FD",
    "val/loss": "val. loss",
}
"""The metric to show of a trial: the first of these that it reports, else its first one. Some come
only every few epochs; they take the place of lesser ones as soon as they are there."""
NO_HEADLINES = ("rows", "plan/")
"""How these begin: counts of what is done, which the epoch says already; what a rehearsal took."""
_SMALLER_IS_BETTER = re.compile(r"loss|error|/fd|/fid|/mmd")


@dataclass
class Row:
    """A running trial, or bundle of trials, as the table shows it."""

    unit: TrialConfig | Bundle
    reports: list[tuple[int, float]] = field(default_factory=list)
    """(epoch, when) of its first and its last report: their distance is its pace, whatever it took
    to start, and whichever epoch it was resumed from. Of a bundle: trials that have ended."""
    metric: str = ""
    best: float | None = None
    device: str = ""
    starts: int = 1
    """How often it got its resources: more than once after a failure."""

    def update(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.reports[1:] = [(epoch, time.monotonic())]
        known = [name for name in (*HEADLINES, *metrics) if name in metrics]
        known = [name for name in known if not name.startswith(NO_HEADLINES)]
        if known and (not self.metric or _rank(known[0]) < _rank(self.metric)):
            self.metric, self.best = known[0], None
        value = metrics.get(self.metric)
        if value is not None and (self.best is None or self._better(value)):
            self.best = value

    @property
    def trials(self) -> Sequence[TrialConfig]:
        return self.unit.trials if isinstance(self.unit, Bundle) else (self.unit,)

    @property
    def fold(self) -> str:
        return _the_one({trial.fold for trial in self.trials})

    @property
    def seed(self) -> str:
        return _the_one({trial.seed for trial in self.trials})

    @property
    def epoch(self) -> int | None:
        return self.reports[-1][0] if self.reports else None

    @property
    def epochs(self) -> int | None:
        """How many it has at most, where its configuration says so; of a bundle: its trials."""
        if isinstance(self.unit, Bundle):
            return len(self.unit.trials)
        trained = self._epochs_of_training
        if trained is not None and isinstance(self.unit, GenerateTrial):
            return trained + 1  # the last one writes the rows
        return trained

    @property
    def _epochs_of_training(self) -> int | None:
        """None of what is fitted, drawn or computed at once."""
        match self.unit:
            case SegmentTrial(segmenter=segmenter):
                return segmenter.epochs
            case ClassifyTrial(classifier=NetworkSpec(epochs=epochs)):
                return epochs
            case GenerateTrial(maker=maker) if (epochs := maker.get("epochs")) is not None:
                return int(epochs)
        return None

    def reached(self, epoch: int) -> str:
        """``epoch 12 IoU 0.81``; without the epoch of what is not trained by epochs."""
        of = self._epochs_of_training
        at = f"epoch {min(epoch, of)}" if of is not None else ""
        return f"{at} {self.headline()}".strip()

    @property
    def state(self) -> str:
        if self.epoch is None:
            return "starting" if self.starts == 1 else f"try {self.starts}"
        return "running"

    def seconds_per_epoch(self) -> float | None:
        if len(self.reports) < 2:
            return None
        (first, began), (last, now) = self.reports
        return (now - began) / (last - first)

    def left_s(self, otherwise: int) -> float | None:
        """Seconds until its last epoch; ``otherwise`` is how many it has if nobody says."""
        pace = self.seconds_per_epoch()
        left = (self.epochs or otherwise) - (self.epoch or 0)
        return max(0, left) * pace if pace else None

    def headline(self) -> str:
        name = HEADLINES.get(self.metric, self.metric)
        return "" if self.best is None else f"{name} {self.best:.3g}"

    def progress(self) -> str:
        """``12/50``, or ``12`` where nobody knows how many there will be."""
        if self.epoch is None:
            return ""
        return f"{self.epoch}/{self.epochs}" if self.epochs else f"{self.epoch}"

    def _better(self, value: float) -> bool:
        assert self.best is not None
        smaller = _SMALLER_IS_BETTER.search(self.metric) is not None
        return value < self.best if smaller else value > self.best


def _rank(metric: str) -> int:
    """The lower, the more a person wants to see it."""
    return [*HEADLINES].index(metric) if metric in HEADLINES else len(HEADLINES)


def _the_one(values: set[int]) -> str:
    return str(min(values)) if len(values) == 1 else ""
