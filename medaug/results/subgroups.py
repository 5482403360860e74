"""Scores of the patients who share a covariate: recalls and gains, with intervals.

What a study keeps of its patients besides their class (``data.covariates``) divides them: by its
values, or where these are numbers into halves or thirds of the patients. A group of fewer than
:data:`FEWEST` patients has a count and no scores. A subgroup that was looked for among many stands
out by chance more often than its interval says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from medaug.data.canonical import is_blank
from medaug.errors import UserError
from medaug.metrics.board import Board, Contrast
from medaug.metrics.hits import Hits
from medaug.results.numbers import with_interval
from medaug.results.records import slices_of
from medaug.results.rows import Leaderboard, Row
from medaug.spec import StudySpec

FEWEST = 10
"""Patients of a group that is scored."""
NAMED = 5
"""Patients of a group whose value is shown: of fewer, it may say who they are."""
FEW_VALUES = 6
"""Numbers of so many different values are groups of their own, as ``0`` and ``1`` are."""
FOR_THIRDS = 60
"""Patients who are divided into thirds; fewer, into halves."""
NOT_TOLD, OTHERS = "not told", "other values"

Cells = Mapping[str, Mapping[str, str]]
"""Pseudonym -> column -> cell, as a slice store keeps them."""


@dataclass(frozen=True)
class Group:
    """Patients who share a covariate."""

    covariate: str
    name: str
    patients: frozenset[str]


def cells_of(folder: Path, study: StudySpec) -> Cells:
    """What the slice store of the run in ``folder`` keeps of the covariates that its study names;
    nothing where it names none, or the store is gone."""
    if not study.data.covariates:
        return {}
    from medaug.storage.artifacts import Artifacts  # loads torch, which no board needs otherwise

    artifacts = Artifacts(folder.parent)
    try:
        name = slices_of(folder)
    except UserError:
        return {}
    if not artifacts.has_store(name):
        return {}
    kept: Cells = artifacts.open_store(name).manifest["extra"].get("covariates", {})
    return kept


def groups_of(cells: Cells, patients: Sequence[str], columns: Sequence[str]) -> Iterator[Group]:
    """``patients`` divided by each of ``columns``; each of them is in one group a column."""
    for column in columns:
        told = {name: cells.get(name, {}).get(column, "") for name in patients}
        known = {name: cell for name, cell in told.items() if not is_blank(cell)}
        numbers = {name: n for name, cell in known.items() if (n := _number(cell)) is not None}
        if len(numbers) == len(known) and len(set(numbers.values())) > FEW_VALUES:
            yield from _by_size(column, numbers)
        else:
            yield from _by_value(column, known)
        if without := frozenset(told.keys() - known.keys()):
            yield Group(column, NOT_TOLD, without)


def subgroups_of(
    board: Board, rows: Sequence[Row], classes: Sequence[str], cells: Cells, columns: Sequence[str]
) -> tuple[dict[str, Any], ...]:
    """Each group with its patients and, from :data:`FEWEST` on, every comparable row's recalls,
    balanced accuracy and gain over its reference, each ``{mean, low, high}``; JSON-able."""
    if not columns or not board.hits:
        return ()
    scored = [row for row in rows if row.title in board.hits]
    patients = next(iter(board.hits.values())).patients.tolist()
    found = []
    for group in groups_of(cells, patients, columns):
        about: dict[str, Any] = {
            "covariate": group.covariate,
            "group": group.name,
            "patients": len(group.patients),
            "rows": [],
        }
        if len(group.patients) >= FEWEST:
            about["rows"] = _scores(board, scored, classes, group)
        found.append(about)
    return tuple(found)


def of_patients(hits: Hits, patients: frozenset[str], label: int | None = None) -> Hits | None:
    """The hits of some patients; with ``label`` of their units of that class alone, whose score is
    its recall. None where there is no such unit."""
    wanted = np.isin(hits.patients, sorted(patients))[hits.patient]
    if label is not None:
        wanted &= hits.label == label
    if not wanted.any():
        return None
    kept, place = np.unique(hits.patient[wanted], return_inverse=True)
    one = label is not None
    return replace(
        hits,
        patients=hits.patients[kept],
        strata=np.zeros(len(kept), np.int64) if one else hits.strata[kept],
        patient=place.reshape(-1),
        label=np.zeros(int(wanted.sum()), np.int64) if one else hits.label[wanted],
        right=hits.right[wanted],
        n_classes=1 if one else hits.n_classes,
    )


def _scores(
    board: Board, rows: Sequence[Row], classes: Sequence[str], group: Group
) -> list[dict[str, Any]]:
    whole = _board(board, group)
    recalls = {name: _board(board, group, label) for label, name in enumerate(classes)}
    return [
        {
            "configuration": row.title,
            "balanced_accuracy": _interval(whole, row.title),
            "recall": {name: _interval(each, row.title) for name, each in recalls.items()},
            "reference": row.reference,
            "gain": _interval(whole, row.title, row.reference)
            if row.reference in whole.hits and row.reference != row.title
            else None,
        }
        for row in rows
    ]


def _board(board: Board, group: Group, label: int | None = None) -> Board:
    parts = {t: of_patients(hits, group.patients, label) for t, hits in board.hits.items()}
    return Board({title: hits for title, hits in parts.items() if hits is not None})


def _interval(board: Board, title: str, other: str | None = None) -> dict[str, float]:
    if title not in board.hits:
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    contrast: Contrast = board.contrast(title, other)
    low, high = contrast.bounds()
    return {"mean": contrast.estimate, "low": low, "high": high}


def _number(cell: str) -> float | None:
    """Of several, from several scans of one patient, their mean."""
    try:
        value = float(np.mean([float(part) for part in cell.split(";")]))
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _by_size(column: str, number: Mapping[str, float]) -> Iterator[Group]:
    """Halves or thirds of the patients; equal numbers stay together."""
    values = np.array(list(number.values()))
    parts = 3 if len(values) >= FOR_THIRDS else 2
    cuts = np.unique(np.quantile(values, np.arange(1, parts) / parts, method="lower")).tolist()
    share = {2: " (a half of the patients)", 3: " (a third of the patients)"}[parts]
    if len(cuts) + 1 < parts:  # many patients have one number
        share = ""
    edges = [float("-inf"), *cuts, float("inf")]
    for low, high in pairwise(edges):
        inside = frozenset(name for name, value in number.items() if low < value <= high)
        if not inside:
            continue
        said = [f"above {low:g}"] * (low > float("-inf")) + [f"up to {high:g}"] * (
            high < float("inf")
        )
        yield Group(column, " ".join(said) + share, inside)


def _by_value(column: str, cell: Mapping[str, str]) -> Iterator[Group]:
    values: dict[str, set[str]] = {}
    for name, value in cell.items():
        values.setdefault(value, set()).add(name)
    rare: set[str] = set()
    for value in sorted(values):
        if len(values[value]) >= NAMED:
            yield Group(column, value, frozenset(values[value]))
        else:
            rare |= values[value]
    if rare:
        yield Group(column, OTHERS, frozenset(rare))


def table_of(board: Leaderboard, covariate: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(header, rows of text) of one covariate: the reference's recalls, and of the row with
    synthetic data that is placed best its recalls and gain."""
    shown = _shown(board)
    header = ["group", "patients"]
    for number, row in enumerate(shown):
        header += [f"{name}, {row.title}" for name in board.classes]
        header += ["gain"] * bool(number)
    lines = []
    for group in board.subgroups:
        if group["covariate"] != covariate:
            continue
        of_title = {each["configuration"]: each for each in group["rows"]}
        cells = [group["group"], str(group["patients"])]
        for number, row in enumerate(shown):
            scores = of_title.get(row.title)
            if scores is None:
                cells += [""] * (len(board.classes) + bool(number))
                continue
            cells += [_text(scores["recall"][name]) for name in board.classes]
            cells += [_text(scores["gain"], signed=True)] * bool(number)
        lines.append(tuple(cells))
    return tuple(header), lines


def _shown(board: Leaderboard) -> list[Row]:
    reference = board.reference
    synthetic = [row for row in board.rows if row.synthetic and row.replicates]
    best = min(
        synthetic, key=lambda row: (row.rank or len(board.rows) + 1, -row.mean), default=None
    )
    return [row for row in (reference, best) if row is not None]


def _text(value: Mapping[str, float] | None, *, signed: bool = False) -> str:
    if value is None:
        return ""
    return with_interval(value["mean"], value["low"], value["high"], signed=signed)
