"""How a comparison ends: a gain, no gain worth having, or too little data to tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medaug.metrics.board import Contrast
from medaug.metrics.bounds import Bounds

End = Literal["gain", "no gain", "undecided"]

MARGIN = 0.02
"""A gain in balanced accuracy that is too small to matter, unless a study says otherwise."""
MOST = 100_000
"""Numbers beyond this are not worth naming."""


@dataclass(frozen=True)
class Conclusion:
    """One of three ends, with what would decide the third."""

    end: End
    margin: float
    patients: int | None = None
    """About as many patients, instead of those that were scored, would decide."""
    draws: int | None = None
    """About as many draws of the training set would decide."""
    seeds: int | None = None
    together: bool = False
    """Whether it takes all of these numbers at once; else any of them is enough."""

    @property
    def text(self) -> str:
        """``gain``; ``no gain above +0.02``; ``undecided: about 340 patients would decide``."""
        if self.end == "gain":
            return "gain"
        if self.end == "no gain":
            return f"no gain above +{self.margin:g}"
        sizes = {"patients": self.patients, "draws": self.draws, "seeds": self.seeds}
        ways = [f"{number:,} {what}" for what, number in sizes.items() if number is not None]
        if not ways:
            return f"undecided: more than {MOST:,} patients would be needed"
        said = (" with " if self.together else " or ").join(ways)
        return f"undecided: about {said} would decide"


def conclude(bounds: Bounds, margin: float = MARGIN) -> Conclusion | None:
    """The end that a row's bounds allow; None where there are no bounds.

    ``gain``: the lower bound is above zero. ``no gain``: the upper bound is below ``margin``.
    Else ``undecided``, with the sizes at which the nearer of the two bounds would decide if the
    estimate stayed: of patients, of draws and of seeds, each with the others as they are, the one
    that helps most first; or, where none of them is enough alone, of all together.
    """
    if not (math.isfinite(bounds.low) and math.isfinite(bounds.high)):
        return None
    if bounds.low > 0:
        return Conclusion("gain", margin)
    if bounds.high < margin:
        return Conclusion("no gain", margin)
    shrink = max(
        bounds.gain / (bounds.gain - bounds.low) if bounds.low < bounds.gain else 0.0,
        (margin - bounds.gain) / (bounds.high - bounds.gain) if bounds.high > bounds.gain else 0.0,
    )
    return _undecided(bounds.contrast, min(shrink, 1 - 1e-9), margin)


def _undecided(contrast: Contrast, shrink: float, margin: float) -> Conclusion:
    """What would make the interval's half widths ``shrink`` times what they are, 0 < it < 1."""
    parts = contrast.components
    assert parts is not None
    if parts.variance() == 0:  # nothing tells the two apart yet: the reach falls as 1 / patients
        return _of_sizes(margin, parts.n_patients / shrink)
    wanted = parts.variance() * shrink**2
    alone = (
        parts.patients_for(wanted),
        parts.draws_for(wanted) if parts.n_draws > 1 else math.inf,
        parts.seeds_for(wanted) if parts.n_seeds > 1 else math.inf,
    )
    if min(alone) <= MOST:
        return _of_sizes(margin, *alone)
    more = 1 / shrink**2
    sizes = (parts.n_patients, parts.n_draws, parts.n_seeds)
    all_of_them = (size * more if size > 1 else math.inf for size in sizes)
    return _of_sizes(margin, *all_of_them, together=True)


def _of_sizes(
    margin: float,
    patients: float,
    draws: float = math.inf,
    seeds: float = math.inf,
    *,
    together: bool = False,
) -> Conclusion:
    sizes = [_about(size) if size <= MOST else None for size in (patients, draws, seeds)]
    return Conclusion("undecided", margin, *sizes, together=together and sizes[0] is not None)


def _about(size: float) -> int:
    """Two figures of it, rounded up: more would promise too much."""
    step = 10 ** max(0, math.floor(math.log10(max(size, 1))) - 1)
    return math.ceil(size / step) * step
