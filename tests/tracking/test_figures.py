"""Figures show the numbers that they were given."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from medaug.metrics.predictions import Predictions
from medaug.results.report.curve_tables import write_curves
from medaug.results.report.curves import gan_curves, segmenter_curves
from medaug.results.report.figures import classifier, confusion, forest, response, roc
from medaug.results.report.pictures import Overlay, montage, overlays, strongest
from medaug.results.report.roc import GRID, bands, one_vs_rest, roc_band
from medaug.results.report.style import CYCLE, DPI, png
from medaug.results.rows import Leaderboard, Row
from tests.tracking.made_runs import gan_history
from tests.tracking.test_table import NONE, ROW


def row(arm: str, n: int, gain: float, **changes: object) -> Row:
    fields = {
        "arm": arm,
        "kind": arm,
        "synthetic": arm not in ("duplicate", "classical"),
        "point": {},
        "n_synthetic": n,
        "train_rows": None,
        "mean": 0.7 + gain,
        "low": 0.6 + gain,
        "high": 0.8 + gain,
        "gain": gain,
        "gain_low": gain - 0.05,
        "gain_high": gain + 0.05,
        "flags": (),
        "rank": None,
    }
    return replace(ROW, **{**fields, **changes})  # type: ignore[arg-type]


BOARD = Leaderboard(
    "demo",
    "honest",
    ("LGG", "HGG"),
    (
        row("acgan", 300, 0.1),
        replace(NONE, kind="none", mean=0.7, low=0.6, high=0.8),
        row("acgan", 100, 0.02),
        row("duplicate", 300, -0.01),
        row("duplicate", 100, -0.02),
        row("smote", 100, math.nan, mean=math.nan),
    ),
    tried=6,
)


def test_the_forest_shows_every_gain_within_its_frame() -> None:
    figure = forest(BOARD)
    assert figure is not None
    (axis,) = figure.axes
    assert [tick.get_text().split(".  ")[1] for tick in axis.get_yticklabels()] == [
        row.title for row in BOARD.rows[:-1]
    ]  # what has no score is not drawn
    intervals = {
        tuple(np.round(line.get_xdata(), 6))
        for line in axis.lines
        if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"
    }
    for shown in (BOARD.rows[0], BOARD.rows[2], BOARD.rows[3]):
        assert (round(shown.gain_low, 6), round(shown.gain_high, 6)) in intervals
    left, right = axis.get_xlim()
    assert left < -0.07
    assert right > 0.15
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the best row is on top


def test_nothing_to_compare_gives_no_forest() -> None:
    unpaired = tuple(replace(r, gain=math.nan, gain_low=math.nan) for r in BOARD.rows)
    assert forest(replace(BOARD, rows=unpaired)) is None


def test_the_ratio_curve_has_a_panel_for_each_arm_with_none_behind() -> None:
    figure = response(BOARD, "n_synthetic")
    assert figure is not None
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["duplicate (no synthetic data)", "acgan"]
    line = next(line for line in figure.axes[1].lines if line.get_marker() == "o")
    np.testing.assert_allclose(line.get_xydata(), [[100, 0.72], [300, 0.8]])
    bands = [collection.get_paths()[0].get_extents() for collection in figure.axes[1].collections]
    assert any((band.y0, band.y1) == pytest.approx((0.62, 0.9)) for band in bands)
    behind = [patch for patch in figure.axes[1].patches if patch.get_height() == pytest.approx(0.2)]
    assert behind[0].get_y() == pytest.approx(0.6)
    assert response(BOARD, "train_rows") is None


def test_the_curves_are_numbers_too(tmp_path: Path) -> None:
    rows = [
        row("none", 0, 0.0, real_rows=40, train_rows=40, classifier="probe", low=math.nan),
        row("none", 0, 0.1, real_rows=160, train_rows=160, classifier="probe"),
        row("acgan", 300, 0.2, train_rows=40, classifier="probe", per_class="rare_only"),
        row("acgan", 100, 0.1, train_rows=40, classifier="probe", rank=2),
        row("smote", 100, math.nan, mean=math.nan),
    ]
    whole = [replace(each, replicates=9, expected=9) for each in rows]
    write_curves(tmp_path, replace(BOARD, rows=tuple(whole)))
    with (tmp_path / "figures" / "ratio.csv").open(newline="") as file:
        ratio = list(csv.DictReader(file))
    assert [line["configuration"] for line in ratio] == [
        "acgan +100 of 40 by probe", "acgan +300 rare_only of 40 by probe",
        "none of 40 by probe", "none of 160 by probe",
    ]  # fmt: skip
    assert (ratio[0]["rows_added"], ratio[0]["balanced_accuracy"]) == ("100", "0.8")
    assert (ratio[0]["gain"], ratio[0]["gain_low"], ratio[0]["rank"]) == ("0.1", "0.05", "2")
    assert (ratio[1]["per_class"], ratio[1]["rank"], ratio[2]["low"]) == ("rare_only", "", "")
    with (tmp_path / "figures" / "learning_curve.csv").open(newline="") as file:
        curve = list(csv.DictReader(file))
    assert [(line["real_rows"], line["balanced_accuracy"]) for line in curve] == [
        ("40", "0.7"), ("160", "0.8"),
    ]  # fmt: skip
    assert {line["classifier"] for line in curve} == {"probe"}


def test_sizes_are_an_axis_of_their_own() -> None:
    rows = [
        row(arm, n, gain, train_rows=size, kind=arm)
        for size, gain in ((40, 0.0), (160, 0.1))
        for arm, n in (("none", 0), ("acgan", 100), ("acgan", 300))
    ]
    figure = response(replace(BOARD, rows=tuple(rows)), "train_rows")
    assert figure is not None
    (axis,) = figure.axes
    assert axis.get_xlabel() == "real training rows"
    assert axis.get_legend() is not None
    labels = {text.get_text() for text in axis.get_legend().get_texts()}
    assert labels == {"none", "+100", "+300"}


def test_whom_to_add_is_a_line_of_its_own() -> None:
    rows = [
        row("acgan", n, gain, per_class=way)
        for way, gain in (("uniform", 0.0), ("rare_only", 0.1))
        for n in (100, 300)
    ]
    for axis_of, labels in (
        ("n_synthetic", {"uniform", "rare_only"}),
        ("train_rows", {"none", "+100", "+300", "+100 rare_only", "+300 rare_only"}),
    ):
        both = [replace(r, train_rows=n) for r in rows for n in (40, 160)]
        board = replace(BOARD, rows=tuple(rows if axis_of == "n_synthetic" else both))
        figure = response(board, axis_of)
        assert figure is not None
        legend = figure.axes[0].get_legend()
        assert legend is not None
        assert {text.get_text() for text in legend.get_texts()} == labels


def test_lines_of_a_panel_differ_by_more_than_colour() -> None:
    widths = tuple(
        row("acgan", n, 0.01 * w, point={"ngf": 2**w}) for n in (100, 300) for w in range(6)
    )
    figure = response(replace(BOARD, rows=widths), "n_synthetic")
    assert figure is not None
    lines = [line for line in figure.axes[0].lines if line.get_label().startswith("ngf")]
    assert len(lines) == 6
    looks = [(str(line.get_linestyle()), line.get_dashes(), line.get_marker())  # type: ignore[attr-defined]
             if hasattr(line, "get_dashes") else (line.get_linestyle(), line.get_marker())
             for line in lines]  # fmt: skip
    assert len(set(map(str, looks))) == 6
    assert not figure.axes[0].collections  # six bands would hide each other


def test_colours_can_be_told_apart_without_red_and_green_cones() -> None:
    """Deuteranopia as Machado et al. 2009 simulate it."""
    cones = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    colours = np.array([matplotlib.colors.to_rgb(colour) for colour in CYCLE]) @ cones.T
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 0.15


def test_a_confusion_matrix_shows_counts_and_shares() -> None:
    matrices = {"ours": np.array([[30.0, 10.0], [5.5, 14.5]])}
    (axis,) = confusion(matrices, ("LGG", "HGG")).axes
    texts = {text.get_text() for text in axis.texts}
    assert texts == {"30\n(75%)", "10\n(25%)", "5.5\n(28%)", "14.5\n(72%)"}
    assert [label.get_text() for label in axis.get_xticklabels()] == ["LGG", "HGG"]


def predictions(n_patients: int, signal: float, *, folds: int = 1, seeds: int = 1) -> Predictions:
    tables = []
    for fold in range(folds):
        for seed in range(seeds):
            rng = np.random.default_rng([fold, seed])
            label = np.arange(n_patients).repeat(4) % 2
            logit = signal * (2 * label - 1) + rng.standard_normal(len(label))
            patient = [f"f{fold}-{i}" for i in np.arange(n_patients).repeat(4)]
            p = 1 / (1 + np.exp(-logit))
            tables.append(Predictions.of_trial(patient, label, p, seed=seed, fold=fold))
    return Predictions.concat(tables)


def test_a_roc_curve_equals_scikit_learns() -> None:
    table = predictions(30, 0.7)
    band = roc_band(table)
    x, y, _ = roc_curve(table.label, table.probability, drop_intermediate=False)
    np.testing.assert_allclose(band.mean, np.interp(GRID, x, y))
    assert band.area == pytest.approx(roc_auc_score(table.label, table.probability))
    assert (band.low <= band.mean + 1e-9).all()
    assert (band.mean <= band.high + 1e-9).all()


def test_a_precision_recall_curve_equals_scikit_learns() -> None:
    table = predictions(30, 0.7)
    _, band = bands(table, 50)
    precision, recall, _ = precision_recall_curve(table.label, table.probability)
    at = [precision[:-1][recall[:-1] >= r - 1e-9].max() for r in GRID]
    first = [precision[:-1][np.flatnonzero(recall[:-1] >= r - 1e-9)[-1]] for r in GRID]
    np.testing.assert_allclose(band.mean[1:], first[1:])
    assert (band.mean <= np.array(at) + 1e-9).all()
    assert band.area == pytest.approx(average_precision_score(table.label, table.probability))
    assert (band.low <= band.mean + 1e-9).all()
    assert (band.mean <= band.high + 1e-9).all()


def test_of_three_classes_each_is_found_against_the_others() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(60).repeat(3) % 3
    p = rng.dirichlet([1, 1, 1], len(label)) * 0.5 + np.eye(3)[label] * 0.5
    patient = [f"p{i}" for i in np.arange(60).repeat(3)]
    table = Predictions.of_trial(patient, label, p, seed=0, fold=0, n_classes=3)
    curves = {}
    for k, name in enumerate("abc"):
        binary = one_vs_rest(table, k)
        curves[name] = (*bands(binary, 20), 1 / 3)
        assert curves[name][0].area == pytest.approx(roc_auc_score(label == k, p[:, k]))
    matrix = np.bincount(3 * label + p.argmax(1), minlength=9).reshape(3, 3)
    figure = classifier(matrix.astype(float), curves, tuple("abc"), "none")
    _, roc_axis, pr_axis = figure.axes
    for axis in (roc_axis, pr_axis):
        legend = axis.get_legend()
        assert legend is not None
        assert len(legend.get_texts()) == 3


def test_a_roc_band_knows_no_skill_and_full_skill() -> None:
    blind = roc_band(predictions(60, 0.0, folds=2, seeds=3))
    assert (blind.low[10:-10] < GRID[10:-10]).all()
    assert (blind.high[10:-10] > GRID[10:-10]).all()
    perfect = roc_band(predictions(20, 50.0, folds=2))
    np.testing.assert_allclose(perfect.low, 1)
    few, many = roc_band(predictions(10, 0.7)), roc_band(predictions(160, 0.7))
    assert (few.high - few.low).mean() > 2 * (many.high - many.low).mean()
    figure = roc({"none": blind, "acgan": perfect}, "HGG")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][1] == "acgan\nAUROC 1.000"


def test_gan_curves_show_what_there_is() -> None:
    history = dict(enumerate(gan_history(), start=1))
    figure = gan_curves(history)
    assert figure is not None
    assert [axis.get_ylabel().split()[0] for axis in figure.axes] == [
        "loss",
        "accuracy",
        "probability",
        "Fréchet",
    ]
    d_loss = figure.axes[0].lines[0]
    np.testing.assert_allclose(d_loss.get_ydata(), [m["train/d_loss"] for m in history.values()])
    assert figure.axes[3].lines[0].get_xdata().tolist() == [5, 10, 15, 20]

    flow = {epoch: {"train/loss": 1 / epoch} for epoch in range(1, 6)}
    figure = gan_curves(flow)
    assert figure is not None
    assert len(figure.axes) == 1
    assert gan_curves({}) is None
    assert gan_curves({1: {"fd": 3.0}}) is None


def test_segmenter_curves_have_a_line_for_each_fold() -> None:
    history = {epoch: {"train/loss": 1 / epoch, "val/iou": 0.1 * epoch} for epoch in (1, 2, 3)}
    figure = segmenter_curves({"fold 0": history, "fold 1": history, "fold 2": {}})
    assert figure is not None
    assert [len(axis.lines) for axis in figure.axes] == [2, 2]
    assert segmenter_curves({"fold 0": {}}) is None


def test_an_overlay_names_its_dice() -> None:
    true, predicted = np.zeros((2, 16, 16), bool)
    true[4:8, 4:8] = True
    predicted[6:10, 4:8] = True
    half = Overlay("HGG, slice 3", np.ones((16, 16)), true, predicted)
    assert half.dice == pytest.approx(2 * 8 / 32)
    assert math.isnan(Overlay("", np.ones((16, 16)), true & False, true & False).dice)
    axis, *_ = overlays([half]).axes
    assert axis.get_title(loc="left") == "HGG, slice 3\nDice 0.50"
    (outline,) = axis.collections
    edges = np.concatenate([path.vertices for path in outline.get_paths()])
    assert (edges.min(0).tolist(), edges.max(0).tolist()) == ([3.5, 3.5], [7.5, 7.5])
    _, area = axis.images
    np.testing.assert_array_equal(~np.ma.getmaskarray(area.get_array()), predicted)


def test_a_montage_puts_both_sides_on_the_real_ones_scale() -> None:
    real = np.arange(25.0)[:, None, None] * np.ones((25, 8, 8))
    figure = montage({"HGG": (real, real * 100)}, ("real", "acgan"), images=True)
    ours, theirs = (axis.images[0] for axis in figure.axes)
    assert ours.get_clim() == theirs.get_clim()
    mosaic = np.asarray(ours.get_array())
    assert mosaic.shape == (5 * 8 + 4, 5 * 8 + 4)
    assert mosaic[0, 0] == 0
    assert mosaic[0, 9] == 1
    assert mosaic[9, 0] == 5
    assert np.ma.getmaskarray(ours.get_array())[8, 0] or np.isnan(mosaic[8, 0])


def test_the_channels_shown_are_those_that_vary_most() -> None:
    maps = np.zeros((40, 4, 4))
    maps[7, 0], maps[31, 0] = 2.0, 5.0
    assert strongest(maps, 2).tolist() == [31, 7]


def test_drawing_leaves_no_trace() -> None:
    before = dict(matplotlib.rcParams)
    figure = forest(BOARD)
    assert figure is not None
    data = png(figure)
    assert dict(matplotlib.rcParams) == before
    assert data.startswith(b"\x89PNG")
    width = int.from_bytes(data[16:20], "big")
    assert width == pytest.approx(7.2 * DPI, abs=2)
    again = forest(BOARD)
    assert again is not None
    assert png(again) == data
