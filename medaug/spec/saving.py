"""How often a training is saved."""

from __future__ import annotations

from math import sqrt
from typing import Literal

LONGEST_S = 30.0
"""What a trial that is killed loses at most, unless its epochs are longer."""
BETWEEN_FAILURES_S = 6 * 3600.0
"""Mean time until a trial loses its process: a guess, for spot machines and people; a machine of
one's own stands for months, which would ask for longer intervals than the longest."""


def save_interval_s(every_s: float | Literal["auto"], save_s: float | None) -> float:
    """Seconds from one checkpoint of a trial to the next.

    ``auto``: what costs least, counting saves and what has to be trained again, is sqrt(2 C M) for
    a save of C = ``save_s`` seconds and a failure every M (Young 1974, "A first order approximation
    to the optimum checkpoint interval", of which Daly 2006 is the refinement for C near M); here at
    most :data:`LONGEST_S`, which it is for saves of 21 ms and more, and as long as no save has been
    measured (None).
    """
    if every_s != "auto":
        return every_s
    if save_s is None:
        return LONGEST_S
    return min(LONGEST_S, sqrt(2 * save_s * BETWEEN_FAILURES_S))
