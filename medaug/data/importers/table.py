"""A folder that already has its table."""

from __future__ import annotations

from dataclasses import dataclass

from medaug.data.importers.base import Found, Look, Options, ordered
from medaug.data.importers.people import one_person_each
from medaug.data.importers.places import about_places
from medaug.data.importers.tree import Tree
from medaug.data.names import stem_of
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
        table = ScanTable.read(tree.root / TABLE, patient=options.patient_column)
        notes = [*table.notes, *about_patients(table)]
        found = Found(list(table.rows), tables=[TABLE], notes=notes, written=True)
        found.classes = ordered(row.label for row in table.rows if row.label)
        found.alone = all(row.patient is None and row.group is None for row in table.rows)
        return found


def about_patients(table: ScanTable) -> list[str]:
    """Which column says who is on a scan; without one, what file names let one see of it."""
    named = [role for role in ("patient", "group") if role in table.columns]
    named = [role for role in named if any(getattr(row, role) for row in table.rows)]
    if named:
        told = f"patients are those of {table.name}, column {table.columns[named[-1]]}"
        return [told, *about_places(table.rows)]
    notes = [
        f"{table.name}: no column patient or group, so every scan counts as a patient of its own; "
        "if one person has several, add the column or scores leak"
    ]
    stems = [stem_of(row.files[0]) for row in table.rows]
    people = len(set(one_person_each(stems)[0].values()))
    if len(set(stems)) == len(stems) > people:
        notes.append(
            f"{table.name}: by time points and sides at the end of file names, {len(stems)} scans "
            f"may be of {people} people; say who is who in a column patient"
        )
    return notes
