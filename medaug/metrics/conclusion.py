"""How a comparison ends: a gain, no gain worth having, or too little data to tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy.special import ndtri

from medaug.metrics.board import Contrast
from medaug.metrics.bounds import Bounds

End = Literal["gain", "no gain", "undecided"]

MARGIN = 0.02
"""A gain in balanced accuracy that is too small to matter, unless a study says otherwise."""
CHANCE_TO_DECIDE = 0.8
MOST = 100_000
"""Patients beyond this are not worth naming."""
MOST_TIMES = 30
"""Nor are more than so many times today's draws or seeds: so few say little of so many."""


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
    Else ``undecided``, with the sizes at which a study like this one would decide in four of five
    cases: of patients, of draws and of seeds, each with the others as they are; or, where none of
    them is enough alone, of all together.
    """
    if not (math.isfinite(bounds.low) and math.isfinite(bounds.high)):
        return None
    if bounds.low > 0:
        return Conclusion("gain", margin)
    if bounds.high < margin:
        return Conclusion("no gain", margin)
    return _undecided(bounds.contrast, _shrink(bounds, margin), margin)


def _shrink(bounds: Bounds, margin: float) -> float:
    """How many times narrower bounds would have to be to decide in four of five cases, below 1.

    To show that there is no gain above the margin if there is none at all; today's estimate does
    not enter, since it may be luck. An estimate above the margin is taken for true: then bounds
    may also be wide enough only to show that it is above zero.
    """
    spare = float(ndtri(CHANCE_TO_DECIDE)) * bounds.contrast.error
    shrink = margin / (bounds.high - bounds.gain + spare)
    if bounds.gain > margin:
        shrink = max(shrink, bounds.gain / (bounds.gain - bounds.low + spare))
    return min(shrink, 1 - 1e-9)


def _undecided(contrast: Contrast, shrink: float, margin: float) -> Conclusion:
    """What would make the interval's half widths ``shrink`` times what they are, 0 < it < 1."""
    parts = contrast.components
    assert parts is not None
    if parts.variance() == 0:  # nothing tells the two apart yet: the reach falls as 1 / patients
        return _of_sizes(margin, parts.n_patients / shrink)
    wanted = parts.variance() * shrink**2
    alone = _of_sizes(
        margin,
        parts.patients_for(wanted),
        _in_reach(parts.draws_for(wanted), parts.n_draws),
        _in_reach(parts.seeds_for(wanted), parts.n_seeds),
    )
    if alone.patients or alone.draws or alone.seeds:
        return alone
    # Half of what may be left of the variance to the patients, half to the replicates.
    of_patients = parts.patients_share * parts.variance()
    rest = parts.variance() - of_patients
    more = max(1.0, 2 * rest / wanted)
    replicates = [n * more if n > 1 else math.inf for n in (parts.n_draws, parts.n_seeds)]
    patients = parts.n_patients * max(1.0, 2 * of_patients / wanted)
    return _of_sizes(margin, patients, *replicates, together=True)


def _in_reach(size: float, now: int) -> float:
    """So many draws or seeds, unless there is a single one or that is far beyond what is known."""
    return size if now > 1 and size <= MOST_TIMES * now else math.inf


def _of_sizes(
    margin: float,
    patients: float,
    draws: float = math.inf,
    seeds: float = math.inf,
    *,
    together: bool = False,
) -> Conclusion:
    of_patients, of_draws, of_seeds = (
        _about(size) if size <= MOST else None for size in (patients, draws, seeds)
    )
    return Conclusion(
        "undecided",
        margin,
        of_patients,
        of_draws,
        of_seeds,
        together=together and of_patients is not None,
    )


def _about(size: float) -> int:
    """Two figures of it, rounded up: more would promise too much."""
    step = 10 ** max(0, math.floor(math.log10(max(size, 1))) - 1)
    return math.ceil(size / step) * step
