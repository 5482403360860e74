"""Another cohort, scored once by a run's trained classifiers; and what these say of single scans.

Nothing is fitted to the other cohort: its images go through the run's U-Nets or encoders,
normalisation and thresholds as they are. A cohort that has pictures in common with the study is
refused.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from medaug.audit.cohorts import LOG, cohort_record, record_file, requests_for
from medaug.audit.leakage import leakage_of
from medaug.confirmation import (
    Record,
    asked_again,
    confirm,
    log_opening,
    rendered_rows,
    roles_of,
    seal,
    votes_of,
)
from medaug.data.cohort import Cohort
from medaug.data.privacy import pseudonym
from medaug.data.slices import volume_numbers
from medaug.data.table import EXTERNAL, POOL
from medaug.errors import UserError
from medaug.experiment.trained import rows_of
from medaug.intake import make_other, refuse_copies
from medaug.metrics.classification import predict as called
from medaug.results.external import remarks
from medaug.results.leaderboard import leaderboard_of
from medaug.results.records import read_study, slices_of
from medaug.results.rows import Leaderboard, Row
from medaug.spec import DataSpec, StudySpec
from medaug.storage.artifacts import Artifacts
from medaug.storage.files import write_whole
from medaug.storage.json_files import write_json
from medaug.store import Store
from medaug.sweep.display import Display

RESEARCH_ONLY = "For research only: not a medical device, not for diagnosis or treatment."


@dataclass(frozen=True)
class Other:
    """A cohort that is not the study's own, read and compared with it."""

    name: str
    """For people: the part, or the table's file name."""
    cohort: Cohort
    slices: Store
    known_ids: int
    """Patients whose id is one of the study's as well."""


def score(folder: Path, table: Path | None, display: Display, *, retrain: bool = False) -> Record:
    """Score another cohort with the run in ``folder``, or tell what it scored the first time.

    ``table`` lists the cohort; None: the part ``external`` of the study's own data. Which
    configurations are scored, and how, :mod:`medaug.confirmation` says. The record is kept as
    ``external-<hash of the cohort>.json``; every request is a line of ``external.log``.

    Raises:
        UserError: the cohort cannot be read, has pictures of the study, or other classes or
            channels; trials are unfinished; no configuration is rankable; a network's weights are
            gone.
        IntegrityError: a store, model or checkpoint is damaged.
    """
    board, study = leaderboard_of(folder), _study(folder)
    roles = roles_of(folder, board)
    other = _read(folder, study, table, EXTERNAL, display)
    about = {"cohort": other.name, "store": other.slices.name}
    if (record := cohort_record(folder, other.slices.name)) is not None:
        log_opening(folder, LOG, board, **about)
        return record
    opening = log_opening(folder, LOG, board, **about)  # first: somebody may see something now
    with display.progress("scoring the other cohort") as progress:
        found = confirm(
            *(folder, board, roles, partial(rows_of, slices=other.slices), progress),
            retrain=retrain,
        )
    ingest = other.slices.manifest["extra"]["ingest"]
    record = {
        "run": folder.name,
        **opening,
        "known_ids": other.known_ids,
        "left_out": len(ingest["rejects"]),
        **found,
    }
    write_json(folder / record_file(other.slices.name), record)
    seal(folder, record_file(other.slices.name))
    return record


def render(folder: Path, record: Record) -> str:
    """The record for a terminal."""
    patients = " + ".join(f"{n} {name}" for name, n in record["patients"].items())
    tried, again = record["configurations_tried"], requests_for(folder, record["store"])
    return "\n".join(
        [
            f"{record['run']}: external cohort {record['cohort']} of {patients} patients "
            f"({record['slices']} slices)",
            f"scored by {record['who']} on {record['when']}, after {tried} configurations were "
            "tried",
            *remarks(record),
            "",
            *rendered_rows(record),
            *asked_again(again),
        ]
    )


def predict(
    folder: Path,
    table: Path,
    out: Path,
    display: Display,
    *,
    configuration: str | None = None,
    retrain: bool = False,
) -> str:
    """Write what a configuration of the run in ``folder`` says of the scans of ``table`` to the
    CSV ``out``; returns the configuration's name.

    One line for each scan, with its line in ``table`` and its patient's pseudonym, and one for
    each patient, whose line is empty: the class probabilities, means over slices and over all the
    classifiers of the configuration, and the class that is called at the mean of their thresholds.
    No name, path or class of the table is repeated. ``configuration`` is a title of the
    leaderboard, by default the best-ranked one.

    Raises:
        UserError: as :func:`score`, or there is no such configuration.
        IntegrityError: a store, model or checkpoint is damaged.
    """
    board, study = leaderboard_of(folder), _study(folder)
    row = _chosen(folder, board, configuration)
    other = _read(folder, study, table, POOL, display)
    with display.progress("predicting") as progress:
        votes, _ = votes_of(
            *(folder, [row], partial(rows_of, slices=other.slices), progress), retrain=retrain
        )
    each = votes[row.title]
    probability = np.mean([p for _, _, p, _ in each], axis=0)
    threshold = float(np.mean([t for *_, t in each]))
    text = _predictions(other, probability, threshold, board.classes)
    head = f"# {RESEARCH_ONLY} {row.title} of {folder.name}, {len(row.trials)} classifiers."
    write_whole(out, f"{head}\n{text}".encode())
    return row.title


def _study(folder: Path) -> StudySpec:
    return read_study(folder).model_copy(update={"storage": folder.parent})


def _read(folder: Path, study: StudySpec, table: Path | None, part: str, display: Display) -> Other:
    """Read the cohort and compare it with the study's images."""
    data = study.data if table is None else _data_of(study.data, table)
    artifacts = Artifacts(study.storage)
    own = slices_of(folder)
    name, cohort = make_other(study, own, data, part, display, whole=table is not None)
    scanned = leakage_of(folder)
    compared = scanned.store if scanned and artifacts.has_store(scanned.store) else own
    refuse_copies(study, compared, name, data, cohort, display)
    slices = artifacts.open_store(name)
    known = np.intersect1d(artifacts.open_store(own).patients, slices.patients)
    return Other(EXTERNAL if table is None else table.name, cohort, slices, len(known))


def _data_of(data: DataSpec, table: Path) -> DataSpec:
    """How the study would read the scans of another table, wherever they lie."""
    if table.suffix.lower() not in (".csv", ".tsv") or not table.is_file():
        raise UserError(
            f"--data: {table} is no table; give one like scans.csv (medaug init NAME DIR writes it)"
        )
    return data.model_copy(
        update={
            "table": table,
            "layout": "table",
            "root": Path(table.absolute().anchor),
            "covariates": (),
            "max_patients": None,
        }
    )


def _chosen(folder: Path, board: Leaderboard, title: str | None) -> Row:
    if title is None:
        if not board.rows or board.rows[0].rank is None:
            raise UserError(
                f"{folder.name}: no configuration is rankable; name one: --configuration TITLE, "
                "as `medaug leaderboard` calls it"
            )
        return board.rows[0]
    found = next((row for row in board.rows if row.title == title), None)
    if found is None or found.replicates < found.expected:
        known = ", ".join(row.title for row in board.rows if row.replicates == row.expected)
        raise UserError(f"--configuration: no finished '{title}'; the run has {known or 'none'}")
    return found


def _predictions(
    other: Other, probability: np.ndarray, threshold: float, classes: tuple[str, ...]
) -> str:
    """The lines of :func:`predict`; ``probability`` is (n, K) of the store's rows."""
    slices = other.slices
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["patient", "line", "slices", *(f"p({name})" for name in classes), "called"])

    def write(patient: str, line: object, rows: np.ndarray) -> None:
        mean = probability[rows].mean(axis=0)
        # In the form that the leaderboard's patients are called in.
        label = int(called(mean[None], threshold)[0])
        numbers = (f"{value:.6f}" for value in mean)
        writer.writerow([patient, line, len(rows), *numbers, classes[label]])

    scans = other.cohort.scans
    for scan, number in zip(scans, volume_numbers(scans), strict=True):
        name = pseudonym(scan.patient)
        mine = slices.volumes == f"{name}-{number}"
        if scan.index is not None:
            mine &= slices.slice_index == scan.index
        if (rows := np.flatnonzero(mine)).size:
            write(name, scan.line, rows)
    for name in dict.fromkeys(slices.patients.tolist()):
        write(name, "", np.flatnonzero(slices.patients == name))
    return stream.getvalue()
