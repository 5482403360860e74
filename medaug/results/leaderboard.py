"""The honest leaderboard: what may be ranked, what each row has shown, and what it has not.

A row is one configuration over all its seeds, draws and folds. It ranks by the lower bound of its
gain in the balanced accuracy of patients over the best of all that needs no synthetic data; what
cannot be compared is not ranked, and says why (SCIENCE, "Leaderboard: how a row ranks").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medaug.audit.cohorts import cohort_records
from medaug.audit.leakage import leakage_of
from medaug.metrics.board import Board, Contrast
from medaug.ownership.seals import planned
from medaug.results.configuration import Configuration, by_configuration, row_of
from medaug.results.gate import Peer
from medaug.results.judge import comparable, judge
from medaug.results.records import TrialRecord, read_study, read_trials
from medaug.results.rows import LEAK, Leaderboard, Row
from medaug.results.subgroups import cells_of, subgroups_of
from medaug.spec import StudySpec


def leaderboard_of(folder: Path) -> Leaderboard:
    """The leaderboard of the run in ``folder``, from its trials' stored predictions.

    Raises:
        UserError: there is no such run.
    """
    return leaderboard_and_trials(folder)[0]


def leaderboard_and_trials(folder: Path) -> tuple[Leaderboard, dict[str, Configuration]]:
    """The same, and the trials behind each row by its title."""
    study = read_study(folder)
    trials = list(read_trials(folder))
    peers, board = _peers(study, trials)
    peers = [(_with_interval(row, each, board), each) for row, each in peers]
    judged = judge(peers, board, study)
    if (leakage := leakage_of(folder)) is not None and leakage.folds:
        judged = [replace(row, flags=(*row.flags, LEAK)) for row in judged]
    missing = len(planned(folder) - {trial.config.key for trial in trials})  # no trace of them
    found = {row.title: each for row, each in peers}
    whole = Leaderboard(
        folder.name,
        study.protocol,
        study.data.classes,
        tuple(judged),
        tried=len(judged),
        unfinished=sum(trial.status in ("unfinished", "failed") for trial in trials) + missing,
        margin=study.sweep.margin,
        external=tuple(cohort_records(folder)),
        subgroups=subgroups_of(
            *(board, judged, study.data.classes, cells_of(folder, study), study.data.covariates)
        ),
    )
    return whole, found


def gains_of(folder: Path) -> list[Contrast]:
    """How much better each row with synthetic data of the run in ``folder`` is than the best
    without, with the variance of that.

    Raises:
        UserError: there is no such run.
    """
    study = read_study(folder)
    peers, board = _peers(study, list(read_trials(folder)))
    rows = [
        row for row in judge(peers, board, study) if row.synthetic and row.title in board.titles
    ]
    return [board.contrast(row.title, row.reference) for row in rows if row.reference is not None]


def _peers(study: StudySpec, trials: Sequence[TrialRecord]) -> tuple[list[Peer], Board]:
    """Every configuration with its row, and the board of those that can be compared."""
    makers = {
        f"rows-{trial.config.key}": trial for trial in trials if trial.config.stage == "generate"
    }
    classify = (trial for trial in trials if trial.config.stage == "classify")
    found = by_configuration(classify, len(study.data.classes))
    peers = [(row_of(each, study, makers), each) for each in found]
    hits = {title: each.hits for title, each in comparable(peers).items() if each.hits is not None}
    return peers, Board(hits)


def _with_interval(row: Row, found: Configuration, board: Board) -> Row:
    """The row with its score's own interval; what the board cannot hold stands alone."""
    if found.hits is None:
        return row
    whole = board if row.title in board.titles else Board({row.title: found.hits})
    low, high = whole.contrast(row.title).bounds()
    return replace(row, low=low, high=high)
