"""What a study's numbers look like: pure functions from data to figures.

Intervals and bands are 95 %, resampled over patients and seeds together, as everywhere.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medaug.results.report.roc import GRID, Band
from medaug.results.report.style import (
    BLACK,
    BLUE,
    CYCLE,
    DASHES,
    GREY,
    LIGHT,
    MARKERS,
    VERMILION,
    panels,
    styled,
    whole_ticks,
)
from medaug.results.rows import CHANCE, COLLAPSE, POSITIVE, REFERENCE, Leaderboard, Row
from medaug.spec.per_class import UNIFORM

Curves = Mapping[str, tuple[Band, Band, float]]
"""By class that is to be found: ROC, precision-recall, and its share of the rows."""

MOST_ROWS = 40
MOST_BANDS = 3
"""More lines than this in one panel are drawn without their bands, which would hide each other."""


@styled
def confusion(matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Confusion matrices (K, K), true classes down: counts, and shares of each true class."""
    figure, axes = panels(len(matrices), height=2.9, width=3.4 * len(matrices))
    for axis, (name, matrix) in zip(axes, matrices.items(), strict=True):
        _matrix(axis, matrix, classes)
        axis.set_title(name)
    return figure


def _matrix(axis: Axes, matrix: np.ndarray, classes: Sequence[str]) -> None:
    """From six classes on the cells have room for shares only, and names are turned."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1e-12)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    many = len(classes) > 5
    for (i, j), count in np.ndenumerate(matrix):
        colour = "white" if shares[i, j] > 0.55 else BLACK
        number = f"{count:,.0f}" if float(count).is_integer() else f"{count:,.1f}"
        text = f"{shares[i, j]:.0%}" if many else f"{number}\n({shares[i, j]:.0%})"
        size = 9 if len(classes) < 4 else 6.5
        axis.text(j, i, text, ha="center", va="center", color=colour, fontsize=size)
    axis.set_xticks(range(matrix.shape[1]), classes[: matrix.shape[1]], rotation=90 if many else 0)
    axis.set_yticks(range(len(classes)), classes, rotation=0 if many else 90, va="center")
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


@styled
def classifier(matrix: np.ndarray, curves: Curves, classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix (K, K), ROC and precision-recall curves of one configuration, of each class
    in ``curves`` against all others."""
    figure, (left, middle, right) = panels(3, height=3.9, width=10.2)
    _matrix(left, matrix, classes)
    left.set_title("Slices, mean over replicates")
    middle.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    for place, (name, (roc_curve, pr_curve, share)) in enumerate(curves.items()):
        colour = CYCLE[place % len(CYCLE)]
        dash = DASHES[(place + place // len(CYCLE)) % len(DASHES)]
        ends = ((middle, roc_curve, "AUROC"), (right, pr_curve, "AP"))
        for axis, curve, area in ends:
            if len(curves) <= MOST_BANDS:
                axis.fill_between(GRID, curve.low, curve.high, color=colour, alpha=0.18, lw=0)
            label = f"{name}: {area} {curve.area:.3f}"
            axis.plot(GRID, curve.mean, color=colour, ls=dash, label=label)
        right.axhline(share, color=colour if len(curves) > 1 else GREY, lw=0.8, ls=":")
    middle.set_title("ROC")
    middle.set(xlabel="false positive rate", ylabel="true positive rate")
    right.set_title("Precision-recall (dotted: chance)")
    right.set(xlabel="recall", ylabel="precision")
    for axis in (middle, right):
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    if curves:
        about: Any = {"handlelength": 2.6, "fontsize": 7, "frameon": True, "edgecolor": "none"}
        middle.legend(loc="lower right", **about)
        right.legend(loc="lower left", **about)
    figure.suptitle(textwrap.fill(title, 110), x=0.01, ha="left", fontsize=10)
    return figure


@styled
def roc(curves: Mapping[str, Band], positive: str) -> Figure:
    """ROC curves of a few configurations with their bands."""
    figure, (axis,) = panels(1, height=4.0, width=4.6)
    axis.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    axis.annotate("chance", (0.62, 0.57), color=GREY, rotation=45, ha="center", fontsize=7.5)
    for (name, curve), colour, dash in zip(curves.items(), CYCLE, DASHES, strict=False):
        axis.fill_between(GRID, curve.low, curve.high, color=colour, alpha=0.18, lw=0)
        label = f"{name}\nAUROC {curve.area:.3f}"
        axis.plot(GRID, curve.mean, color=colour, ls=dash, label=label)
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axis.set_xlabel("false positive rate")
    axis.set_ylabel(f"true positive rate ({positive} found)")
    axis.legend(loc="lower right", handlelength=2.6)
    return figure


@styled
def response(board: Leaderboard, axis_of: str) -> Figure | None:
    """Balanced accuracy by ``n_synthetic`` or ``train_rows``, one panel an arm, with bands.

    The arm 'none' is the grey band behind. None where the axis has a single value.
    """
    rows = [row for row in board.rows if math.isfinite(row.mean)]
    own = {row.classifier for row in rows if row.synthetic}  # not the linear models beside them
    rows = [row for row in rows if not own or row.classifier in own]
    if axis_of == "n_synthetic":  # with several training-set sizes: the curve of the largest
        sizes = [math.inf if row.train_rows is None else row.train_rows for row in rows]
        largest = max(sizes, default=0)
        rows = [row for row, size in zip(rows, sizes, strict=True) if size == largest]
    added = [row for row in rows if row.n_synthetic]
    values = sorted({_at(row, axis_of) for row in added})
    arms = list(dict.fromkeys(row.arm for row in sorted(added, key=lambda row: row.synthetic)))
    if len(values) < 2:
        return None
    columns = 2 if len(arms) in (2, 4) else min(3, len(arms))
    figure, axes = panels(columns, math.ceil(len(arms) / columns), height=2.3, share_y=True)
    unaugmented = [row for row in rows if row.kind == "none"]
    for place, (axis, arm) in enumerate(zip(axes, arms, strict=False)):
        _backdrop(axis, unaugmented, axis_of, values, 1 / len(board.classes))
        _arm_lines(axis, [row for row in rows if row.arm == arm], axis_of)
        kind = next(row for row in rows if row.arm == arm)
        axis.set_title(arm if kind.synthetic else f"{arm} (no synthetic data)")
        axis.set_xscale("log")
        axis.set_xlim(values[0] / 1.15, values[-1] * 1.15)
        whole_ticks(axis, values)
        axis.set_xlabel("rows added" if axis_of == "n_synthetic" else "real training rows")
        if place % columns == 0:
            axis.set_ylabel("balanced accuracy")
    for axis in axes[len(arms) :]:
        axis.remove()
    return figure


@styled
def forest(board: Leaderboard) -> Figure | None:
    """The leaderboard's gains with their intervals, best first, and what is said of each row."""
    rows = [row for row in board.rows if math.isfinite(row.mean)][:MOST_ROWS]
    if not any(math.isfinite(row.gain) for row in rows):
        return None
    figure, (axis,) = panels(1, height=0.29 * len(rows) + 1.0)
    axis.axvline(0, color=GREY, lw=0.9)
    finite = [
        bound
        for row in rows
        for bound in (row.gain_low, row.gain_high, 0.0)
        if math.isfinite(bound)
    ]
    for y, row in enumerate(rows):
        colour, marker = (BLUE, "o") if row.synthetic else (VERMILION, "s")
        if y % 2:
            axis.axhspan(y - 0.5, y + 0.5, color="#f4f4f4", lw=0)
        if REFERENCE in row.flags:
            axis.plot(0, y, marker="D", color=BLACK, ms=5)
        elif math.isfinite(row.gain):
            axis.plot([row.gain_low, row.gain_high], [y, y], color=colour, lw=1.6)
            face = colour if row.synthetic else "white"
            axis.plot(row.gain, y, marker=marker, mfc=face, mec=colour, ms=5.5)
        beside = axis.get_yaxis_transform()
        axis.text(1.01, y, _said(row), transform=beside, va="center", fontsize=6.5)
    names = [f"{row.rank or '–'}.  {row.title}" for row in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=7.5)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    reach = max(map(abs, finite)) * 1.08 or 0.1
    axis.set_xlim(-reach, reach)
    label = "gain in balanced accuracy over the best configuration without synthetic data"
    if any(POSITIVE in row.flags for row in rows):
        label += "\n(positive controls: over their own classifier without added rows)"
    axis.set_xlabel(label)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    return figure


def _said(row: Row) -> str:
    """What the interval does not show by itself, over two lines at most."""
    said = [flag for flag in (REFERENCE, CHANCE, COLLAPSE) if flag in row.flags]
    apart = POSITIVE if POSITIVE in row.flags else "not rankable"
    said = ([apart] if row.rank is None else []) + said
    return ",\n".join([", ".join(said[:-1]), said[-1]]) if len(said) > 1 else "".join(said)


def _backdrop(
    axis: Axes, rows: Sequence[Row], axis_of: str, values: Sequence[int], chance: float
) -> None:
    """The arm 'none' and the chance line."""
    axis.axhline(chance, color=GREY, lw=0.8, ls=":")
    axis.annotate(
        "chance", (1, chance), xycoords=("axes fraction", "data"), color=GREY, fontsize=7,
        ha="right", va="bottom",
    )  # fmt: skip
    if axis_of == "n_synthetic":
        for row in rows[:1]:
            axis.axhspan(row.low, row.high, color=LIGHT, lw=0)
            axis.axhline(row.mean, color=GREY, lw=1.2)
            axis.annotate(
                "none", (0, row.low), xycoords=("axes fraction", "data"), color=GREY, fontsize=7,
                ha="left", va="bottom", xytext=(2, 1), textcoords="offset points",
            )  # fmt: skip
        return
    rows = sorted(rows, key=lambda row: _at(row, axis_of))
    x = [_at(row, axis_of) for row in rows]
    axis.fill_between(x, [r.low for r in rows], [r.high for r in rows], color=LIGHT, lw=0)
    axis.plot(x, [row.mean for row in rows], color=GREY, lw=1.2, label="none")


def _at(row: Row, axis_of: str) -> int:
    """Where the row stands on the axis; all real rows are as many as there were."""
    if axis_of == "n_synthetic":
        return row.n_synthetic
    return row.train_rows or row.real_rows or 0


def _arm_lines(axis: Axes, rows: Sequence[Row], axis_of: str) -> None:
    """One line for each point of the arm's grid and each way of sharing rows out (and each number
    of rows, along sizes)."""
    lines: dict[str, list[Row]] = {}
    several = any(row.per_class != UNIFORM for row in rows)
    for row in rows:
        parts = [f"{key}={value}" for key, value in row.point.items()]
        parts += [f"by {row.classifier}"] if row.classifier else []
        parts += [row.added] if axis_of == "train_rows" else []
        parts += [row.per_class] if several and axis_of == "n_synthetic" else []
        lines.setdefault(" ".join(parts), []).append(row)
    for place, (name, line) in enumerate(sorted(lines.items())):
        line.sort(key=lambda row: _at(row, axis_of))
        x = [_at(row, axis_of) for row in line]
        colour = CYCLE[place % len(CYCLE)]
        if len(lines) <= MOST_BANDS:
            low, high = [row.low for row in line], [row.high for row in line]
            band = axis.fill_between(x, low, high, facecolor=(colour, 0.18), lw=0.6)
            band.set_edgecolor((colour, 0.6))
        axis.plot(
            x,
            [row.mean for row in line],
            color=colour,
            ls=DASHES[place % len(DASHES)],
            marker=MARKERS[place % len(MARKERS)],
            label=name or None,
        )
    if any(lines):
        axis.legend(loc="best", fontsize=7, handlelength=2.8)
