"""Tables that come with a folder: which one speaks of its scans, and what it says of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from medaug.data.canonical import id_form, is_blank, near_id, tidy
from medaug.data.columns import SYNONYMS, refuse_unheard_people, simplified
from medaug.data.importers.base import Options, is_guessed
from medaug.data.importers.cells import SEVERAL, Cells, cells_of, listed
from medaug.data.importers.tree import Tree
from medaug.data.labels import Table, read_table
from medaug.data.names import ending_of, stem_of
from medaug.data.table import lines_of
from medaug.errors import UserError

Aliases = Mapping[str, Sequence[Sequence[str]]]
"""Scan -> what a table may call it: one sequence of names for each way of naming."""

CLASS_COLUMNS = (
    *("class", "classname", "label", "labels", "diagnosis", "dx", "diagnosisgroup", "target"),
    *("category", "grade", "whograde", "tumorgrade", "disease", "pathology", "findinglabels"),
    *("finding", "tumortype", "tumourtype", "subtype", "groundtruth", "benignmalignant", "hgglgg"),
    *("type", "status", "outcome", "hemorrhage", "haemorrhage", "y", "group"),
)
LESION = ("lesionid", "lesion")
_LEAST = 0.5
_MOST_CLASSES = 50


@dataclass(frozen=True)
class Sheet:
    """A table, and the line of each scan that it speaks of."""

    table: Table
    column: str
    row_of: Mapping[str, tuple[int, Cells]]
    lines_left: int
    """Lines that speak of no scan here."""

    def columns(self, *taken: str) -> list[str]:
        return [c for c in self.table.columns if c and c not in taken and c != self.column]


@dataclass(frozen=True)
class Said:
    """What tables say of scans."""

    class_of: dict[str, str]
    patient_of: dict[str, str]
    group_of: dict[str, str]
    covariates: dict[str, dict[str, str]]
    column: str
    """The class column, or ``one column a class``."""
    several: dict[str, str] = field(default_factory=dict)
    """Scans with several classes -> why they are left out."""
    notes: tuple[str, ...] = ()


def file_aliases(names: Iterable[str]) -> dict[str, list[list[str]]]:
    """How tables name files: by path or name, by the name without its ending, by its number, by
    the folder it lies in."""
    names = list(names)
    whole = {name: int(stem_of(name)) for name in names if stem_of(name).isdecimal()}
    numbered = len(whole) == len(names) and len(set(whole.values())) == len(whole)
    aliases = {}
    for name in names:
        parts = PurePosixPath(name).parts
        paths = ["/".join(parts[i:]) for i in range(len(parts))]
        bare = [path[: len(path) - len(ending_of(path))] for path in paths]
        aliases[name] = [
            paths + bare,
            [str(whole[name])] if numbered else [],
            list(parts[-2:-1]),
        ]
    return aliases


def sheets_of(tree: Tree, aliases: Aliases, problems: dict[str, str] | None = None) -> list[Sheet]:
    """The tables of ``tree`` that speak of at least half of the scans, or half of whose lines
    speak of scans; the best first. Tables that cannot be read go to ``problems``."""
    found = []
    for name in tree.tables:
        if is_guessed(name):
            continue
        try:
            table = read_table(tree.root / name)
        except UserError as error:
            if problems is not None:
                problems[name] = str(error)
            continue
        sheet = matched(table, aliases)
        n_lines = len(table.rows) - sheet.lines_left if sheet else 0
        if sheet and max(len(sheet.row_of) / len(aliases), n_lines / len(table.rows)) >= _LEAST:
            found.append(replace(sheet, table=replace(table, name=name)))
    return sorted(found, key=lambda sheet: -len(sheet.row_of))


def nearly_named(tree: Tree, names: Collection[str]) -> str | None:
    """Which table names at least half of ``names`` in another spelling (``7`` for ``007``), as a
    hint; None where none does."""
    wanted = {id_form(name): name for name in names}
    for table_name in () if len(wanted) < 2 else tree.tables:
        try:
            table = read_table(tree.root / table_name)
        except UserError:
            continue
        for column in table.columns:
            hits = {f: line for line, row in table.rows if (f := id_form(row[column])) in wanted}
            if len(hits) >= _LEAST * len(wanted):
                line = min(hits.values())
                return (
                    f"{table_name}:{line}: column {column or '1'} seems to name the scans in "
                    "another spelling; write ids as the files or folders are called"
                )
    return None


def matched(table: Table, aliases: Aliases, among: Iterable[str] | None = None) -> Sheet | None:
    """The column of ``table`` that names most scans; None where none names any."""
    ways = max(map(len, aliases.values()), default=0)
    best: Sheet | None = None
    for way in range(ways):
        scans: dict[str, list[str]] = defaultdict(list)
        for scan, names in aliases.items():
            for name in names[way] if way < len(names) else ():
                scans[tidy(name)].append(scan)
        for column in table.columns if among is None else among:
            rows: dict[str, tuple[int, Cells]] = {}
            left = 0
            seen: set[str] = set()
            for line, row in table.rows:
                cell = tidy(row[column]).removeprefix("./").replace("\\", "/")
                hit = _named(scans, cell)
                left += not hit
                for scan in () if cell in seen else hit:
                    rows.setdefault(scan, (line, row))
                seen.add(cell)
            if rows and (best is None or len(rows) > len(best.row_of)):
                best = Sheet(table, column, rows, left)
    return best


def _named(scans: Mapping[str, list[str]], cell: str) -> Sequence[str]:
    """The scans that ``cell`` names. A path from further up, perhaps of another machine, names the
    one that its longest end fits."""
    if cell in scans:
        return scans[cell]
    parts = cell.split("/")
    ends = ("/".join(parts[i:]) for i in range(1, len(parts)))
    hit = next((scans[end] for end in ends if end in scans), [])
    return hit if len(hit) == 1 else ()


def said_by(sheets: Sequence[Sheet], options: Options) -> Said | None:
    """Class, patient and covariates of the scans in ``sheets``; None where no column is a class.

    Raises:
        UserError: which column is the class, or the patient, is unclear; a class is blank.
    """
    told = [(sheet, way) for sheet in sheets if (way := class_way(sheet, options)) is not None]
    if not told:
        return None
    said = Said({}, {}, {}, {}, told[0][1][0])
    for sheet, (column, of_row) in told:
        if column != said.column:
            continue
        _read_classes(sheet, column, of_row, said, options)
    _check_repeats(told)
    return with_patients(said, sheets)


def with_patients(said: Said, sheets: Sequence[Sheet]) -> Said:
    """``said`` with what the sheets say of patients, and their further columns.

    Raises:
        UserError: no column is called patient, and another one seems to say who is on a scan.
    """
    notes = list(said.notes)
    for sheet in sheets:
        column = patient_column(sheet)
        group = next((c for c in sheet.columns() if simplified(c) in SYNONYMS["group"]), None)
        group = None if group == said.column else group
        if column is not None:
            _check_one_patient(sheet, column)
        for scan, (line, row) in sheet.row_of.items():
            _patient(sheet, column, scan, line, row, said.patient_of)
            if group and not is_blank(row[group]):
                said.group_of.setdefault(scan, tidy(row[group]))
            more = said.covariates.setdefault(scan, {})
            for name in sheet.columns(said.column, column or "", group or ""):
                more.setdefault(name, tidy(row[name]))
        if column or group:
            notes.append(f"patients are those of {sheet.table.name}, column {column or group}")
    if not said.patient_of and not said.group_of:
        for sheet in sheets:
            rows = [row for _, row in sheet.row_of.values()]
            refuse_unheard_people(sheet.table.name, rows, sheet.columns(said.column))
    return replace(said, notes=tuple(dict.fromkeys(notes)))


def patient_column(sheet: Sheet) -> str | None:
    """The column of patients; of lesions where there is none.

    Raises:
        UserError: two columns name patients, and do not say the same.
    """
    fitting = [c for c in sheet.columns() if simplified(c) in SYNONYMS["patient"]]
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


def near_miss(scan: str, sheets: Sequence[Sheet]) -> str:
    """Why a scan has no line in the tables, as a reason."""
    name = sheets[0].table.name if sheets else "the table"
    for sheet in sheets:
        if scan in sheet.row_of:  # a table that says other things than classes
            continue
        lines = {tidy(row[sheet.column]): line for line, row in sheet.table.rows}
        if (line := near_id(stem_of(scan), lines)) is not None:
            return f"has no label in {sheet.table.name}; line {line} is nearly the same id"
        name = sheet.table.name
        break
    return f"has no label in {name}; add a line for it"


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
    for scan, (line, row) in sheet.row_of.items():
        cell = of_row(row)
        if is_blank(cell):
            blank.append(line)
        elif options.positive is not None:
            found = cell.split(SEVERAL)
            said.class_of[scan] = options.positive if options.positive in found else "other"
        elif SEVERAL in cell:
            said.several[scan] = f"has several classes in column {column}; --positive takes one"
        else:
            said.class_of.setdefault(scan, cell)
    if blank:
        raise UserError(
            f"{sheet.table.name}: {lines_of(sorted(set(blank)))}: the class (column {column}) is "
            "blank, nan or N/A; write what a person said, or take the lines out"
        )


def _check_repeats(told: Sequence[tuple[Sheet, tuple[str, Callable[[Cells], str]]]]) -> None:
    """A scan has one class, in all lines and tables."""
    first: dict[str, tuple[str, str, int]] = {}
    for sheet, (column, of_row) in told:
        by_cell: dict[str, str] = {}
        for scan, (_, row) in sheet.row_of.items():
            by_cell[tidy(row[sheet.column])] = scan
        for line, row in sheet.table.rows:
            scan_or_none = by_cell.get(tidy(row[sheet.column]))
            if scan_or_none is None or is_blank(of_row(row)):
                continue
            name, label, where = first.setdefault(
                scan_or_none, (sheet.table.name, of_row(row), line)
            )
            if label != of_row(row) and column == told[0][1][0]:
                raise UserError(
                    f"{sheet.table.name}:{line}: this {sheet.column} has another {column} in line "
                    f"{where} of {name}; correct one of the two"
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
