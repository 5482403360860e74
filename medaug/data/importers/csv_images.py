"""Images or volumes, and a table that says their classes: HAM10000, ISIC, NIH, metadata.csv."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from medaug.data.address import of_frames
from medaug.data.canonical import tidy
from medaug.data.columns import SYNONYMS, simplified
from medaug.data.dicom_told import told as header_of
from medaug.data.formats import UNREAD
from medaug.data.image_patients import PATIENT_TABLES
from medaug.data.importers.base import Found, Look, Options, as_published, ordered, patient_by
from medaug.data.importers.dicom_people import images_by_id
from medaug.data.importers.folders import part_in, person_in
from medaug.data.importers.naming import Sheet, file_aliases, named, sheets_of
from medaug.data.importers.near import near_miss, nearly_named
from medaug.data.importers.people import one_person_each
from medaug.data.importers.sheets import LESION, Said, said_by
from medaug.data.importers.tree import Tree, parts_of
from medaug.data.names import ending_of, stem_of
from medaug.data.table import EXTERNAL, POOL, PUBLISHED, STUDY, Row
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
        listed = _named(tree, {})
        scans, sheets = listed.scans, listed.sheets
        if not sheets:
            near = _named(tree, {}, near=True).sheets
            return Look(0.35, f"{near[0].table.name} names the files nearly") if near else None
        try:
            said = said_by(sheets, Options())
        except UserError:  # one that rows() will say
            return Look(0.6, f"{sheets[0].table.name} names the files")
        if said is None:
            return Look(0.35, f"{sheets[0].table.name} names the files, but not their classes")
        lines = {line for line, _ in sheets[0].row_of.values()}
        if {*sheets[0].row_of} <= {*tree.dicom} and len(lines) < len(sheets[0].row_of):
            return Look(0.4, f"{sheets[0].table.name} names folders of DICOM files")  # series
        hoped = [name for name in scans if part_in(parts_of(name)) != POOL]
        share = len({**said.class_of, **said.several}) / max(1, len(hoped))
        return Look(
            0.5 + 0.4 * min(1.0, share),
            f"{sheets[0].table.name} names {share:.0%} of the files with classes",
        )

    def rows(self, tree: Tree, options: Options) -> Found:
        found = Found([])
        problems: dict[str, str] = {}
        listed = _named(tree, problems, near=options.near_ids)
        scans, sheets = listed.scans, listed.sheets
        if not sheets and (near := nearly_named(tree, {stem_of(name) for name in scans})):
            raise UserError(near)
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
        self._list(tree, listed, said, options, found)
        found.rows = as_published(found.rows)
        found.classes = ordered(row.label for row in found.rows if row.label)
        if options.positive:
            found.classes = ("other", options.positive)
        return found

    def _list(
        self, tree: Tree, listed: _Listed, said: Said, options: Options, found: Found
    ) -> None:
        sheets = listed.sheets
        for name in listed.scans:
            if name in said.several:
                found.leave_out(name, said.several[name])
            elif name not in said.class_of:
                found.reject([name], near_miss(name, sheets), bare=True)
        columns = _channels(listed, options, found)
        scans = [name for name in listed.scans if name in said.class_of]
        people = _people(tree, scans, said, options, found)
        of_several = {name for name in tree.dicom if header_of(tree.root / name).frames > 1}
        for name in scans:
            files = tuple(
                name if c == sheets[0].column else listed.further[c].get(name, "") for c in columns
            )
            if not all(files):
                found.reject([name], "its line names no file in one of the columns that are read")
                continue
            mask = listed.masks.get(name)
            found.rows.append(
                Row(
                    files=tuple(of_frames(file) if file in of_several else file for file in files),
                    label=said.class_of[name],
                    patient=people[name],
                    masks=(mask,) if mask else tree.masks.get(name, ()),
                    group=said.group_of.get(name),
                    site=said.site_of.get(name),
                    part=said.part_of.get(name) or _part(name, sheets),
                    covariates=said.covariates.get(name, {}),
                )
            )


def _channels(listed: _Listed, options: Options, found: Found) -> tuple[str, ...]:
    """The columns whose files are a scan's channels; what the others name is left out.

    Raises:
        UserError: the person names another column.
    """
    own = listed.sheets[0].column
    if not listed.further:
        return (own,)
    known = (own, *listed.further)
    if unknown := [name for name in options.channels if name not in known]:
        raise UserError(
            f"--channels: no column '{unknown[0]}' of {listed.sheets[0].table.name} names files; "
            f"name some of {', '.join(known)}"
        )
    read = options.channels or (own,)
    found.channels, found.read = known, read
    for column, files in listed.further.items():
        if column in read:
            continue
        for file in files.values():
            found.leave_out(file, f"named in column {column}, beside the one that is read")
        found.notes.append(
            f"column {column} names further files of {len(files)} lines, which are not read: "
            f"--channels {own},{column} makes them channels of one scan; for scans of their own, "
            "write a table with a line for each (file,class,patient)"
        )
    return read


def _part(name: str, sheets: Iterable[Sheet]) -> str:
    """By the folders of a file, or by the name of the table that lists it: ``test.csv``."""
    stems = (stem_of(sheet.table.name) for sheet in sheets if name in sheet.row_of)
    said = part_in(parts_of(name)) or part_in(stems)
    return said if said in (*PUBLISHED, EXTERNAL) else STUDY


@dataclass(frozen=True)
class _Listed:
    """What the tables of a folder name."""

    scans: list[str]
    sheets: list[Sheet]
    masks: Mapping[str, str]
    """Scan -> the mask that its line names."""
    further: Mapping[str, Mapping[str, str]]
    """Column -> scan -> another file that its line names."""


def _named(tree: Tree, problems: dict[str, str], *, near: bool = False) -> _Listed:
    scans = _scans(tree)
    sheets = _sheets(tree, scans, problems, near=near) if scans else []
    masks, further = _other_files(sheets, (*tree.pictures, *tree.volumes))
    told = {name for sheet in sheets for name in sheet.row_of}
    others = {*masks.values()} | {name for name in scans if ending_of(name) in UNREAD} - told
    others |= {file for files in further.values() for file in files.values()}
    return _Listed([name for name in scans if name not in others], sheets, masks, further)


def _other_files(
    sheets: Sequence[Sheet], files: Collection[str]
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Scan -> its mask, and column -> scan -> file, of columns besides the one that names scans."""
    index: dict[str, list[str]] = defaultdict(list)
    for file, ways in file_aliases(files).items():
        for name in ways[0]:
            index[tidy(name)].append(file)
    masks: dict[str, str] = {}
    further: dict[str, dict[str, str]] = {}
    rows = {scan for sheet in sheets for scan in sheet.row_of}
    for sheet in sheets:
        for column in sheet.columns():
            found = {}
            for scan, (_, row) in sheet.row_of.items():
                cell = tidy(row[column]).removeprefix("./").replace("\\", "/")
                hit = named(index, cell) if ending_of(cell) or "/" in cell else ()
                if len(hit) == 1 and hit[0] != scan:
                    found[scan] = hit[0]
            if _names_masks(column):
                masks |= found
            elif found and rows.isdisjoint(found.values()):
                further[column] = found
    return masks, further


def _names_masks(column: str) -> bool:
    name = simplified(column)
    return name in SYNONYMS["mask"] or "mask" in name or "segmentation" in name


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


def _sheets(
    tree: Tree, scans: Collection[str], problems: dict[str, str], *, near: bool
) -> list[Sheet]:
    sheets = sheets_of(tree, file_aliases(scans), problems, near=near)
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
