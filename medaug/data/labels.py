"""Tables of labels, read strictly: a wrong class is worse than no study.

Ids are text and are compared exactly (after Unicode NFC): ``007`` is not ``7``. Messages name
files, lines and columns, never a patient.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medaug.data.canonical import near_id
from medaug.data.files import BadFile, open_regular
from medaug.errors import UserError

PATIENT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What a patient id may look like; it never becomes a path, its pseudonym does."""
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Table:
    """The cells of a CSV file as text, and the line that each row ends on."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]

    def labels(self, id_column: str, label_column: str, values: Mapping[str, int]) -> Labels:
        """The class of every id; ``values`` maps what the label column may say to a class.

        Raises:
            UserError: an id is malformed, a label is not in ``values``, or an id has two classes.
        """
        by_id: dict[str, int] = {}
        line_of: dict[str, int] = {}
        repeated = 0
        for line, row in self.rows:
            patient = self._id(line, row[id_column])
            label = self._label(line, label_column, row[label_column].strip(), values)
            if by_id.setdefault(patient, label) != label:
                raise UserError(
                    f"{self.name}:{line}: this patient has another {label_column} in line "
                    f"{line_of[patient]}; correct one of the two"
                )
            repeated += patient in line_of
            line_of.setdefault(patient, line)
        notes = (f"{self.name}: {repeated} lines repeat an earlier one",) if repeated else ()
        return Labels(self.name, by_id, line_of, notes)

    def _id(self, line: int, cell: str) -> str:
        patient = unicodedata.normalize("NFC", cell)
        if not PATIENT_ID.fullmatch(patient):
            what = (
                "has spaces around it" if PATIENT_ID.fullmatch(cell.strip()) else "is not allowed"
            )
            raise UserError(
                f"{self.name}:{line}: the id {what}; use 1 to 64 of A-Z a-z 0-9 . _ - only"
            )
        return patient

    def _label(self, line: int, column: str, cell: str, values: Mapping[str, int]) -> int:
        if cell not in values:
            # Whatever slipped into this column from a neighbour is not repeated.
            shown = f"'{cell}'" if re.fullmatch(r"[A-Za-z0-9.+-]{0,8}", cell) else "this value"
            raise UserError(
                f"{self.name}:{line}: {column} {shown} is unknown; write one of {', '.join(values)}"
            )
        return values[cell]


@dataclass(frozen=True)
class Labels:
    """Id -> class index, from the table called ``table``."""

    table: str
    by_id: Mapping[str, int]
    line_of: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def near_miss(self, patient: str) -> int | None:
        """The line of an id that a spreadsheet may have made of ``patient``: ``007`` and ``7``,
        ``1e5`` and ``100000``, other case or separators. None where there is no such line."""
        return near_id(patient, self.line_of)


def read_table(path: Path, want: Sequence[str] = ()) -> Table:
    """Read a UTF-8 file with or without byte order mark, any line ends, whose cells are separated
    by what splits its header most: commas, semicolons or tabs (``.tsv``: tabs).

    Args:
        want: columns that must be there, by their exact names.

    Raises:
        UserError: with the line, for anything that two readers could understand differently.
    """
    text = _text(path)
    if told := re.match(r"sep=(.)\r?\n", text):  # Excel's; the line numbers stay
        text = "\n" + text[told.end() :]
    delimiter = "\t" if path.suffix.lower() in (".tsv", ".tab") else _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    records: list[tuple[int, list[str]]] = []
    try:
        records.extend((reader.line_num, cells) for cells in reader if cells)
    except csv.Error as error:
        raise UserError(f"{path.name}:{reader.line_num}: {error}; close the quote") from None
    if len(records) < 2:
        raise UserError(f"{path.name}: no rows; put a header and one line per patient")
    records = _without_empty_columns(records)
    columns = tuple(cell.strip() for cell in records[0][1])
    _check_columns(path.name, columns, want)
    for line, cells in records[1:]:
        if len(cells) != len(columns):
            raise UserError(
                f"{path.name}:{line}: {len(cells)} cells under {len(columns)} columns; "
                f"quote cells that hold {_NAMED[delimiter]}"
            )
    rows = ((line, dict(zip(columns, cells, strict=True))) for line, cells in records[1:])
    return Table(path.name, columns, tuple(rows))


def _without_empty_columns(records: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """The records without columns that have no name and no cells, as spreadsheets leave them."""
    header = records[0][1]
    bare = {i for i, name in enumerate(header) if not name.strip()}
    for _, cells in records[1:]:
        bare -= {i for i, cell in enumerate(cells) if cell.strip()}
        if not bare or len(cells) != len(header):
            return records
    return [(line, [c for i, c in enumerate(cells) if i not in bare]) for line, cells in records]


_NAMED = {",": "commas", ";": "semicolons", "\t": "tabs"}


def _delimiter(text: str) -> str:
    """Spreadsheets of half of Europe write semicolons, since a comma is their decimal point."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(_NAMED, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            raw = file.read(_MAX_BYTES + 1)
    except BadFile as error:
        if "empty file" in str(error):
            raise UserError(f"{path.name}: no rows; the file is empty") from None
        raise UserError(f"{path.name}: {error}") from None
    if len(raw) > _MAX_BYTES:
        raise UserError(f"{path.name}: more than {_MAX_BYTES >> 20} MiB; is this the label table?")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw:
        raise UserError(
            f"{path.name}: UTF-16 or binary, not UTF-8; save as CSV UTF-8 (iconv -f UTF-16)"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len((raw[: error.start] + b".").splitlines())
        raise UserError(
            f"{path.name}:{line}: not UTF-8; save as CSV UTF-8 (iconv -f LATIN1)"
        ) from None


def _check_columns(name: str, columns: Sequence[str], want: Sequence[str]) -> None:
    if repeated := sorted({column for column in columns if columns.count(column) > 1}):
        raise UserError(f"{name}:1: column '{repeated[0]}' appears twice; rename one")
    for wanted in want:
        if wanted in columns:
            continue
        near = difflib.get_close_matches(wanted.casefold(), map(str.casefold, columns), 1)
        hint = f"did you mean '{near[0]}'?" if near else "is it comma-separated?"
        raise UserError(
            f"{name}:1: no column '{wanted}' (want {{{', '.join(want)}}}, "
            f"have {{{', '.join(columns)}}}); {hint}"
        )


def unlabelled(found: Iterable[str], labels: Labels) -> dict[str, str]:
    """Why each id of ``found`` that has no label has none."""
    reasons = {}
    for patient in found:
        if patient in labels.by_id:
            continue
        line = labels.near_miss(patient)
        near = f"line {line} is nearly the same id" if line else "add a line for this patient"
        reasons[patient] = f"has no label in {labels.table}; {near}"
    return reasons


def read_json(path: Path) -> Any:
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
