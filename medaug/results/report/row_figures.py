"""Confusion, ROC and precision-recall of the leaderboard's rows, kept in ``figures/rows/<row>/``.

A figure takes about a third of a second, so the first rows of the board are drawn; a table says
which are and which are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from medaug.errors import MedaugError
from medaug.metrics.predictions import Predictions
from medaug.metrics.uncertainty import confusion_by_patient
from medaug.results.report.curve_tables import as_csv
from medaug.results.report.evidence import Evidence
from medaug.results.report.figures import Curves, classifier
from medaug.results.report.roc import GRID, bands, one_vs_rest
from medaug.results.report.trial_figures import has_figures, keep, replicated
from medaug.results.rows import Leaderboard, Row
from medaug.spec import ClassifyTrial, TrialConfig
from medaug.storage.files import private_folder, write_whole

MOST = 40
"""Rows of a board that are drawn: the first ones, which are the best."""
RESAMPLES = 200
FIGURE, CURVES, CONFUSION = "classifier.png", "curves.csv", "confusion.csv"
ROWS, INDEX = "rows", "rows.csv"


def row_folder(run_folder: Path, row: Row) -> Path:
    return run_folder / "figures" / ROWS / row.key


def count_figured(configs: Iterable[TrialConfig]) -> int:
    """How many of these trials, and of the rows that they make, are drawn once all are done."""
    configs = list(configs)
    rows = {each.configuration for each in configs if isinstance(each, ClassifyTrial)}
    return len({replicated(each) for each in configs if has_figures(each)}) + min(MOST, len(rows))


def drawn_rows(board: Leaderboard) -> list[Row]:
    """The rows that are drawn, in the order of the board."""
    return [row for row in board.rows if row.replicates][:MOST]


def about_drawn(board: Leaderboard) -> str:
    """For people: what is drawn beside the report, and what is not."""
    drawn, scored = len(drawn_rows(board)), sum(row.replicates > 0 for row in board.rows)
    which = f"all {scored} rows" if drawn == scored else f"the first {drawn} of {scored} rows"
    return (
        f"Beside this report, figures/{ROWS} holds confusion matrix, ROC and precision-recall curve"
        f" of {which}, with their points as CSV ({INDEX} says which is which). Of segmenters and"
        " generators, the first replicate of each configuration and fold is drawn; of classifiers,"
        " that of each fold of the reference and of the best row with synthetic data."
    )


def draw_rows(run: Evidence) -> Iterator[str]:
    """Draw each row of :func:`drawn_rows`, and those of its trials that have figures, unless that
    was done since its last trial ended; say what went wrong. An index says which rows are drawn."""
    drawn = drawn_rows(run.board)
    compared = [row for row in (run.reference, run.best) if row is not None]
    for row in drawn:
        try:
            _draw_row(run, row)
            if row in compared:
                _draw_folds(run, row)
        except MedaugError as error:
            yield f"curves of {row.title}: {error}"
    place = run.folder / "figures" / ROWS
    private_folder(place)
    keys = {row.key for row in drawn}
    lines = (
        [row.key, str(row.rank or ""), row.title, "yes" if row.key in keys else "no"]
        for row in run.board.rows
    )
    write_whole(place / INDEX, as_csv(("folder", "rank", "configuration", "drawn"), lines))


def _draw_row(run: Evidence, row: Row) -> None:
    folder = row_folder(run.folder, row)
    if _is_older(folder / FIGURE, max(trial.ended for trial in run.scored(row))):
        _draw(folder, run.predictions(row), run.classes, row.title)


def _draw_folds(run: Evidence, row: Row) -> None:
    """The first replicate of each fold. What ran in a bundle is no trial of its own."""
    latest_first = sorted(run.scored(row), key=lambda trial: trial.replicate, reverse=True)
    first = {trial.config.fold: trial for trial in latest_first}
    for trial in first.values():
        folder = run.folder / "figures" / trial.config.key
        if trial.member is None and _is_older(folder / FIGURE, trial.ended):
            title = f"{row.title}, fold {trial.config.fold}, seed {trial.config.seed}"
            _draw(folder, run.predictions(row, trial), run.classes, title)


def _is_older(path: Path, ended: float) -> bool:
    return not path.exists() or path.stat().st_mtime < ended


def _draw(folder: Path, table: Predictions, classes: tuple[str, ...], title: str) -> None:
    """Both tables, then the figure, whose age is asked for."""
    matrix = confusion_by_patient(table).sum(0).mean(0)
    found = dict.fromkeys(classes[1:], table)
    if len(classes) > 2:
        found = {name: one_vs_rest(table, k) for k, name in enumerate(classes)}
    curves: Curves = {
        name: (*bands(each, RESAMPLES), float(each.label.mean()))
        for name, each in found.items()
        if 0 < each.label.sum() < len(each)
    }
    private_folder(folder)
    cells = (
        [true, predicted, f"{matrix[i, j]:.6g}"]
        for i, true in enumerate(classes)
        for j, predicted in enumerate(classes)
    )
    write_whole(folder / CONFUSION, as_csv(("true", "predicted", "slices"), cells))
    header = ("curve", "class", "x", "mean", "low", "high")
    write_whole(folder / CURVES, as_csv(header, _points(curves)))
    keep(folder / FIGURE, classifier(matrix, curves, classes, title))


def _points(curves: Curves) -> Iterator[list[str]]:
    """x is the false positive rate of a ROC curve, the recall of the other."""
    for name, (roc, pr, _) in curves.items():
        for curve, band in (("roc", roc), ("precision_recall", pr)):
            for numbers in np.stack([GRID, band.mean, band.low, band.high], axis=1):
                yield [curve, name, *(f"{value:.6g}" for value in numbers)]
