"""How long a rank takes for its own part of a step: the part that the others wait for.

Ranks of a group move in step, so each takes as long as the slowest; what tells them apart is what
they do before their gradients meet: drawing rows and the forward pass. (A rank whose GPU alone is
slow is not seen: the host only queues its work.)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from statistics import median

STEPS = 20
"""So many steps have to be slow."""
TIMES = 4.0
"""So many times as long as the others is a straggler."""
LEAST_S = 0.005
"""Shorter steps than this differ by chance."""


class Pace:
    """Adds up own time: from the end of one optimiser step to the last forward pass before the
    next, without waiting for other ranks."""

    def __init__(self) -> None:
        self.steps = 0
        self.own_s = 0.0
        self._began: float | None = None
        self._ready: float | None = None
        self._waited_s = 0.0

    def forwarded(self) -> None:
        """A forward pass is over."""
        self._ready = time.perf_counter()

    def stepped(self) -> None:
        """An optimiser has stepped: all ranks are at the same point."""
        if self._began is not None and self._ready is not None and self._ready > self._began:
            self.steps += 1
            self.own_s += self._ready - self._began - self._waited_s
        self._began = time.perf_counter()
        self._waited_s = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within a forward pass: other ranks are needed."""
        began = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - began

    def take(self) -> tuple[int, float]:
        """(steps, own seconds) since the last time; what comes before the next step is not one."""
        taken = self.steps, self.own_s
        self.steps, self.own_s, self._began = 0, 0.0, None
        return taken


PACE = Pace()
"""Of this process: it is one rank."""


class Laggard:
    """Looks for a rank that all others wait for."""

    def __init__(self, ranks: int) -> None:
        self._steps = [0] * ranks
        self._own_s = [0.0] * ranks
        self._told: set[int] = set()

    def look(self, paces: list[tuple[int, float]]) -> str | None:
        """Add each rank's (steps, own seconds); one line about a straggler, once for each."""
        for rank, (steps, own_s) in enumerate(paces):
            self._steps[rank] += steps
            self._own_s[rank] += own_s
        if len(paces) < 2 or min(self._steps) < STEPS:
            return None
        step_s = [own_s / steps for own_s, steps in zip(self._own_s, self._steps, strict=True)]
        slowest = max(range(len(paces)), key=step_s.__getitem__)
        usual = median(s for rank, s in enumerate(step_s) if rank != slowest)
        self._steps, self._own_s = [0] * len(paces), [0.0] * len(paces)
        slow = step_s[slowest] > max(TIMES * usual, usual + LEAST_S)
        if not slow or slowest in self._told:
            return None
        self._told.add(slowest)
        return (
            f"rank {slowest} takes {step_s[slowest]:.3f} s for its part of a step, the others "
            f"{usual:.3f} s: all wait for it; look at its node (disk, other processes, heat)"
        )
