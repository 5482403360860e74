"""Trials on slots."""

from __future__ import annotations

import heapq
from collections.abc import Iterable


def schedule(seconds: Iterable[float], slots: int) -> float:
    """When the last of trials ends that start in order, each on the first slot that is free."""
    free = [0.0] * slots
    end = 0.0
    for duration in seconds:
        ends = heapq.heappop(free) + duration
        heapq.heappush(free, ends)
        end = max(end, ends)
    return end
