"""``scans.csv``: the one door. Importers write this table, a person reads it, ``run`` reads it.

One row a scan: ``file`` (several joined by ``;`` for several sequences), ``class``, and perhaps
``patient``, ``mask``, ``group``, ``site``, ``part``, ``slice`` and any further column as a
covariate. Paths are relative to the table. What two readers could understand differently is
refused, with the lines.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medaug.data.canonical import alike_classes, alike_ids, is_blank, tidy
from medaug.data.columns import NEEDED, SYNONYMS, part_column, part_said, roles_of, simplified
from medaug.data.labels import Table, read_table
from medaug.data.masks import names_a_mask
from medaug.data.names import JOIN
from medaug.errors import UserError

TABLE = "scans.csv"
STUDY, POOL, EXTERNAL = "study", "pool", "external"
PUBLISHED = ("train", "val", "test")
PARTS = (STUDY, POOL, EXTERNAL, *PUBLISHED)
"""``pool`` has no class and is never scored; ``external`` is another cohort; the publisher's own
``train``, ``val`` and ``test`` are of the study."""


@dataclass(frozen=True)
class Row:
    """One scan, its paths relative to what lists it."""

    files: tuple[str, ...]
    """One per sequence, with ``/``."""
    label: str | None
    """The class as it is written; None in the pool."""
    patient: str | None = None
    masks: tuple[str, ...] = ()
    group: str | None = None
    site: str | None = None
    part: str = STUDY
    slice: int | None = None
    """Position of a 2-D image in its patient's series, where it is known."""
    covariates: Mapping[str, str] = field(default_factory=dict)
    line: int | None = None

    @property
    def unit(self) -> str:
        """Whom a split keeps together: the group, else the patient, else the scan itself."""
        return self.group or self.patient or self.files[0]

    @property
    def scored_in(self) -> str:
        return STUDY if self.part in PUBLISHED else self.part


@dataclass(frozen=True)
class ScanTable:
    """All rows of a table, every rule of which holds."""

    name: str
    rows: tuple[Row, ...]
    columns: Mapping[str, str]
    """Role -> the column that plays it."""
    notes: tuple[str, ...] = ()

    @staticmethod
    def read(
        path: Path,
        *,
        similar_ids: bool = False,
        labelled: bool = True,
        patient: str | None = None,
    ) -> ScanTable:
        """Read and check ``path``. ``patient``: the column that says who is on a scan. Without
        ``labelled``, nobody asks for classes: there need be no such column, and all rows are of
        the part ``pool``.

        Raises:
            UserError: with line numbers, for anything that could mean two things.
        """
        found = read_table(path)
        columns = roles_of(found, NEEDED if labelled else NEEDED[:1], patient)
        notes: list[str] = []
        if "part" not in columns:
            free = [name for name in found.columns if name not in columns.values()]
            column, more = part_column(free, [cells for _, cells in found.rows])
            columns |= {"part": column} if column else {}
            notes += [f"{found.name}: {note}" for note in more]
        rows = [_row(found, line, cells, columns) for line, cells in found.rows]
        if not labelled:
            rows = [replace(row, part=POOL, label=None) for row in rows]
        rows = _without_repeats(found.name, rows, notes)
        _check_named(found.name, rows, columns)
        check_rows(found.name, rows, similar_ids=similar_ids)
        extra = [name for name in found.columns if name not in columns.values()]
        if extra:
            notes.append(
                f"{found.name}: {len(extra)} further columns are not kept, but for those that "
                "data.covariates names"
            )
        rows.sort(key=lambda row: row.files)  # whatever the order of the lines
        return ScanTable(found.name, tuple(rows), columns, tuple(notes))

    def as_part(self, part: str) -> ScanTable:
        """All scans that have a class as ``part``, whatever part they were of; a note counts the
        others."""
        rows = [row for row in self.rows if row.part != POOL]
        left = len(self.rows) - len(rows)
        notes = [f"{self.name}: {left} scans of the part {POOL} have no class: left out"]
        return replace(
            self,
            rows=tuple(replace(row, part=part) for row in rows),
            notes=(*self.notes, *(notes if left else [])),
        )

    def write(self, path: Path, base: Path) -> None:
        """Write the rows, whose paths are relative to ``base``, relative to ``path``."""
        path.write_text(self.text(Path(os.path.relpath(base.resolve(), path.parent.resolve()))))

    def text(self, base: Path = Path()) -> str:
        """The table as CSV; columns that nothing fills are left out."""
        lines = [_cells(row, base) for row in self.rows]
        used = {name for cells in lines for name, cell in cells.items() if cell}
        extra = dict.fromkeys(further(name) for row in self.rows for name in row.covariates)
        columns = [name for name in (*SYNONYMS, *extra) if name in used or name in NEEDED]
        stream = io.StringIO()
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return stream.getvalue()


def lines_of(rows: Iterable[Row | int | None], most: int = 5) -> str:
    """``lines 3, 7, 9 … (12 in all)``."""
    lines = [row.line if isinstance(row, Row) else row for row in rows]
    numbers = sorted(line for line in lines if line is not None)
    if not numbers:
        return f"{len(lines)} scans"
    shown = ", ".join(map(str, numbers[:most]))
    more = f" … ({len(numbers)} in all)" if len(numbers) > most else ""
    return f"line{'s' * (len(numbers) > 1)} {shown}{more}"


def check_rows(name: str, rows: Sequence[Row], *, similar_ids: bool = False) -> None:
    """The rules that hold between rows, whoever made them.

    Raises:
        UserError: one does not; ``name`` is what lists the rows.
    """
    if not rows:
        raise UserError(f"{name}: lists no scans; write one line for each")
    _check_classes(name, rows)
    _check_patients(name, rows, similar_ids)
    _check_files(name, rows)
    _check_parts(name, rows)


def _row(found: Table, line: int, cells: Mapping[str, str], columns: Mapping[str, str]) -> Row:
    def cell(role: str) -> str:
        return tidy(cells[columns[role]]) if role in columns else ""

    def paths(role: str) -> tuple[str, ...]:
        written = cells[columns[role]].strip() if role in columns else ""
        if "/" not in written:  # as Windows writes paths
            written = written.replace("\\", "/")
        return tuple(
            part.strip().removeprefix("./") for part in written.split(JOIN) if part.strip()
        )

    where = f"{found.name}:{line}"
    if not (files := paths("file")):
        raise UserError(f"{where}: names no file; write its path, or take the line out")
    said = "" if is_blank(cell("part")) else cell("part")
    part = part_said(said) or said.casefold() or STUDY
    if part not in PARTS:
        raise UserError(f"{where}: part '{part[:16]}'; write one of {', '.join(PARTS)}")
    number = cell("slice")
    if number and not (number.isascii() and number.isdecimal()):
        raise UserError(f"{where}: slice is no whole number; correct it")
    said = cell("class")
    patient, group = cell("patient"), cell("group")
    return Row(
        files=files,
        label=None if part == POOL else said,
        patient=None if is_blank(patient) else patient,
        masks=paths("mask"),
        group=None if is_blank(group) else group,
        site=cell("site") or None,
        part=part,
        slice=int(number) if number else None,
        covariates={c: tidy(cells[c]) for c in found.columns if c not in columns.values()},
        line=line,
    )


def _without_repeats(name: str, rows: Iterable[Row], notes: list[str]) -> list[Row]:
    """Rows that say the same twice are one."""
    first: dict[Row | tuple[str, ...], Row] = {}
    repeated = 0
    for row in rows:
        known = first.setdefault(row.files, row)
        if known is row:
            continue
        for what in ("label", "patient", "group", "part", "masks"):
            if getattr(known, what) != getattr(row, what):
                word = "class" if what == "label" else what
                raise UserError(
                    f"{name}: {lines_of([known, row])} list one file with another {word}: this "
                    "file has another further up; correct one of the two"
                )
        repeated += 1
    if repeated:
        notes.append(f"{name}: {repeated} lines repeat an earlier one")
    return list(first.values())


def _check_classes(name: str, rows: Sequence[Row]) -> None:
    told = [row for row in rows if row.part != POOL]
    if bare := [row for row in told if row.label is None or is_blank(row.label)]:
        raise UserError(
            f"{name}: {lines_of(bare)}: the class is blank, nan or N/A; write what a person said, "
            "or part pool for scans without a class"
        )
    lines: dict[str, list[int | None]] = defaultdict(list)
    for row in told:
        lines[tidy(row.label or "")].append(row.line)
    for a, b in alike_classes(lines):
        raise UserError(
            f"{name}: class '{a}' ({lines_of(lines[a], 3)}) and class '{b}' "
            f"({lines_of(lines[b], 3)}) are spellings of one; write one of them throughout"
        )


def _check_patients(name: str, rows: Sequence[Row], similar_ids: bool) -> None:
    for what in ("patient", "group"):
        named = [row for row in rows if getattr(row, what) is not None]
        bare = [row for row in rows if getattr(row, what) is None and row.part != POOL]
        if named and bare and what == "patient" and any(row.group is None for row in bare):
            raise UserError(
                f"{name}: {lines_of(bare)}: the patient is blank, and {len(named)} lines name one; "
                "name who is on the scan"
            )
        lines: dict[str, list[int | None]] = defaultdict(list)
        for row in named:
            lines[getattr(row, what)].append(row.line)
        for a, b in () if similar_ids else alike_ids(lines):
            raise UserError(
                f"{name}: {what} '{a}' ({lines_of(lines[a], 3)}) and '{b}' "
                f"({lines_of(lines[b], 3)}) seem to be one person's; write one spelling, or set "
                "data.accept.similar_ids if they are two people's"
            )
    groups: dict[str, Row] = {}
    for row in rows:
        if row.patient is None:
            continue
        other = groups.setdefault(row.patient, row)
        if other.group != row.group:
            raise UserError(
                f"{name}: {lines_of([other, row])}: one patient in two groups; a patient is in one"
            )


def _check_named(name: str, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """A column of patients names some."""
    for role in ("patient", "group"):
        if role in columns and not any(row.patient or row.group for row in rows):
            raise UserError(
                f"{name}: {lines_of(rows)}: {columns[role]} is empty; name who is on the scan, or "
                "take the column out: then every scan counts as a patient of its own"
            )


def _check_files(name: str, rows: Sequence[Row]) -> None:
    channels = Counter(len(row.files) for row in rows)
    usual = channels.most_common(1)[0][0]
    if odd := [row for row in rows if len(row.files) != usual]:
        raise UserError(
            f"{name}: {lines_of(odd)}: {len(odd[0].files)} sequences, the other lines have "
            f"{usual}; list the same sequences in the same order, or take these lines out"
        )
    images = {file: row for row in rows for file in row.files}
    masks = {file: row for row in rows for file in row.masks}
    if both := sorted(images.keys() & masks.keys()):
        raise UserError(
            f"{name}: {lines_of([images[f] for f in both])}: the file is a mask of another line; "
            "a mask is no scan, take the lines out"
        )
    mistaken = [row for file, row in images.items() if names_a_mask(file, images.keys())]
    if mistaken:
        raise UserError(
            f"{name}: {lines_of(mistaken)}: the file is named as the mask of another line's; write "
            "it into the column mask there"
        )


def _check_parts(name: str, rows: Sequence[Row]) -> None:
    part_of: dict[str, Row] = {}
    for row in rows:
        if row.patient is None and row.group is None:
            continue
        other = part_of.setdefault(row.unit, row)
        if other.scored_in != row.scored_in:
            raise UserError(
                f"{name}: {lines_of([other, row])}: one patient in the parts {other.part} and "
                f"{row.part}; what is learnt from one part would be scored in the other"
            )


def further(column: str) -> str:
    """The name of a further column, changed where it would be read as that of another role."""
    taken = any(simplified(column) in names for names in SYNONYMS.values())
    return f"further {column}" if taken else column


def _cells(row: Row, base: Path) -> dict[str, str]:
    def joined(files: Iterable[str]) -> str:
        return JOIN.join((base / file).as_posix() for file in files)

    return {
        **{further(name): cell for name, cell in row.covariates.items()},
        "file": joined(row.files),
        "class": row.label or "",
        "patient": row.patient or "",
        "mask": joined(row.masks),
        "group": row.group or "",
        "site": row.site or "",
        "part": "" if row.part == STUDY else row.part,
        "slice": "" if row.slice is None else str(row.slice),
    }
