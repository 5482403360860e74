"""Images or volumes, and a table that says their classes: HAM10000, ISIC, NIH, metadata.csv."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from medaug.data.image_patients import PATIENT_TABLES
from medaug.data.importers.base import Found, Look, Options, ordered, patient_by
from medaug.data.importers.folders import person_in
from medaug.data.importers.people import one_person_each
from medaug.data.importers.sheets import (
    LESION,
    Said,
    Sheet,
    file_aliases,
    near_miss,
    said_by,
    sheets_of,
)
from medaug.data.importers.tree import Tree, parts_of
from medaug.data.names import stem_of
from medaug.data.table import STUDY, Row
from medaug.errors import UserError


@dataclass(frozen=True)
class CsvImages:
    """Files anywhere below ``DIR``, and one or more tables with a column that names them (by path,
    name, name without ending, number, or folder), a column that is the class (or one column a
    class), and perhaps one that names patients (or lesions). Further columns become covariates.
    """

    name: str = "csv_images"

    def looks_like(self, tree: Tree) -> Look | None:
        scans = _scans(tree)
        if not scans or not tree.tables:
            return None
        sheets = _sheets(tree, scans, {})
        if not sheets:
            return None
        try:
            said = said_by(sheets, Options())
        except UserError:  # one that rows() will say
            return Look(0.6, f"{sheets[0].table.name} names the files")
        if said is None:
            return Look(0.35, f"{sheets[0].table.name} names the files, but not their classes")
        lines = {line for line, _ in sheets[0].row_of.values()}
        if {*sheets[0].row_of} <= {*tree.dicom} and len(lines) < len(sheets[0].row_of):
            return Look(0.4, f"{sheets[0].table.name} names folders of DICOM files")  # series
        share = len({**said.class_of, **said.several}) / len(scans)
        return Look(
            0.5 + 0.4 * share, f"{sheets[0].table.name} names {share:.0%} of the files with classes"
        )

    def rows(self, tree: Tree, options: Options) -> Found:
        found = Found([])
        scans = _scans(tree)
        problems: dict[str, str] = {}
        sheets = _sheets(tree, scans, problems)
        said = said_by(sheets, options) if sheets else None
        if said is None:
            if problems and not sheets:
                raise UserError(next(iter(problems.values())))
            columns = ", ".join(sheets[0].columns()) if sheets else "none"
            raise UserError(
                f"data.root: no table says the classes of its {len(scans)} files (columns: "
                f"{columns}); say which column is the class with --class COLUMN, or write "
                "scans.csv with the columns file,class[,patient][,mask]"
            )
        found.tables += [sheet.table.name for sheet in sheets]
        for sheet in sheets:
            found.absent(sheet.table.name, sheet.lines_left)
        found.notes += [f"classes are those of {sheets[0].table.name}, {said.column}", *said.notes]
        self._list(tree, scans, sheets, said, options, found)
        found.classes = ordered(row.label for row in found.rows if row.label)
        if options.positive:
            found.classes = ("other", options.positive)
        return found

    def _list(
        self,
        tree: Tree,
        scans: Collection[str],
        sheets: list[Sheet],
        said: Said,
        options: Options,
        found: Found,
    ) -> None:
        for name in scans:
            if name in said.several:
                found.leave_out(name, said.several[name])
            elif name not in said.class_of:
                found.reject([name], near_miss(name, sheets), bare=True)
        listed = [name for name in scans if name in said.class_of]
        people = _people(listed, said, options, found)
        for name in listed:
            found.rows.append(
                Row(
                    files=(name,),
                    label=said.class_of[name],
                    patient=people[name],
                    masks=tree.masks.get(name, ()),
                    group=said.group_of.get(name),
                    part=STUDY,
                    covariates=said.covariates.get(name, {}),
                )
            )


def _scans(tree: Tree) -> list[str]:
    files = [*tree.pictures, *tree.volumes, *tree.dicom]
    return sorted({name for name in files if name not in tree.mask_files})


def _sheets(tree: Tree, scans: Collection[str], problems: dict[str, str]) -> list[Sheet]:
    sheets = sheets_of(tree, file_aliases(scans), problems)
    return [sheet for sheet in sheets if sheet.table.name not in PATIENT_TABLES] and sheets


def _people(listed: Collection[str], said: Said, options: Options, found: Found) -> dict[str, str]:
    """Scan -> patient: by expression, by the table, else by its own name."""
    people = {name: patient for name in listed if (patient := patient_by(options, name))}
    if options.patients is not None:
        return {name: people.get(name, name) for name in listed}
    if said.patient_of:
        return {name: said.patient_of.get(name, name) for name in listed}
    if said.group_of:
        return {name: said.group_of.get(name, name) for name in listed}
    folders = {name: person for name in listed if (person := person_in(parts_of(name)))}
    if len(folders) == len(listed):
        by_folder, notes = one_person_each(folders.values())
        people = {name: by_folder[person] for name, person in folders.items()}
        found.notes += [f"patients are the {len({*people.values()})} folders of people", *notes]
        return people
    stems = [stem_of(name) for name in listed]
    unique = len(set(stems)) == len(stems)
    by_stem, notes = one_person_each(stems)
    found.notes += notes
    found.notes.append(
        f"no column {' or '.join(('patient', *LESION[:1]))}: every image counts as a patient of "
        "its own; if one person has several, add the column or scores leak"
    )
    people = {name: by_stem[stem_of(name)] if unique else name for name in listed}
    found.alone = len(set(people.values())) == len(people)
    return people
