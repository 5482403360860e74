"""The ratio curve and the learning curve as CSV, for whoever draws them otherwise."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from medaug.results.judge import learning_curve
from medaug.results.rows import Leaderboard, Row
from medaug.storage.files import private_folder, write_whole

RATIO, LEARNING = "ratio.csv", "learning_curve.csv"
SCORE = ("balanced_accuracy", "low", "high")
RATIO_COLUMNS = (
    *("arm", "configuration", "classifier", "per_class", "train_rows", "rows_added", *SCORE),
    *("gain", "gain_low", "gain_high", "replicates", "rank"),
)
LEARNING_COLUMNS = ("classifier", "real_rows", "configuration", *SCORE, "replicates")


def write_curves(folder: Path, board: Leaderboard) -> None:
    """Write both beside the figures of the run in ``folder``; without a score they hold no line."""
    place = folder / "figures"
    private_folder(place)
    write_whole(place / RATIO, as_csv(RATIO_COLUMNS, ratio_table(board)))
    write_whole(place / LEARNING, as_csv(LEARNING_COLUMNS, learning_table(board)))


def ratio_table(board: Leaderboard) -> list[list[str]]:
    """Every scored configuration by arm, training-set size and rows added; no rows are 0."""
    rows = sorted(
        (row for row in board.rows if math.isfinite(row.mean)),
        key=lambda row: (row.arm, row.train_rows or math.inf, row.n_synthetic, row.title),
    )
    return [
        [
            *(row.arm, row.title, row.classifier, row.per_class),
            *("all" if row.train_rows is None else str(row.train_rows), str(row.n_synthetic)),
            *_numbers(row.mean, row.low, row.high, row.gain, row.gain_low, row.gain_high),
            *(str(row.replicates), "" if row.rank is None else str(row.rank)),
        ]
        for row in rows
    ]


def learning_table(board: Leaderboard) -> list[list[str]]:
    """Each classifier on real rows alone, by how many they are."""
    names = sorted({row.classifier for row in board.rows})
    curves: Iterable[tuple[str, int, Row]] = (
        (name, n, row) for name in names for n, row in learning_curve(board.rows, name).items()
    )
    return [
        [name, str(n), row.title, *_numbers(row.mean, row.low, row.high), str(row.replicates)]
        for name, n, row in curves
    ]


def _numbers(*values: float) -> list[str]:
    """Nothing where there is no number."""
    return [f"{value:.6g}" if math.isfinite(value) else "" for value in values]


def as_csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A table as the bytes of its file."""
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue().encode()
