"""The report of a run: one HTML file that needs nothing else, for a supervisor to read."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medaug.results import external, subgroups
from medaug.results.numbers import share, with_interval
from medaug.results.report import facts
from medaug.results.report.answer import answer
from medaug.results.report.checklist import checklist
from medaug.results.report.curve_tables import write_curves
from medaug.results.report.evidence import Evidence
from medaug.results.report.facts import Table
from medaug.results.report.gallery import Drawn, draw_all
from medaug.results.report.row_figures import about_drawn
from medaug.results.report.versus import versus
from medaug.results.rows import UNRANKABLE, Leaderboard, Row
from medaug.results.table import explanation, gain_of, spoken
from medaug.spec.trial import configuration_title
from medaug.storage.files import write_whole
from medaug.storage.results import GenerateResult
from medaug.units import duration

REPORT = "report.html"

QUALITY = {
    "fd": "Fréchet distance",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "diversity": "diversity",
    "c2st": "C2ST accuracy",
    "tstr": "TSTR",
    "tstr_gaussian": "TSTR of a Gaussian",
    "near_copy_rate": "near copies",
    "membership_auc": "membership attack (AUC)",
    "kept": "kept by the filter",
}
"""Measures of generated rows and their names for people."""
FEW_DIMENSIONS = 5
"""Principal components of the Fréchet distance (one for ten real rows of the smallest class)."""
BESIDE = {"tstr": "trtr", "near_copy_rate": "near_copy_rate_heldout"}
"""What real rows score, where it is not called ``<measure>_null``."""


def write_report(folder: Path, remarks: Sequence[str] = ()) -> Path:
    """Write ``report.html`` of the run in ``folder``, and its figures under ``figures/``.

    Of an unfinished run it says what is missing. ``remarks``: what nothing vouches for, as whoever
    checked the run was told.

    Raises:
        UserError: there is no such run.
    """
    path, run = folder / REPORT, Evidence.of(folder)
    run = replace(run, board=replace(run.board, remarks=tuple(remarks)))
    write_whole(path, render_page(run).encode())
    write_curves(folder, run.board)
    return path


def render_page(run: Evidence) -> str:
    """The report as HTML; draws the run's figures on the way."""
    gallery = draw_all(run)
    slices = run.slices
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"image": _as_image}
    return environment.get_template("report.html").render(
        name=run.folder.name,
        study=run.study,
        signature=run.study.signature(),
        versions=facts.versions(),
        ended=facts.ended(run),
        question=facts.question(run.study),
        answer=answer(run.board),
        remarks=[facts.without_paths(remark) for remark in run.board.remarks],
        state=facts.state(run),
        failures=facts.failures(run),
        cohort=facts.cohort(slices) if slices else None,
        splits=facts.splits(slices) if slices else None,
        about_data=facts.about_data(run, slices) if slices else [],
        gallery=gallery,
        problems=[facts.without_paths(problem) for problem in gallery.problems],
        board=_board(run.board) if run.board.rows else None,
        explanation=explanation(run.board),
        external=[_external(record, run.board) for record in run.board.external],
        subgroups=_subgroups(run.board),
        quality=_quality(run.board),
        measured_on=_measured_on(run),
        drawn=about_drawn(run.board),
        versus=versus(run),
        protocol=_protocol(run),
        times=facts.time_spent(run),
        checklist=checklist(run),
        settings=yaml.safe_dump(facts.public(run.study.canonical()), sort_keys=False, width=96),
    )


def _as_image(figure: Drawn) -> str:
    """A data URI."""
    return f"data:image/png;base64,{base64.b64encode(figure.path.read_bytes()).decode()}"


def _board(board: Leaderboard) -> list[dict[str, Any]]:
    return [
        {
            "rank": row.rank or "–",
            "title": row.title,
            "synthetic": row.synthetic,
            "score": with_interval(row.mean, row.low, row.high),
            "gain": gain_of(row),
            "ending": row.ending,
            "worth": row.worth.text if row.worth else "",
            "recalls": [share(row.scores.get(f"recall/{name}")) for name in board.classes],
            "slices": share(row.scores.get("slice_balanced_accuracy")),
            "auroc": share(row.scores.get("auroc")),
            "mcc": share(row.scores.get("mcc")),
            "n": f"{row.replicates}/{row.expected}",
            "cost": duration(row.device_hours * 3600),
            "flags": spoken(row.flags),
        }
        for row in board.rows
    ]


def _external(record: Mapping[str, Any], board: Leaderboard) -> dict[str, Any]:
    """Another cohort: what it is, what is to be known of it, its rows."""
    header = ("configuration", "balanced accuracy", "gain over the reference", *board.classes)
    rows = [
        (row.title, row.score, row.gain, *row.recalls, row.before)
        for row in external.rows_of(record, board.classes)
    ]
    return {
        "heading": external.heading(record),
        "remarks": list(external.remarks(record)),
        "table": Table((*header, "cross-validated"), tuple(rows)),
    }


def _subgroups(board: Leaderboard) -> list[tuple[str, Table]]:
    """Covariate and table, each."""
    names = dict.fromkeys(group["covariate"] for group in board.subgroups)
    tables = ((name, subgroups.table_of(board, name)) for name in names)
    return [(name, Table(header, tuple(rows))) for name, (header, rows) in tables]


def _quality(board: Leaderboard) -> Table | None:
    """Measures of generated rows, each beside what real rows of other patients score."""
    makers: dict[tuple[Any, ...], Row] = {}
    for row in board.rows:  # rows that differ in number only share their generators
        if row.synthetic and row.quality:
            makers.setdefault((row.arm, *row.point.items(), row.train_rows), row)
    keys = [k for k in QUALITY if any(k in row.quality for row in makers.values())]
    if not keys:
        return None
    rows = []
    for row in makers.values():
        name = configuration_title(row.arm, row.point, train_rows=row.train_rows)
        rows.append((name, *(_beside(row, key) for key in keys)))
    return Table(("generator", *(QUALITY[key] for key in keys)), tuple(rows))


def _measured_on(run: Evidence) -> str:
    """On what numbers the generated rows were compared, and whether rows suffice for them."""
    made = [t.result for t in run.done("generate") if isinstance(t.result, GenerateResult)]
    names = sorted({result.extractor for result in made if result.extractor})
    scores = [result.scores for result in made if "fd_dimensions" in result.scores]
    if not names or not scores:
        return ""
    dimensions = [int(each["fd_dimensions"]) for each in scores]
    text = (
        f"Measured on {' and '.join(names)}; Fréchet distance in {min(dimensions)} to"
        f" {max(dimensions)} principal components, on {_range(scores, 'rows_train')} real and"
        f" {_range(scores, 'rows_fake')} generated rows."
    )
    if min(dimensions) < FEW_DIMENSIONS:
        text += (
            " Where rows are so few that hardly a dimension is left, distances say little: compare"
            " them with the numbers in brackets only."
        )
    return text


def _range(scores: Sequence[Mapping[str, float]], name: str) -> str:
    low, high = (int(pick(each.get(name, 0) for each in scores)) for pick in (min, max))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _beside(row: Row, key: str) -> str:
    value = row.quality.get(key, math.nan)
    real = row.quality.get(BESIDE.get(key, f"{key}_null"), math.nan)
    if not math.isfinite(value):
        return ""
    return _short(value) + (f"\n({_short(real)})" if math.isfinite(real) else "")


def _short(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def _protocol(run: Evidence) -> Sequence[str]:
    """The rules of the comparison, with this run's numbers."""
    study = run.study
    budgets = {(t.config.fold, t.classified.steps) for t in run.done("classify")}
    budgets = {(fold, n) for fold, n in budgets if n}  # those that are solved take none
    steps = sorted({n for _, n in budgets})
    real = [row.arm for row in run.board.rows if row.replicates and not row.synthetic]
    controls = list(dict.fromkeys(real))
    if study.protocol == "honest":
        rules = [
            "Validation patients inside each training fold choose epoch, threshold and filter; the"
            " scored patients choose nothing.",
            "U-Net, normalisation, scaling and generators are fitted inside the training fold.",
        ]
    else:
        rules = ["Protocol as_published: an arm with more rows takes more optimiser steps."]
        if not study.split.val_fraction:
            rules.append(
                "Protocol as_published: the scored patients also choose epoch and threshold, as in"
                " the paper. Its scores are too high for that alone."
            )
        seen = {flag for row in run.board.rows for flag in row.flags if "test patients" in flag}
        rules += [f"{flag.removeprefix(UNRANKABLE).capitalize()}." for flag in sorted(seen)]
    if steps:
        taken = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
        alike = len(budgets) == len({fold for fold, _ in budgets})
        same = ", the same for all arms of a fold" if alike else ", not the same for all arms"
        rules.append(f"Optimiser steps of each classifier: {taken}{same}.")
    rules.append(f"Arms without synthetic data that were scored: {', '.join(controls) or 'none'}.")
    seeds = ", ".join(map(str, study.sweep.seeds))
    rules.append(
        f"Replicates: seeds {seeds}, each on all {study.split.folds} folds. Seeds and draws are"
        " never taken for patients: intervals hold all of them."
    )
    rules.append(
        "Generators are never ranked by Fréchet distance or by their discriminator's accuracy."
    )
    return rules
