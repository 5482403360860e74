"""Timing in turns: A B, B A, A B …, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A median and its neighbours: the quartiles, or the extremes of fewer than four values."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Raises ValueError when there are no values."""
        if len(values) < 4:
            return Spread(statistics.median(values), min(values), max(values))
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(median, low, high)


@dataclass(frozen=True)
class Timing:
    """Seconds that a subject took in each round: of this process's CPU, and on the wall."""

    cpu_s: tuple[float, ...]
    wall_s: tuple[float, ...]

    def speed_cpu(self, baseline: Timing) -> Spread:
        """How many times as fast as ``baseline``, in CPU time, round by round."""
        return _ratios(baseline.cpu_s, self.cpu_s)

    def speed_wall(self, baseline: Timing) -> Spread:
        """How many times as fast as ``baseline``, on the wall, round by round."""
        return _ratios(baseline.wall_s, self.wall_s)

    @property
    def wall(self) -> Spread:
        return Spread.of(self.wall_s)

    @property
    def cpu(self) -> Spread:
        return Spread.of(self.cpu_s)


def interleaved(
    subjects: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 1,
    synchronise: Callable[[], None] | None = None,
) -> dict[str, Timing]:
    """Time all ``subjects`` once per round, in an order that turns round every time.

    ``warm_up`` further rounds come first and are not counted. ``synchronise`` waits for a device
    (``torch.cuda.synchronize``); it is called before each clock is read.

    CPU time is that of this process with its threads: work in child processes is not in it.
    """
    assert rounds >= 1
    wait = synchronise or _no_device
    cpu: dict[str, list[float]] = {name: [] for name in subjects}
    wall: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    for turn in range(-warm_up, rounds):
        for name in names if turn % 2 else names[::-1]:
            wait()
            cpu_0, wall_0 = time.process_time(), time.perf_counter()
            subjects[name]()
            wait()
            cpu_1, wall_1 = time.process_time(), time.perf_counter()
            if turn >= 0:
                cpu[name].append(cpu_1 - cpu_0)
                wall[name].append(wall_1 - wall_0)
    return {name: Timing(tuple(cpu[name]), tuple(wall[name])) for name in names}


def _no_device() -> None:
    pass


def _ratios(baseline: Sequence[float], own: Sequence[float]) -> Spread:
    return Spread.of([b / max(s, 1e-9) for b, s in zip(baseline, own, strict=True)])
