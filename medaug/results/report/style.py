"""How all figures look: readable in print and in grey, and by the colour-blind.

Colours are Okabe and Ito's (2008); nothing is told by colour alone, lines differ in dash and
marker too. Figures are made without pyplot: no global state, no display.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

P = ParamSpec("P")
MaybeFigure = TypeVar("MaybeFigure", bound=Figure | None)

BLACK, GREY, LIGHT = "#000000", "#6b6b6b", "#d9d9d9"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")

WIDTH = 7.2
"""Inches: a page's text."""
DPI = 150
SEQUENTIAL = "cividis"
"""Monotone in lightness, so it survives grey print."""

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
}


def styled(draw: Callable[P, MaybeFigure]) -> Callable[P, MaybeFigure]:
    """Run a drawing function under the house style."""

    @functools.wraps(draw)
    def with_style(*args: P.args, **kwargs: P.kwargs) -> MaybeFigure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return with_style


def panels(
    columns: int, rows: int = 1, *, height: float, width: float = WIDTH, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of ``columns`` x ``rows`` axes, row by row; ``height`` in inches of one row."""
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share_y)
    return figure, list(axes.ravel())


def png(figure: Figure) -> bytes:
    """The figure as PNG. (``Figure.savefig`` would draw it twice.)"""
    buffer = io.BytesIO()
    figure.set_dpi(DPI)
    with matplotlib.rc_context(_STYLE):
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def whole_ticks(axis: Axes, values: Sequence[int]) -> None:
    """Ticks at exactly these x values, as many as have room, written in full."""
    step = math.ceil(len(values) / 8)
    shown = sorted(values)[::step]
    axis.set_xticks(shown, [f"{value:,}" for value in shown])
    axis.minorticks_off()
