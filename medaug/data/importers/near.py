"""Ids that are nearly those of scans: what a table seems to mean, said instead of guessed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from medaug.data.canonical import id_form, near_id, tidy
from medaug.data.importers.naming import LEAST, Sheet
from medaug.data.importers.tree import Tree
from medaug.data.labels import read_table
from medaug.data.names import ending_of, stem_of
from medaug.errors import UserError


def nearly_named(tree: Tree, names: Collection[str]) -> str | None:
    """Which table names at least half of ``names`` in another spelling (``7`` for ``007``), as a
    hint; None where none does."""
    wanted = {id_form(name): name for name in names}
    for table_name in () if len(wanted) < 2 else tree.tables:
        try:
            table = read_table(tree.path(table_name))
        except UserError:
            continue
        for column in table.columns:
            hits: dict[tuple[str, ...], tuple[int, str]] = {}
            for line, row in table.rows:
                cell = tidy(row[column])
                for said in (cell, _bare(cell)):
                    if (form := id_form(said)) in wanted:
                        hits.setdefault(form, (line, cell))
            if len(hits) >= LEAST * len(wanted):
                form, (line, cell) = min(hits.items(), key=lambda item: item[1])
                return (
                    f"{table_name}:{line}: column {column or '1'} seems to name the scans in "
                    f"another spelling ('{cell}' for '{wanted[form]}'); write ids as the files or "
                    "folders are called, or take such spellings for the same with --accept near_ids"
                )
    return None


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


def _bare(cell: str) -> str:
    """Of a path the name without its ending."""
    name = PurePosixPath(cell.replace("\\", "/")).name
    return name[: len(name) - len(ending_of(name))] or name
