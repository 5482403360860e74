"""The learning curve of real rows with the arms on it: what synthetic rows are worth."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medaug.metrics.exchange import nondecreasing
from medaug.results.judge import curve_start, learning_curve
from medaug.results.report.style import (
    BLACK,
    CYCLE,
    GREY,
    MARKERS,
    panels,
    styled,
    whole_ticks,
)
from medaug.results.rows import Leaderboard, Row

MOST_ARMS = 6
"""Best-placed arms that are drawn; more hide each other."""
MOST_PANELS = 3


@styled
def worth(board: Leaderboard) -> Figure | None:
    """What further real rows bring, and where on that curve the best row of each arm stands.

    One panel for each training-set size, up is the gain with the board's bounds, right are the
    real rows that it is worth with their interval. None where nothing has an exchange rate.
    """
    sizes: dict[int | None, list[Row]] = {}
    for row in board.rows:
        if row.worth is not None and row.worth.most > 0:
            sizes.setdefault(row.train_rows, []).append(row)
    sizes = dict(sorted(sizes.items(), key=lambda item: item[0] or math.inf)[:MOST_PANELS])
    if not sizes:
        return None
    figure, axes = panels(len(sizes), height=3.4, width=max(6.4, 3.2 * len(sizes)))
    arms = list(dict.fromkeys(row.arm for rows in sizes.values() for row in rows))[:MOST_ARMS]
    for axis, rows in zip(axes, sizes.values(), strict=True):
        _panel(axis, board, rows, arms)
    axes[0].set_ylabel("gain in balanced accuracy")
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=7, handlelength=1.6)
    return figure


def _panel(axis: Axes, board: Leaderboard, rows: list[Row], arms: list[str]) -> None:
    reference = next(row for row in board.rows if row.title == rows[0].reference)
    curve = learning_curve(board.rows, reference.classifier)
    if curve_start(curve, rows[0]) is None or len(curve) < 2:
        rows = [row for row in rows if row.classifier == rows[0].classifier]
        curve = learning_curve(board.rows, rows[0].classifier)
    start = curve_start(curve, rows[0])
    assert start is not None, "without a start there is no exchange rate"
    numbers, means = np.array(list(curve)), np.array([row.mean for row in curve.values()])
    fitted = nondecreasing(means[None])[0]
    at = list(curve).index(start)
    axis.axhline(0, color=GREY, lw=0.8)
    axis.plot(numbers, fitted - fitted[at], color=GREY, lw=1.4, label="real rows only, fitted")
    axis.plot(numbers, means - fitted[at], ls="", marker="s", mfc="white", mec=BLACK, ms=4.5,
              label="as scored")  # fmt: skip
    for arm, colour, marker in zip(arms, CYCLE, MARKERS, strict=False):
        best = next((row for row in rows if row.arm == arm), None)
        if best is not None:
            _draw_arm(axis, best, start, colour, marker)
    axis.set_xscale("log")
    axis.set_xlim(numbers[0] / 1.15, numbers[-1] * 1.15)
    whole_ticks(axis, numbers.tolist())
    axis.set_xlabel(f"real training rows, or {start:,} and synthetic ones")


def _draw_arm(axis: Axes, row: Row, start: int, colour: str, marker: str) -> None:
    assert row.worth is not None
    rate = row.worth
    axis.errorbar(
        start + rate.rows,
        row.gain,
        xerr=[[rate.rows - min(rate.low, rate.rows)], [max(rate.high, rate.rows) - rate.rows]],
        yerr=[[row.gain - row.gain_low], [row.gain_high - row.gain]],
        color=colour,
        marker=marker,
        ms=5.5,
        lw=1,
        ls="",
        label=f"{row.title}\nworth {rate.text}",
    )
