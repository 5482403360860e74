"""Figures that show rows and masks themselves: pure functions from arrays to figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from medaug.results.report.style import BLACK, ORANGE, SEQUENTIAL, SKY, WIDTH, panels, styled

TILES = 25
"""Maps or images of a montage, as in study A's Figs. 9 and 10."""

HALO = [patheffects.withStroke(linewidth=2.2, foreground=BLACK)]
"""Behind outlines, so that they show on any grey."""


@dataclass(frozen=True)
class Overlay:
    """A slice with the truth and a prediction."""

    title: str
    image: np.ndarray
    """(S, S) raw intensities, or (S, S, 3) in colour."""
    true: np.ndarray
    """(S, S) bool."""
    predicted: np.ndarray
    """(S, S) bool."""

    @property
    def dice(self) -> float:
        """2 |A n B| / (|A| + |B|); NaN when both are empty."""
        both = 2 * np.logical_and(self.true, self.predicted).sum()
        total = self.true.sum() + self.predicted.sum()
        return float(both / total) if total else math.nan


@styled
def overlays(slices: Sequence[Overlay]) -> Figure:
    """Slices with the true outline of the tumour over what was predicted (study A, Fig. 7).

    The prediction is an area, not a second outline: that of a U-Net at its beginning is speckled.
    """
    columns = min(4, len(slices))
    rows = math.ceil(len(slices) / columns)
    figure, axes = panels(columns, rows, height=WIDTH / 4 + 0.35, width=WIDTH * columns / 4)
    for axis, item in zip(axes, slices, strict=False):
        low, top = np.percentile(item.image, [0.5, 99.5])
        axis.imshow(_on_screen(item.image, low, top), cmap="gray", vmin=low, vmax=_above(low, top))
        shown = np.ma.masked_where(~item.predicted, item.predicted)
        axis.imshow(shown, cmap=ListedColormap([ORANGE]), alpha=0.55, interpolation="nearest")
        _outline(axis, item.true, SKY)
        (top, bottom), (left, right) = _frame(item)
        axis.set(xlim=(left, right), ylim=(bottom, top))
        dice = "no tumour" if math.isnan(item.dice) else f"Dice {item.dice:.2f}"
        axis.set_title(f"{item.title}\n{dice}", fontweight="normal", fontsize=8)
    for axis in axes:
        axis.set_axis_off()
    legend = [
        Line2D([], [], color=SKY, label="true outline", path_effects=HALO),
        Patch(facecolor=ORANGE, alpha=0.55, label="predicted"),
    ]
    figure.legend(handles=legend, loc="outside lower left", ncols=2, handlelength=2.6)
    return figure


@styled
def montage(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], columns: tuple[str, str], *, images: bool
) -> Figure:
    """Real tiles (n, H, W) beside generated ones for each class, on the real ones' grey scale; or
    tiles (n, H, W, 3) in colour, on the real ones' range.

    ``columns`` names the two sides; ``images`` tells pictures from feature maps.
    """
    gap, title = 0.35, 0.3  # inches
    square = (WIDTH - gap) / 2
    height = len(pairs) * (square + title)
    # Placed by hand: a sweep has a montage for every generator, and a layout engine is slow.
    figure = Figure(figsize=(WIDTH, height))
    for down, (name, (real, made)) in enumerate(pairs.items()):
        low, high = np.percentile(real, [0.5, 99.5])
        bottom = 1 - (down + 1) * (square + title) / height
        for across, (tiles, side) in enumerate(zip((real, made), columns, strict=True)):
            place = (across * (square + gap) / WIDTH, bottom, square / WIDTH, square / height)
            axis = figure.add_axes(place, xticks=[], yticks=[])
            colours = "gray" if images else SEQUENTIAL
            picture = _on_screen(_mosaic(tiles), low, high)
            axis.imshow(picture, cmap=colours, vmin=low, vmax=_above(low, high))
            axis.set_title(f"{name}: {side}")
            axis.spines[:].set_visible(False)
    return figure


@styled
def made_tiles(tiles: Mapping[str, np.ndarray], title: str, *, images: bool) -> Figure:
    """Generated tiles (n, H, W), or (n, H, W, 3) in colour, of each class, all on one scale.

    ``images`` tells pictures from feature maps.
    """
    low, high = np.percentile(
        np.concatenate([each.ravel() for each in tiles.values()]), [0.5, 99.5]
    )
    columns = min(3, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    side = WIDTH / columns
    figure, axes = panels(columns, rows, height=side + 0.3)
    for axis, (name, mine) in zip(axes, tiles.items(), strict=False):
        picture = _on_screen(_mosaic(mine), low, high)
        colours = "gray" if images else SEQUENTIAL
        axis.imshow(picture, cmap=colours, vmin=low, vmax=_above(low, high))
        axis.set_title(name)
    for axis in axes:
        axis.set_axis_off()
    figure.suptitle(f"synthetic: {title}", fontsize=9)
    return figure


def _above(low: float, high: float) -> float:
    return max(high, low + 1e-6)


def _on_screen(picture: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colours from 0 to 1, white where there is nothing; grey as it is, matplotlib scales it."""
    if picture.ndim == 2:
        return picture
    return np.nan_to_num((picture - low) / (_above(low, high) - low), nan=1.0).clip(0, 1)


def strongest(maps: np.ndarray, n: int = TILES) -> np.ndarray:
    """The ``n`` channels of maps (C, H, W) that vary most, int64, the strongest first."""
    return np.argsort(-maps.reshape(len(maps), -1).std(1), kind="stable")[:n]


def _mosaic(tiles: np.ndarray) -> np.ndarray:
    """(n, H, W[, 3]) as one picture, near square, with a white line (NaN) between tiles."""
    n, height, width, *colours = tiles.shape
    side = math.ceil(math.sqrt(n))
    gap = max(1, round(height / 20))
    picture = np.full((-(-n // side) * (height + gap), side * (width + gap), *colours), np.nan)
    for place, tile in enumerate(tiles):
        y, x = place // side * (height + gap), place % side * (width + gap)
        picture[y : y + height, x : x + width] = tile
    return picture[:-gap, :-gap]


def _frame(item: Overlay) -> tuple[tuple[float, float], tuple[float, float]]:
    """Rows and columns, as (first, last), of a square that holds what is not air."""
    grey = item.image if item.image.ndim == 2 else item.image.mean(axis=-1)
    low, high = np.percentile(grey, [0.5, 99.5])
    shown = (grey > low + 0.1 * (high - low)) | item.true
    ranges = [np.flatnonzero(shown.any(axis)) for axis in (1, 0)]
    if not shown.any():
        return (-0.5, len(shown) - 0.5), (-0.5, shown.shape[1] - 0.5)
    side = max(len(shown) // 2, *(found[-1] - found[0] + 1 for found in ranges)) * 1.06
    middles = [(found[0] + found[-1]) / 2 for found in ranges]
    (y, x) = ((middle - side / 2, middle + side / 2) for middle in middles)
    return y, x


def _outline(axis: Axes, mask: np.ndarray, colour: str) -> None:
    if mask.any() and not mask.all():
        drawn = axis.contour(mask.astype(float), [0.5], colors=[colour])
        drawn.set(linewidth=1.1, path_effects=HALO)
