"""A folder that already has its table."""

from __future__ import annotations

from dataclasses import dataclass

from medaug.data.importers.base import Found, Look, Options, ordered
from medaug.data.importers.tree import Tree
from medaug.data.table import TABLE, ScanTable
from medaug.errors import UserError


@dataclass(frozen=True)
class OwnTable:
    """``DIR/scans.csv`` (see :mod:`medaug.data.table`)."""

    name: str = "table"

    def looks_like(self, tree: Tree) -> Look | None:
        return Look(1.0, f"{TABLE} lists the scans") if TABLE in tree else None

    def rows(self, tree: Tree, options: Options) -> Found:
        if not (tree.root / TABLE).exists():
            raise UserError(f"data.root: holds no {TABLE}; check data.root")
        table = ScanTable.read(tree.root / TABLE)
        notes = list(table.notes)
        found = Found(list(table.rows), tables=[TABLE], notes=notes, written=True)
        found.classes = ordered(row.label for row in table.rows if row.label)
        found.alone = all(row.patient is None and row.group is None for row in table.rows)
        return found
