"""Tables that come with a folder: which of their columns names its scans."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from medaug.data.canonical import id_form, tidy
from medaug.data.columns import SYNONYMS, simplified
from medaug.data.importers.base import is_guessed
from medaug.data.importers.cells import Cells
from medaug.data.importers.folders import part_in, part_in_title
from medaug.data.importers.tree import Tree, folder_of, parts_of
from medaug.data.labels import Table, read_table
from medaug.data.names import PICTURES, SLICES, VOLUMES, ending_of, stem_of
from medaug.errors import UserError

Aliases = Mapping[str, Sequence[Sequence[str]]]
"""Scan -> what a table may call it: one sequence of names for each way of naming."""

_COUNTS = frozenset("index idx no nr number row rownumber sno slno serial".split())
_ENDINGS = PICTURES | SLICES | VOLUMES
LEAST = 0.5
_UNLIKE = 0.9
"""Share of a column's cells that differ, where they are ids."""


@dataclass(frozen=True)
class Sheet:
    """A table, and the line of each scan that it speaks of."""

    table: Table
    column: str
    row_of: Mapping[str, tuple[int, Cells]]
    lines_left: int
    """Lines that speak of no scan here."""
    beginnings: bool = False
    """Whether its ids are what names begin with: ``P1`` for ``P1_scan2``."""

    def columns(self, *taken: str) -> list[str]:
        return [c for c in self.table.columns if c and c not in taken and c != self.column]

    def without_class(self, whom: str) -> str:
        """What to say where it names ``whom``, and nobody says which column is the class."""
        return (
            f"{self.table.name}: names the {whom}, but no column is called a class (columns: "
            f"{', '.join(self.columns())}); say which one is with --class COLUMN"
        )


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


def sheets_of(
    tree: Tree,
    aliases: Aliases,
    problems: dict[str, str] | None = None,
    *,
    near: bool = False,
    form: Callable[[str], str] | None = None,
) -> list[Sheet]:
    """The tables of ``tree`` that speak of at least half of the scans, or half of whose lines
    speak of scans; the best first. Tables that cannot be read go to ``problems``. ``near``: they
    may write ids in another spelling; ``form``: what cells and names are compared by."""
    found = []
    form = near_form if near else form
    for name in tree.tables:
        if is_guessed(name):
            continue
        try:
            table = read_table(tree.path(name))
        except UserError as error:
            if problems is not None:
                problems[name] = str(error)
            continue
        table = replace(table, name=name)
        sheet = matched(table, aliases, form=form or tidy)
        if form is None and (sheet is None or len(sheet.row_of) < LEAST * len(aliases)):
            sheet = _longer(sheet, by_beginnings(table, aliases))
        n_lines = len(table.rows) - sheet.lines_left if sheet else 0
        if sheet and max(len(sheet.row_of) / len(aliases), n_lines / len(table.rows)) >= LEAST:
            found.append(sheet)
    return sorted(found, key=lambda sheet: -len(sheet.row_of))


def near_form(name: str) -> str:
    """What spellings of one id have in common, as text."""
    return " ".join(id_form(name))


def matched(
    table: Table,
    aliases: Aliases,
    among: Iterable[str] | None = None,
    form: Callable[[str], str] = tidy,
) -> Sheet | None:
    """The column of ``table`` that names most scans; None where none names any.

    Raises:
        UserError: two ids name one scan.
    """
    best: Sheet | None = None
    columns = table.columns if among is None else among
    # A column of masks names these, not the scans.
    columns = [c for c in columns if simplified(c) not in SYNONYMS["mask"]]
    for way in range(max(map(len, aliases.values()), default=0)):
        scans: dict[str, list[str]] = defaultdict(list)
        for scan, names in aliases.items():
            for name in names[way] if way < len(names) else ():
                scans[form(name)].append(scan)
        sheets = [_by_column(table, column, scans, form) for column in columns]
        most = max((len(sheet.row_of) for sheet in sheets), default=0)
        if most > (len(best.row_of) if best else 0):
            best = _one_of([sheet for sheet in sheets if len(sheet.row_of) == most])
    return best


def _by_column(
    table: Table, column: str, scans: Mapping[str, list[str]], form: Callable[[str], str]
) -> Sheet:
    rows: dict[str, tuple[int, Cells]] = {}
    left = 0
    spelt: dict[str, str] = {}
    for line, row in table.rows:
        raw = tidy(row[column]).removeprefix("./").replace("\\", "/")
        cell = form(raw)
        hit = _nearest(table.name, named(scans, cell))
        if hit and (other := spelt.get(cell, raw)) != raw:
            raise UserError(
                f"{table.name}:{line}: '{raw}' and '{other}' further up are spellings of one id; "
                "write one of them"
            )
        left += not hit
        for scan in () if cell in spelt else hit:
            rows.setdefault(scan, (line, row))
        spelt.setdefault(cell, raw)
    return Sheet(table, column, rows, left)


def _nearest(table: str, hit: Sequence[str]) -> Sequence[str]:
    """Of scans of one name those that the table is of: in its folder, or of the part that it is
    called after (``b. IDRiD_Testing Labels.csv``)."""
    if len(hit) < 2:
        return hit
    folder = f"{folder_of(table)}/"
    inside = [scan for scan in hit if folder != "/" and scan.startswith(folder)]
    part = part_in(parts_of(table)) or part_in_title(stem_of(table))
    told = [scan for scan in hit if part is not None and part_in(parts_of(scan)) == part]
    return next((found for found in (inside, told) if len(found) == 1), hit)


def by_beginnings(table: Table, aliases: Aliases) -> Sheet | None:
    """The column of ids with which names begin, up to a separator: ``TCGA_CS_4941`` of the folder
    ``TCGA_CS_4941_19960909``. The longest id counts, so that ``P1_0`` is not ``P1``'s."""
    best: Sheet | None = None
    for column in table.columns:
        cells = [tidy(row[column]) for _, row in table.rows]
        if _rank(column) > 1 or len({*cells}) < _UNLIKE * len(cells):
            continue
        of_cell = {tidy(row[column]): (line, row) for line, row in table.rows}
        rows = {}
        for scan, ways in aliases.items():
            names = {_bare(name.rpartition("/")[2]) for name in ways[0]}
            starts = (start for name in sorted(names) for start in _beginnings(name))
            fitting = [start for start in starts if start in of_cell]
            if fitting:
                rows[scan] = of_cell[max(fitting, key=len)]
        left = len(table.rows) - len({line for line, _ in rows.values()})
        best = _longer(best, Sheet(table, column, rows, left, beginnings=True) if rows else None)
    return best


def _bare(name: str) -> str:
    return name[: -len(ending_of(name))] if ending_of(name) in _ENDINGS else name


def _beginnings(name: str) -> Iterator[str]:
    return (name[: match.start()] for match in re.finditer(r"(?<=\w)[_. -]", name))


def _longer(a: Sheet | None, b: Sheet | None) -> Sheet | None:
    return b if b is not None and (a is None or len(b.row_of) > len(a.row_of)) else a


def _one_of(sheets: Sequence[Sheet]) -> Sheet:
    """Of columns that name as many scans the one that is called like it.

    Raises:
        UserError: two are, and do not name the same.
    """
    first, *others = sorted(sheets, key=lambda sheet: _rank(sheet.column))
    for other in others:
        if _rank(other.column) > _rank(first.column):
            break
        if any(other.row_of.get(scan, row)[0] != row[0] for scan, row in first.row_of.items()):
            raise UserError(
                f"{first.table.name}:1: columns {first.column} and {other.column} both name the "
                "scans, and not the same ones in a line; call one of them file, or take one out"
            )
    return first


def _rank(column: str) -> int:
    """How little the name of a column says that it names scans."""
    name = simplified(column)
    if name in SYNONYMS["file"] or re.search("image|img|file|path|scan", name):
        return 0
    if not name or name.startswith("unnamed") or name in _COUNTS:
        return 3
    return 1 if name.endswith("id") or name in SYNONYMS["patient"] else 2


def named(scans: Mapping[str, list[str]], cell: str) -> Sequence[str]:
    """The scans that ``cell`` names. A path from further up, perhaps of another machine, names the
    one that its longest end fits."""
    if cell in scans:
        return scans[cell]
    if ending_of(cell) in _ENDINGS and (bare := cell[: -len(ending_of(cell))]) in scans:
        return scans[bare]  # a list of x.dcm, unpacked as x.png
    parts = cell.split("/")
    ends = ("/".join(parts[i:]) for i in range(1, len(parts)))
    hit = next((scans[end] for end in ends if end in scans), [])
    return hit if len(hit) == 1 else ()
