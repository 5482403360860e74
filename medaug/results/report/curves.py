"""Training curves: pure functions from the metrics of epochs to figures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medaug.results.report.style import CYCLE, DASHES, MARKERS, panels, styled

History = Mapping[int, Mapping[str, float]]
"""Epoch (from 1) -> metrics."""

Line = tuple[list[int], list[float]]
"""Epochs and values."""

LABEL_WIDTH = 22

GAN_PANELS = (
    (
        "loss",
        {"train/d_loss": "discriminator", "train/g_loss": "generator", "train/loss": "model"},
    ),
    (
        "accuracy of the class head",
        {"train/class_acc_real": "on real rows", "train/class_acc_fake": "on generated rows"},
    ),
    (
        "probability of being real",
        {"train/d_real": "of real rows", "train/d_fake": "of generated rows"},
    ),
    ("Fréchet distance to validation rows", {"val/fd": "generated rows"}),
)
"""Label of a panel's y axis, and its lines by metric."""

SEGMENTER_PANELS = {
    "train/loss": "soft Dice loss, training",
    "val/loss": "soft Dice loss, validation",
    "val/iou": "IoU, validation",
    "val/dice_tumour": "Dice on tumour slices, validation",
}


@styled
def gan_curves(history: History, title: str = "") -> Figure | None:
    """Losses and class accuracy of both players by epoch (study A, Fig. 11), and the probe's
    distance to validation rows; None where no epoch has any of them."""
    found = [(label, lines) for label, keys in GAN_PANELS if (lines := _found(keys, history))]
    if not found:
        return None
    figure, axes = panels(min(2, len(found)), math.ceil(len(found) / 2), height=2.3)
    for axis, (label, lines) in zip(axes, found, strict=False):
        _curves(axis, lines)
        axis.set_ylabel(textwrap.fill(label, LABEL_WIDTH))
        if "accuracy" in label or "probability" in label:
            axis.set_ylim(-0.03, 1.03)
    for axis in axes[len(found) :]:
        axis.remove()
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure


@styled
def segmenter_curves(histories: Mapping[str, History]) -> Figure | None:
    """Loss and validation overlap of the U-Nets by epoch, one line each; None without any."""
    histories = {name: history for name, history in histories.items() if history}
    shown = [
        k for k in SEGMENTER_PANELS if any(k in m for h in histories.values() for m in h.values())
    ]
    if not shown:
        return None
    figure, axes = panels(2, math.ceil(len(shown) / 2), height=2.2)
    for axis, key in zip(axes, shown, strict=False):
        lines = {name: _series(history, key) for name, history in histories.items()}
        _curves(axis, lines, legend=axis is axes[0])
        axis.set_ylabel(textwrap.fill(SEGMENTER_PANELS[key], LABEL_WIDTH))
        axis.set_ylim(-0.03, 1.03)
    for axis in axes[len(shown) :]:
        axis.remove()
    return figure


def _series(history: History, key: str) -> Line:
    epochs = [epoch for epoch, metrics in history.items() if key in metrics]
    return epochs, [history[epoch][key] for epoch in epochs]


def _found(keys: Mapping[str, str], history: History) -> dict[str, Line]:
    lines = {name: _series(history, key) for key, name in keys.items()}
    return {name: line for name, line in lines.items() if len(line[0]) > 1}


def _curves(axis: Axes, lines: Mapping[str, Line], *, legend: bool = True) -> None:
    for place, (name, (x, y)) in enumerate(lines.items()):
        axis.plot(
            x,
            y,
            color=CYCLE[place % len(CYCLE)],
            ls=DASHES[place % len(DASHES)],
            marker=MARKERS[place % len(MARKERS)] if len(x) <= 12 else None,
            label=name,
        )
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if legend and len(lines) > 1:
        axis.legend(loc="best", handlelength=2.6)
