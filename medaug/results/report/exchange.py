"""The learning curve of real rows, with every arm beside it: what synthetic rows are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medaug.metrics.exchange import nondecreasing
from medaug.results.judge import learning_curve
from medaug.results.report.style import (
    BLACK,
    CYCLE,
    GREY,
    LIGHT,
    MARKERS,
    panels,
    styled,
    whole_ticks,
)
from medaug.results.rows import REFERENCE, Leaderboard, Row

MOST_ARMS = 6
"""Best-placed arms that are drawn; more hide each other."""


@styled
def worth(board: Leaderboard) -> Figure | None:
    """Balanced accuracy against real training rows: the curve without synthetic data, and the best
    row of each arm where its own real rows are, with a line to where the curve is as high.

    None where the reference's classifier was scored at one number of real rows only.
    """
    reference = board.reference
    if reference is None:
        return None
    curve = learning_curve(board.rows, reference.classifier)
    arms = _best_of_each_arm(board.rows)
    if len(curve) < 2 or not arms:
        return None
    figure, (axis,) = panels(1, height=3.6, width=6.4)
    sizes = np.array(list(curve))
    _draw_curve(axis, sizes, [*curve.values()])
    spread = np.linspace(-1, 1, len(arms)) if len(arms) > 1 else np.zeros(1)
    for row, colour, marker, aside in zip(arms, CYCLE, MARKERS, spread, strict=False):
        _draw_arm(axis, row, colour, marker, 1 + 0.05 * aside)
    axis.set_xscale("log")
    axis.set_xlim(sizes[0] / 1.2, sizes[-1] * 1.2)
    whole_ticks(axis, sizes.tolist())
    axis.set(xlabel="real training rows", ylabel="balanced accuracy of patients")
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=7, handlelength=1.6)
    return figure


def _draw_curve(axis: Axes, sizes: np.ndarray, rows: Sequence[Row]) -> None:
    means = np.array([row.mean for row in rows])
    fitted = nondecreasing(means[None])[0]
    axis.fill_between(sizes, [r.low for r in rows], [r.high for r in rows], color=LIGHT, lw=0)
    axis.plot(sizes, fitted, color=GREY, lw=1.4, label="real rows only, nondecreasing fit")
    axis.plot(sizes, means, ls="", marker="s", mfc="white", mec=BLACK, ms=4.5, label="as scored")


def _draw_arm(axis: Axes, row: Row, colour: str, marker: str, aside: float) -> None:
    assert row.real_rows is not None
    said = f"\nworth {row.worth.text}" if row.worth is not None else ""
    x = row.real_rows * aside
    axis.errorbar(
        x,
        row.mean,
        yerr=[[row.mean - row.low], [row.high - row.mean]],
        color=colour,
        marker=marker,
        ms=5.5,
        lw=1,
        ls="",
        label=f"{row.title}{said}",
    )
    if row.worth is not None and row.worth.least < row.worth.rows < row.worth.most:
        axis.hlines(row.mean, x, row.real_rows + row.worth.rows, color=colour, lw=0.8, ls=":")


def _best_of_each_arm(rows: Sequence[Row]) -> list[Row]:
    """In the order of the board; of an arm, its best-placed row that has a gain."""
    best: dict[str, Row] = {}
    for row in rows:
        usable = row.synthetic and row.real_rows is not None and math.isfinite(row.gain)
        if usable and REFERENCE not in row.flags:
            best.setdefault(row.arm, row)
    return list(best.values())[:MOST_ARMS]
