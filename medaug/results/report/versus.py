"""A paper's table beside ours: the published row, and what each protocol makes of the same arm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medaug.errors import MedaugError
from medaug.results.leaderboard import leaderboard_of
from medaug.results.numbers import share, with_interval
from medaug.results.published import FLAWS, JudgedRow, PublishedRow, published
from medaug.results.records import read_study
from medaug.results.report.evidence import Evidence
from medaug.results.rows import Leaderboard, Row
from medaug.results.table import spoken
from medaug.spec.per_class import UNIFORM


@dataclass(frozen=True)
class Cell:
    """A row's numbers as lines of text, and its flags."""

    lines: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Versus:
    """One line for each row of the paper's table."""

    paper: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    flaws: tuple[str, ...]


def versus(run: Evidence) -> Versus | None:
    """The paper's table beside this run's, and beside the latest run in the same storage that
    rebuilds the same paper under the other protocol. None where the study rebuilds no paper."""
    paper = run.study.paper
    if paper is None:
        return None
    boards = [run.board]
    if (other := _other_protocol(run)) is not None:
        boards.append(other)
    boards.sort(key=lambda board: board.protocol)
    rows = tuple(
        (
            judged.row.title,
            (_of_paper(judged), *(_of_ours(_counterpart(b, judged.row)) for b in boards)),
        )
        for judged in published(paper)
    )
    columns = ("published", *(f"{board.protocol} ({board.run})" for board in boards))
    return Versus(paper, columns, rows, FLAWS[paper])


def _other_protocol(run: Evidence) -> Leaderboard | None:
    """Of the latest other run of the same paper on data of the same layout that has scores."""
    studies = [path.parent for path in run.folder.parent.glob("*/study.json")]
    for folder in sorted(studies, key=_age):
        if _is_counterpart(folder, run):
            board = leaderboard_of(folder)
            if any(row.replicates for row in board.rows):
                return board
    return None


def _is_counterpart(folder: Path, run: Evidence) -> bool:
    try:
        theirs, ours = read_study(folder), run.study
    except MedaugError:
        return False  # a damaged neighbour is no reason to fail
    same_data = (theirs.data.layout, theirs.data.classes) == (ours.data.layout, ours.data.classes)
    other_protocol = theirs.protocol != ours.protocol
    return other_protocol and same_data and theirs.paper == ours.paper


def _age(folder: Path) -> float:
    return -(folder / "study.json").stat().st_mtime


def _counterpart(board: Leaderboard, row: PublishedRow) -> Row | None:
    """Our best-placed row of the same arm, else of the same kind, with the nearest number of added
    rows."""
    same = [ours for ours in board.rows if ours.kind == row.kind and ours.replicates]
    same = [ours for ours in same if ours.per_class == UNIFORM]
    same = [ours for ours in same if ours.arm == row.arm] or same
    wanted = row.n_synthetic
    if wanted is None:
        return same[0] if same else None
    return min(same, key=lambda ours: abs(ours.n_synthetic - wanted), default=None)


def _of_paper(judged: JudgedRow) -> Cell:
    row = judged.row
    lines = [] if row.accuracy is None else [f"accuracy {row.accuracy:.3f}"]
    if row.recalls:
        lines.append(", ".join(f"{name} {share(value)}" for name, value in row.recalls.items()))
    if judged.balanced_accuracy is not None:
        lines.append(f"balanced accuracy {with_interval(*judged.balanced_accuracy)}")
    return Cell(tuple(lines), tuple(spoken(judged.flags)))


def _of_ours(row: Row | None) -> Cell:
    if row is None:
        return Cell(("no such arm was scored",))
    recalls = (
        f"{name.removeprefix('recall/')} {share(value)}"
        for name, value in row.scores.items()
        if name.startswith("recall/")
    )
    lines = (
        row.title,
        f"accuracy {row.scores.get('accuracy', float('nan')):.3f}",
        ", ".join(recalls),
        f"balanced accuracy {with_interval(row.mean, row.low, row.high)}",
    )
    return Cell(lines, tuple(spoken(row.flags)))
