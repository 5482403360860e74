"""Images or volumes, and a table that says their classes: HAM10000, ISIC, NIH, metadata.csv."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from medaug.data.canonical import tidy
from medaug.data.columns import SYNONYMS, simplified
from medaug.data.formats import UNREAD
from medaug.data.image_patients import PATIENT_TABLES
from medaug.data.importers.base import Found, Look, Options, as_published, ordered, patient_by
from medaug.data.importers.dicom_people import images_by_id
from medaug.data.importers.folders import part_in, person_in
from medaug.data.importers.naming import Sheet, file_aliases, named, sheets_of
from medaug.data.importers.near import near_miss
from medaug.data.importers.people import one_person_each
from medaug.data.importers.sheets import LESION, Said, said_by
from medaug.data.importers.tree import Tree, parts_of
from medaug.data.names import ending_of, stem_of
from medaug.data.table import EXTERNAL, PUBLISHED, STUDY, Row
from medaug.errors import UserError


@dataclass(frozen=True)
class CsvImages:
    """Files anywhere below ``DIR``, and one or more tables with a column that names them (by path,
    name, name without ending, number, or folder), a column that is the class (or one column a
    class), and perhaps one that names patients (or lesions). Further columns become covariates.
    """

    name: str = "csv_images"

    def looks_like(self, tree: Tree) -> Look | None:
        if not tree.tables:
            return None
        scans, _, sheets = _named(tree, {})
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
        problems: dict[str, str] = {}
        scans, masks, sheets = _named(tree, problems)
        _check_names(tree, scans, sheets)
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
        found.notes += [f"classes are those of {said.table}, {said.column}", *said.notes]
        self._list(tree, scans, masks, sheets, said, options, found)
        found.rows = as_published(found.rows)
        found.classes = ordered(row.label for row in found.rows if row.label)
        if options.positive:
            found.classes = ("other", options.positive)
        return found

    def _list(
        self,
        tree: Tree,
        scans: Collection[str],
        masks: Mapping[str, str],
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
        people = _people(tree, listed, said, options, found)
        for name in listed:
            found.rows.append(
                Row(
                    files=(name,),
                    label=said.class_of[name],
                    patient=people[name],
                    masks=(masks[name],) if name in masks else tree.masks.get(name, ()),
                    group=said.group_of.get(name),
                    site=said.site_of.get(name),
                    part=said.part_of.get(name) or _part(name, sheets),
                    covariates=said.covariates.get(name, {}),
                )
            )


def _part(name: str, sheets: Iterable[Sheet]) -> str:
    """By the folders of a file, or by the name of the table that lists it: ``test.csv``."""
    stems = (stem_of(sheet.table.name) for sheet in sheets if name in sheet.row_of)
    said = part_in(parts_of(name)) or part_in(stems)
    return said if said in (*PUBLISHED, EXTERNAL) else STUDY


def _named(tree: Tree, problems: dict[str, str]) -> tuple[list[str], dict[str, str], list[Sheet]]:
    """The scans, the masks that a column of a table names for them, and the tables."""
    scans = _scans(tree)
    sheets = _sheets(tree, scans, problems) if scans else []
    masks = _masks_said(sheets, (*tree.pictures, *tree.volumes))
    told = {name for sheet in sheets for name in sheet.row_of}
    others = {*masks.values()} | {name for name in scans if ending_of(name) in UNREAD} - told
    return [name for name in scans if name not in others], masks, sheets


def _masks_said(sheets: Sequence[Sheet], files: Collection[str]) -> dict[str, str]:
    """Scan -> its mask, where a column called so names one of ``files``."""
    index: dict[str, list[str]] = defaultdict(list)
    for file, ways in file_aliases(files).items():
        for name in ways[0]:
            index[tidy(name)].append(file)
    masks = {}
    for sheet in sheets:
        for column in (c for c in sheet.columns() if simplified(c) in SYNONYMS["mask"]):
            for scan, (_, row) in sheet.row_of.items():
                cell = tidy(row[column]).removeprefix("./").replace("\\", "/")
                hit = named(index, cell)
                if len(hit) == 1 and hit[0] != scan:
                    masks[scan] = hit[0]
    return masks


def _check_names(tree: Tree, scans: Iterable[str], sheets: Iterable[Sheet]) -> None:
    """Raises UserError where a table calls different pictures by one name, or has no header."""
    names = {name for ways in file_aliases(scans).values() for name in ways[0]}
    for sheet in sheets:
        if headless := [column for column in sheet.table.columns if tidy(column) in names]:
            raise UserError(
                f"{sheet.table.name}:1: the first line names a scan ({headless[0]}); write a line "
                "of column names above it, as file,class"
            )
        of_line: dict[int, list[str]] = defaultdict(list)
        for scan, (line, _) in sheet.row_of.items():
            of_line[line].append(scan)
        for line, several in of_line.items():
            stem = stem_of(several[0])
            alike = [name for name in several if stem_of(name) == stem]
            cell = tidy(sheet.row_of[several[0]][1][sheet.column])
            if len(alike) < 2 or stem_of(cell) != stem or stem in parts_of(alike[0]):
                continue
            first, *others = (tree.root / name for name in alike)
            if not all(filecmp.cmp(first, other, shallow=False) for other in others):
                raise UserError(
                    f"{sheet.table.name}:{line}: '{cell}' names {len(alike)} different pictures "
                    f"({alike[0]} and {alike[1]}); write paths, or move those away that are not "
                    "meant"
                )


def _scans(tree: Tree) -> list[str]:
    files = [*tree.pictures, *tree.volumes, *tree.dicom]
    return sorted({name for name in files if name not in tree.mask_files})


def _sheets(tree: Tree, scans: Collection[str], problems: dict[str, str]) -> list[Sheet]:
    sheets = sheets_of(tree, file_aliases(scans), problems)
    return [sheet for sheet in sheets if sheet.table.name not in PATIENT_TABLES] and sheets


def _people(
    tree: Tree, listed: Collection[str], said: Said, options: Options, found: Found
) -> dict[str, str]:
    """Scan -> patient: by expression, by the table, by DICOM's PatientID, else by its own name."""
    people = {name: patient for name in listed if (patient := patient_by(options, name))}
    if options.patients is not None:
        return {name: people.get(name, name) for name in listed}
    if said.patient_of:
        return {name: said.patient_of.get(name, name) for name in listed}
    if said.group_of:
        return {name: said.group_of.get(name, name) for name in listed}
    by_id, notes = images_by_id(tree.root, [name for name in listed if name in {*tree.dicom}])
    if len(by_id) == len(listed) and len({*by_id.values()}) < len(listed):
        found.notes += notes
        return by_id
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
