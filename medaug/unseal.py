"""Opening a run's sealed test set: the best configurations, their reference and ``none``, once.

Until then nothing has read the test patients' rows but the leakage scan (pixels, no labels), and no
score of theirs exists. Opening it is written down: who, when, and how many configurations had been
tried by then. A second look shows what the first one saw, and is written down too.
"""

from __future__ import annotations

from pathlib import Path

from medaug.audit.sealed import FILE, LOG, openings_of, unsealed_of
from medaug.confirmation import (
    BEST,
    Progress,
    Record,
    asked_again,
    confirm,
    log_opening,
    rendered_rows,
    roles_of,
    seal,
)
from medaug.errors import UserError
from medaug.experiment.trained import sealed_rows
from medaug.results.leaderboard import leaderboard_of
from medaug.results.records import read_study, read_trial
from medaug.storage.json_files import write_json


def unseal(folder: Path, progress: Progress | None = None) -> Record:
    """Score the test patients of the run in ``folder``, or tell what they scored the first time.

    How, :mod:`medaug.confirmation` says. The record is kept as ``unsealed.json``.

    Raises:
        UserError: no test set was sealed, trials are unfinished, or no configuration is rankable.
        IntegrityError: a store, model or checkpoint is damaged.
    """
    board = leaderboard_of(folder)
    if (record := unsealed_of(folder)) is not None:
        log_opening(folder, LOG, board)
        return record
    if not read_study(folder).split.test_fraction:
        raise UserError(
            f"{folder.name}: no test set was sealed; set split.test_fraction (0.2, say) in a study "
            "of another name"
        )
    roles = roles_of(folder, board)
    # First: from now on somebody may have seen something.
    opening = log_opening(folder, LOG, board)
    found = confirm(folder, board, roles, sealed_rows, progress)
    split = read_trial(folder / "trials" / roles[BEST].trials[0]).classified.split
    record = {"run": folder.name, **opening, "split": split, **found}
    write_json(folder / FILE, record)
    seal(folder, FILE)
    return record


def render(folder: Path, record: Record) -> str:
    """The record for a terminal."""
    patients = " + ".join(f"{n} {name}" for name, n in record["patients"].items())
    tried = record["configurations_tried"]
    return "\n".join(
        [
            f"{record['run']}: sealed test set of {patients} patients ({record['slices']} slices)",
            f"opened by {record['who']} on {record['when']}, after {tried} configurations were "
            "tried",
            "",
            *rendered_rows(record),
            *asked_again(openings_of(folder)),
        ]
    )
