"""Scans that a file lists: what the layouts of lists share."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medaug.data.cohort import Cohort, Reject, Scan, absent
from medaug.data.files import BadFile, check_name, open_regular
from medaug.data.image_patients import PATIENT_COLUMNS
from medaug.data.images import is_image
from medaug.data.labels import Table, read_table, unlabelled
from medaug.errors import UserError
from medaug.spec.study import DataSpec

LABEL_TABLE = "labels.csv"
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class CaseTable:
    """``labels.csv``: the class of each case, and its patient where a column says so."""

    label_of: dict[str, int]
    patient_of: dict[str, str]
    notes: tuple[str, ...]
    reasons: dict[str, str]
    """Why a case that was asked for has no label."""


def read_cases(root: Path, spec: DataSpec, cases: Iterable[str], layout: str) -> CaseTable:
    """Classes from ``root/labels.csv`` (``case``, ``class`` and, if it has it, ``patient`` or
    ``group``).

    Raises:
        UserError: the table is missing, malformed, or contradicts itself.
    """
    if not os.path.lexists(root / LABEL_TABLE):
        raise UserError(
            f"data.root: {layout} says nothing of a patient's class; write {LABEL_TABLE} with the "
            "columns case,class[,patient] and a line for each case"
        )
    table = read_table(root / LABEL_TABLE, ["case", "class"])
    labels = table.labels("case", "class", spec.label_of)
    cases = list(cases)
    patient_of, note = patients_in(table, "case")
    notes = [*labels.notes, note]
    if extra := len(labels.by_id.keys() - set(cases)):
        notes.append(absent(spec, f"{LABEL_TABLE}: {extra} lines have no image here"))
    reasons = unlabelled(cases, labels)
    return CaseTable(dict(labels.by_id), patient_of, tuple(notes), reasons)


def patients_in(table: Table, id_column: str) -> tuple[dict[str, str], str]:
    """(id -> patient from the column ``patient`` or ``group``, a note about it)."""
    column = next((column for column in PATIENT_COLUMNS if column in table.columns), None)
    if column is None:
        return {}, (
            f"{table.name}: no column {' or '.join(PATIENT_COLUMNS)}, so every scan counts as a "
            "patient of its own; if one person has several, add the column or scores leak"
        )
    patient_of: dict[str, str] = {}
    for line, row in table.rows:
        patient = row[column].strip()
        if not patient:
            raise UserError(f"{table.name}:{line}: {column} is empty; name who is on the scan")
        if patient_of.setdefault(row[id_column], patient) != patient:
            raise UserError(f"{table.name}:{line}: this scan has another {column} further up")
    return patient_of, f"patients are those of {table.name}, column {column}"


def below(root: Path, text: str, where: str) -> Path:
    """The file that a list calls ``text``, which has to lie below ``root``.

    Raises:
        UserError: it is no path below it, whatever ``..`` and links say.
    """
    path = root / text
    if not text or os.path.isabs(text) or not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{where}: points outside of data.root; write paths relative to it")
    return path


def read_list(path: Path) -> Any:
    """The JSON in ``path``.

    Raises:
        UserError: it is no regular file, too large, or not JSON.
    """
    try:
        with open_regular(path) as file:
            raw = file.read(_MAX_BYTES + 1)
    except BadFile as error:
        raise UserError(f"{path.name}: {error}") from None
    if len(raw) > _MAX_BYTES:
        raise UserError(f"{path.name}: more than {_MAX_BYTES >> 20} MiB; is this the data list?")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path.name}{line}: is not JSON; export it again") from None


def cohort_of(
    spec: DataSpec, scans: Iterable[Scan], rejects: Iterable[Reject], notes: Iterable[str]
) -> Cohort:
    """In the order of patients and names, 2-D images numbered within their patient."""
    kept, left_out = [], list(rejects)
    seen = Counter[str]()
    for scan in sorted(scans, key=lambda scan: (scan.patient, scan.path)):
        try:
            check_name(scan.path)
        except BadFile as error:
            left_out.append(Reject(scan.path, str(error), scan.patient))
            continue
        index = seen[scan.patient] if is_image(scan.path) else None
        seen[scan.patient] += 1
        kept.append(replace(scan, index=index))
    return Cohort(tuple(kept), spec.classes, tuple(left_out), tuple(notes))
