"""What the tables that come with a folder say of its scans."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from medaug.data.canonical import is_blank, tidy
from medaug.data.columns import (
    SYNONYMS,
    part_column,
    part_said,
    refuse_unheard_people,
    says_parts,
    simplified,
)
from medaug.data.importers.base import Options
from medaug.data.importers.cells import SEVERAL, Cells, cells_of, listed
from medaug.data.importers.naming import Sheet
from medaug.data.names import stem_of
from medaug.data.table import lines_of
from medaug.errors import UserError

CLASS_COLUMNS = (
    *("class", "classname", "label", "labels", "diagnosis", "dx", "diagnosisgroup", "target"),
    *("category", "grade", "diagnostic", "whograde", "tumorgrade", "disease", "pathology"),
    *("findinglabels", "finding", "tumortype", "tumourtype", "subtype", "groundtruth"),
    *("benignmalignant", "hgglgg", "type", "status", "outcome", "hemorrhage", "haemorrhage"),
    *("y", "group"),
)
LESION = ("lesionid", "lesion")
_MOST_CLASSES = 50


@dataclass(frozen=True)
class Said:
    """What tables say of scans."""

    class_of: dict[str, str]
    patient_of: dict[str, str]
    group_of: dict[str, str]
    covariates: dict[str, dict[str, str]]
    column: str
    """The class column, or ``one column a class``."""
    table: str = ""
    """The first table that has it."""
    part_of: dict[str, str] = field(default_factory=dict)
    """The publisher's parts, where a column says them."""
    site_of: dict[str, str] = field(default_factory=dict)
    several: dict[str, str] = field(default_factory=dict)
    """Scans with several classes, or none -> why they are left out."""
    notes: tuple[str, ...] = ()


def said_by(sheets: Sequence[Sheet], options: Options) -> Said | None:
    """Class, patient and covariates of the scans in ``sheets``; None where no column is a class.

    Raises:
        UserError: which column is the class, or the patient, is unclear; a class is blank.
    """
    told = [(sheet, way) for sheet in sheets if (way := class_way(sheet, options)) is not None]
    if not told:
        return None
    first, (column, _) = told[0]
    said = Said({}, {}, {}, {}, column, first.table.name)
    told = [(sheet, way) for sheet, way in told if way[0] == column]
    for sheet, (_, of_row) in told:
        _read_classes(sheet, column, of_row, said, options)
    if options.positive is None:
        _check_repeats(told)
    notes = [note for sheet, (_, of_row) in told for note in _below_zero(sheet, column, of_row)]
    return with_patients(replace(said, notes=tuple(notes)), sheets, options)


def with_patients(said: Said, sheets: Sequence[Sheet], options: Options | None = None) -> Said:
    """``said`` with what the sheets say of patients, and their further columns.

    Raises:
        UserError: no column is called patient, and another one seems to say who is on a scan.
    """
    notes = list(said.notes)
    options = options or Options()
    for sheet in sheets:
        column, about = _who(sheet, options)
        notes += about
        rows = [row for _, row in sheet.row_of.values()]
        further = sheet.columns(said.column, column or "")
        part, about_parts = part_column(further, rows)
        notes += [f"{sheet.table.name}: {note}" for note in about_parts]
        group, site = (
            next((c for c in further if simplified(c) in SYNONYMS[role] and c != part), None)
            for role in ("group", "site")
        )
        if column is not None:
            _check_one_patient(sheet, column)
        for scan, (line, row) in sheet.row_of.items():
            _patient(sheet, column, scan, line, row, said.patient_of)
            if group and not is_blank(row[group]):
                said.group_of.setdefault(scan, tidy(row[group]))
            if part and (of := part_said(row[part])) is not None:
                said.part_of.setdefault(scan, of)
            if site and not is_blank(row[site]):
                said.site_of.setdefault(scan, tidy(row[site]))
            more = said.covariates.setdefault(scan, {})
            for name in sheet.columns(*(c or "" for c in (said.column, column, group, part, site))):
                more.setdefault(name, tidy(row[name]))
        if column or group:
            notes.append(f"patients are those of {sheet.table.name}, column {column or group}")
    if not (said.patient_of or said.group_of or options.patients):
        for sheet in sheets:
            rows = [row for _, row in sheet.row_of.values()]
            columns = sheet.columns(said.column)
            refuse_unheard_people(sheet.table.name, rows, columns, by_option=True)
    return replace(said, notes=tuple(dict.fromkeys(notes)))


def _who(sheet: Sheet, options: Options) -> tuple[str | None, list[str]]:
    """(the column that says who is on a scan, notes about it)."""
    if options.patient_column in sheet.table.columns:
        return options.patient_column, []
    notes = [
        f"{sheet.table.name}: column {column} says the same of all its lines, and so nothing of "
        "who is on a scan"
        for column in sheet.columns()
        if simplified(column) in SYNONYMS["patient"] and _says_one(sheet, column)
    ]
    column = patient_column(sheet)
    if column is None and sheet.beginnings:
        column = sheet.column
    if sheet.beginnings:
        scan, (_, row) = next(iter(sheet.row_of.items()))
        notes.append(
            f"{sheet.table.name}: ids of column {sheet.column} are what names begin with "
            f"('{tidy(row[sheet.column])}' for '{stem_of(scan)}')"
        )
    return column, notes


def _says_one(sheet: Sheet, column: str) -> bool:
    """Whether all lines of a table say the same in ``column``: ``removed``."""
    return len(sheet.table.rows) > 1 and len({tidy(r[column]) for _, r in sheet.table.rows}) == 1


def patient_column(sheet: Sheet) -> str | None:
    """The column of patients; of lesions where there is none. One that says the same in all lines
    names nobody.

    Raises:
        UserError: two columns name patients, and do not say the same.
    """
    fitting = [c for c in sheet.columns() if simplified(c) in SYNONYMS["patient"]]
    fitting = [column for column in fitting if not _says_one(sheet, column)]
    for other in fitting[1:]:
        if any(tidy(row[other]) != tidy(row[fitting[0]]) for _, row in sheet.table.rows):
            raise UserError(
                f"{sheet.table.name}:1: columns {' and '.join(fitting)} both name the patient; "
                "keep one, or rename the other"
            )
    lesions = [c for c in sheet.columns() if simplified(c) in LESION]
    if fitting or lesions:
        return (fitting or lesions)[0]
    own = simplified(sheet.column)
    return sheet.column if own in SYNONYMS["patient"] else None


def class_way(sheet: Sheet, options: Options) -> tuple[str, Callable[[Cells], str]] | None:
    """(column, what it says in a row); None where no column is a class.

    Raises:
        UserError: several columns may be it, and they do not say the same.
    """
    rows = [row for _, row in sheet.row_of.values()]
    if options.class_column is not None:
        if options.class_column not in sheet.table.columns:
            return None
        return options.class_column, cells_of(rows, options.class_column)
    patient = patient_column(sheet)
    columns = [c for c in sheet.columns(patient or "") if simplified(c) in CLASS_COLUMNS]
    if "x" in map(simplified, sheet.columns()):  # beside it, y is a place
        columns = [c for c in columns if simplified(c) != "y"]
    columns = [c for c in columns if _tells_classes(rows, c)]
    columns = [c for c in columns if not says_parts(row[c] for row in rows)]
    if any(told := [len({tidy(row[c]) for row in rows}) > 1 for c in columns]):
        columns = [c for c, several in zip(columns, told, strict=True) if several]
    columns.sort(key=lambda c: CLASS_COLUMNS.index(simplified(c)))
    if not columns:
        return _one_hot(sheet, rows)
    if len(columns) > 1 and simplified(columns[0]) != "class":
        columns = _by_words(rows, columns)
        if not all(_same(rows, columns[0], c) for c in columns[1:]):
            raise UserError(
                f"{sheet.table.name}:1: columns {', '.join(columns)} may each be the class; say "
                "which with --class COLUMN"
            )
    return columns[0], cells_of(rows, columns[0])


def _tells_classes(rows: Sequence[Cells], column: str) -> bool:
    """Whether the cells repeat, as classes do and names or measures do not."""
    cells = {listed(row[column]) for row in rows}
    return len(cells) <= max(_MOST_CLASSES, 2) or any(SEVERAL in cell for cell in cells)


def _by_words(rows: Sequence[Cells], columns: list[str]) -> list[str]:
    """Columns of words before columns of numbers, as ``diagnosis`` before its code."""
    return sorted(columns, key=lambda c: all(tidy(row[c]).isdecimal() for row in rows))


def _same(rows: Sequence[Cells], a: str, b: str) -> bool:
    """Whether two columns say the same in other words."""
    pairs = {(row[a], row[b]) for row in rows}
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def _one_hot(sheet: Sheet, rows: Sequence[Cells]) -> tuple[str, Callable[[Cells], str]] | None:
    """One column a class, with 1 in one of them, as in ISIC's ground truth."""

    def number(cell: str) -> float | None:
        return {"": 0.0, "0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0}.get(tidy(cell))

    columns = [c for c in sheet.columns() if all(number(row[c]) is not None for row in rows)]
    if len(columns) < 2 or not rows:
        return None
    if any(sum(number(row[c]) or 0 for c in columns) != 1 for row in rows):
        return None
    return "one column a class", lambda row: next(c for c in columns if number(row[c]))


def _read_classes(
    sheet: Sheet, column: str, of_row: Callable[[Cells], str], said: Said, options: Options
) -> None:
    blank = []
    in_any = _positive_in_any_line(sheet, of_row, options.positive)
    for scan, (line, row) in sheet.row_of.items():
        cell = of_row(row)
        if is_blank(cell) and options.missing:
            said.several[scan] = f"its class is blank in {sheet.table.name}"
        elif is_blank(cell):
            blank.append(line)
        elif options.positive is not None:
            said.class_of[scan] = options.positive if scan in in_any else "other"
        elif SEVERAL in cell:
            said.several[scan] = f"has several classes in column {column}; --positive takes one"
        else:
            said.class_of.setdefault(scan, cell)
    if blank:
        raise UserError(
            f"{sheet.table.name}: {lines_of(sorted(set(blank)))}: the class (column {column}) is "
            "blank, nan or N/A; write what a person said, or take the lines out (--accept missing "
            "leaves such scans out)"
        )


def _lines(sheet: Sheet) -> Iterator[tuple[str, int, Cells]]:
    """(scan, line, cells) of all lines that speak of a scan, those that repeat an id included."""
    of_cell: dict[str, list[str]] = defaultdict(list)
    for scan, (_, row) in sheet.row_of.items():
        of_cell[tidy(row[sheet.column])].append(scan)
    for line, row in sheet.table.rows:
        for scan in of_cell.get(tidy(row[sheet.column]), ()):
            yield scan, line, row


def _positive_in_any_line(
    sheet: Sheet, of_row: Callable[[Cells], str], positive: str | None
) -> set[str]:
    """Scans that one of their lines calls positive: of several readers, or boxes."""
    if positive is None:
        return set()
    return {scan for scan, _, row in _lines(sheet) if positive in of_row(row).split(SEVERAL)}


def _below_zero(sheet: Sheet, column: str, of_row: Callable[[Cells], str]) -> Iterator[str]:
    cells = Counter(of_row(row) for _, row in sheet.row_of.values())
    for cell, n in cells.items():
        if re.fullmatch(r"-\d+(\.\d*)?", cell):
            yield (
                f"odd: class {cell} of {sheet.table.name}, column {column} ({n} scans): a number "
                "below zero often marks what nobody is sure of, and then is no class; take such "
                "lines out"
            )


def _check_repeats(told: Sequence[tuple[Sheet, tuple[str, Callable[[Cells], str]]]]) -> None:
    """A scan has one class, in all lines and tables."""
    first: dict[str, tuple[str, str, int]] = {}
    for sheet, (column, of_row) in told:
        for scan, line, row in _lines(sheet):
            if is_blank(of_row(row)):
                continue
            name, label, where = first.setdefault(scan, (sheet.table.name, of_row(row), line))
            if label != of_row(row):
                raise UserError(
                    f"{sheet.table.name}:{line}: this {sheet.column} has another {column} in line "
                    f"{where} of {name}; correct one of the two, or take one value against all "
                    "others with --positive (a scan is positive if one of its lines is)"
                )


def _check_one_patient(sheet: Sheet, column: str) -> None:
    """Raises UserError where two lines give one scan to two patients."""
    first: dict[str, tuple[str, int]] = {}
    for line, row in sheet.table.rows:
        scan, patient = tidy(row[sheet.column]), tidy(row[column])
        if is_blank(scan) or is_blank(patient):
            continue
        other, where = first.setdefault(scan, (patient, line))
        if other != patient:
            raise UserError(
                f"{sheet.table.name}:{line}: this {sheet.column} has another {column} in line "
                f"{where}; correct one of the two"
            )


def _patient(
    sheet: Sheet,
    column: str | None,
    scan: str,
    line: int,
    row: Cells,
    patient_of: dict[str, str],
) -> None:
    if column is None:
        return
    patient = tidy(row[column])
    if is_blank(patient):
        if simplified(column) in LESION:
            return
        raise UserError(f"{sheet.table.name}:{line}: {column} is blank; name who is on the scan")
    patient_of.setdefault(scan, patient)
