"""Bounds of all gains of a board at once, over the best of several controls.

The gain of a row is its score less that of the *best* control: theta = min over controls c of
(mu_row - mu_c). Which control is best is not known, and the one that did best on these patients
was also lucky; so no control is chosen by the data:

* Lower bounds. A row has a gain only if it beats every control, so its bound is the lowest of its
  bounds over each of them (intersection-union test; Berger 1982, Technometrics 24). Where a row
  has no gain, one and the same control, the truly best, is not beaten by it; for each control,
  therefore, the bounds need to hold over all *rows* at once, not over the controls too.
* Upper bounds. A row's gain is below a margin if some control is beaten by less. That control may
  be any, so these bounds hold over all pairs of row and control at once, and the lowest counts.
  Controls that are shown to be worse than another do not enter; a tenth of the level goes into
  that (Romano, Shaikh & Wolf 2014, Econometrica 82, use the same two steps).

"At once" is the max-t bootstrap (Romano & Wolf 2005, Econometrica 73): the level's quantile of the
largest studentised deviation over the family in each joint resample, one-sided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from medaug.metrics.board import Board, Contrast, within

PRUNING = 0.1
"""Share of the error rate that leaving out bad controls may use."""


@dataclass(frozen=True)
class Family:
    """Rows that are compared with the same controls: those of one training-set size."""

    rows: tuple[str, ...]
    controls: tuple[str, ...]


@dataclass(frozen=True)
class Bounds:
    """One row's gain over the best control, with bounds that hold for the whole board."""

    gain: float
    """Over :attr:`reference`."""
    low: float
    high: float
    """One-sided bounds: the chance that any row's ``low`` is too high is 1 - level, and so is the
    chance that any row's ``high`` is too low."""
    reference: str
    """The control that did best."""
    contrast: Contrast
    """The row against the reference."""


def simultaneous_bounds(
    board: Board, families: Sequence[Family], *, level: float = 0.95
) -> dict[str, Bounds]:
    """Bounds of all rows of all families, by title; families without rows or controls give none.

    NaN bounds where a class has fewer than two patients.
    """
    families = [family for family in families if family.rows and family.controls]
    if not families:
        return {}
    best = [max(family.controls, key=board.mean) for family in families]
    error = 1 - level
    pairs, worst = [], []
    for place, family in enumerate(families):
        kept = _not_shown_worse(board, family.controls, PRUNING * error)
        pairs += [(row, control) for row in family.rows for control in kept]
        others = [
            (row, best[other])
            for other, theirs in enumerate(families)
            if other != place
            for row in theirs.rows
        ]
        worst.append(
            {
                control: _tail(
                    board, [*others, *((row, control) for row in family.rows)], error, sign=1
                )
                for control in family.controls
            }
        )
    above = _tail(board, pairs, (1 - PRUNING) * error, sign=-1)
    found: dict[str, Bounds] = {}
    for family, reference, below in zip(families, best, worst, strict=True):
        kept = [c for c in family.controls if (family.rows[0], c) in set(pairs)]
        for row in family.rows:
            found[row] = _of_row(board, row, reference, below, kept, above)
    return found


def _of_row(
    board: Board,
    row: str,
    reference: str,
    below: Mapping[str, float],
    kept: Sequence[str],
    above: float,
) -> Bounds:
    contrasts = {control: board.contrast(row, control) for control in below}
    return Bounds(
        gain=contrasts[reference].estimate,
        low=within(min(each.estimate - each.reach(below[c]) for c, each in contrasts.items())),
        high=within(min(contrasts[c].estimate + contrasts[c].reach(above) for c in kept)),
        reference=reference,
        contrast=contrasts[reference],
    )


def _tail(board: Board, pairs: Sequence[tuple[str, str]], error: float, *, sign: int) -> float:
    """The error rate of each pair's bound at which all of them together keep ``error``.

    From the quantile of the largest studentised deviation over the pairs, as a normal score.
    """
    largest = np.max([sign * board.studentised(row, control) for row, control in pairs], axis=0)
    return min(error, float(ndtr(-np.quantile(largest, 1 - error))))


def _not_shown_worse(board: Board, controls: Sequence[str], error: float) -> list[str]:
    """Controls that no other beats, over all pairs at once, at this rate of error."""
    pairs = [(a, b) for a in controls for b in controls if a != b]
    if not pairs:
        return list(controls)
    tail = _tail(board, pairs, error, sign=1)
    worse = set()
    for better, control in pairs:
        each = board.contrast(better, control)
        if each.estimate - each.reach(tail) > 0:
            worse.add(control)
    return [control for control in controls if control not in worse]
