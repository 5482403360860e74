"""2-D images in folders named after their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medaug.data.cohort import Reject, Scan
from medaug.data.image_patients import (
    PATIENT_TABLES,
    apart_by_class,
    patient_in_name,
    patients_of_table,
    published_leaks,
)
from medaug.data.importers.base import Found, Look, Options, ordered, patient_by
from medaug.data.importers.folders import (
    are_patients,
    class_level,
    class_said,
    names_no_class,
    part_in,
    telling,
)
from medaug.data.importers.naming import file_aliases, sheets_of
from medaug.data.importers.people import one_person_each
from medaug.data.importers.sheets import Said, patient_column, with_patients
from medaug.data.importers.tree import Tree, parts_of
from medaug.data.names import stem_of
from medaug.data.table import PUBLISHED, STUDY, Row
from medaug.errors import UserError

_FEWEST = 4
"""Folders above the classes that may be people: fewer are sets, or parts of one."""


@dataclass(frozen=True)
class ClassFolders:
    """``DIR/…/<class>/…/*.png``, also under folders of parts, at any depth.

    The patient comes from ``patients.csv`` or ``groups.csv`` (columns ``file`` and ``patient`` or
    ``group``); else from the folder below the class, where these look like people; else from names
    like those of Kermany's chest X-rays, or time points and sides; else every image is one of its
    own, and one of each class where names only count the images of a folder.
    """

    name: str = "class_folders"

    def looks_like(self, tree: Tree) -> Look | None:
        placed = _placed(tree, ())
        named = {name for name in placed.values() if not names_no_class(name)}
        if not named:
            return None
        confidence = 0.75 if len(named) > 1 else 0.3
        return Look(confidence, f"images in {len(named)} folders that can be classes")

    def rows(self, tree: Tree, options: Options) -> Found:
        found = Found([])
        placed = _placed(tree, options.classes)
        no_class = {name for name in placed.values() if names_no_class(name)} - {*options.classes}
        found.notes += [f"folder {n} is left out: it names no class" for n in sorted(no_class)]
        for picture, name in placed.items():
            if name in no_class:
                found.leave_out(picture, "its folder names no class")
        kept = {picture: name for picture, name in placed.items() if name not in no_class}
        said = {n: n if n in options.classes else class_said(n) for n in {*kept.values()}}
        found.classes = ordered(said.values())
        if missing := [name for name in options.required if name not in found.classes]:
            raise UserError(
                f"data.root: no PNG or JPEG image in a folder {' or '.join(missing)}; check "
                "data.root and data.classes"
            )
        scans = self._patients(tree, kept, said, options, found)
        for scan in sorted(
            scans, key=lambda s: (s.patient, s.part or "", s.path.name, s.path.as_posix())
        ):
            name = scan.path.as_posix()
            part = scan.part or STUDY
            found.rows.append(
                Row(
                    files=(name,),
                    label=said[kept[name]],
                    patient=scan.patient,
                    masks=tree.masks.get(name, ()),
                    part=part,
                )
            )
        return found

    def _patients(
        self,
        tree: Tree,
        kept: dict[str, str],
        said: Mapping[str, str],
        options: Options,
        found: Found,
    ) -> list[Scan]:
        """Scans under relative paths, with the patients that can be known."""
        label_of = {name: i for i, name in enumerate(found.classes)}
        scans = [
            Scan(stem_of(name), Path(name), label=label_of[said[kept[name]]], part=_part(name))
            for name in kept
        ]
        if options.patients is not None:
            return _by_expression(scans, options, found)
        rejects: list[Reject] = []
        named = [replace(scan, path=tree.root / scan.path) for scan in scans]
        table = next((name for name in PATIENT_TABLES if name in tree), None)
        if table is not None:
            listed, notes, lines_left = patients_of_table(tree.root, named, rejects)
            found.tables.append(table)
            for name, n in lines_left.items():
                found.absent(name, n)
            found.notes += notes
            for reject in rejects:
                found.reject(
                    [reject.path.relative_to(tree.root).as_posix()], reject.reason, bare=True
                )
            scans = [replace(s, path=s.path.relative_to(tree.root)) for s in listed]
        elif (told := _people_of_tables(tree, kept, options, found)) is not None:
            scans = _as_said(scans, told, found)
        else:
            scans = _from_names(scans, kept, found)
        found.notes += published_leaks(scans)
        return scans


def _people_of_tables(
    tree: Tree, kept: dict[str, str], options: Options, found: Found
) -> Said | None:
    """What any other table says of whose the pictures are; None where none has such a column."""
    sheets = sheets_of(tree, file_aliases(kept), near=options.near_ids) if tree.tables else []
    sheets = [
        sheet
        for sheet in sheets
        if options.patient_column in sheet.table.columns
        or sheet.beginnings
        or patient_column(sheet) is not None
    ]
    if not sheets:
        return None
    said = with_patients(Said({}, {}, {}, {}, ""), sheets, options)
    found.tables += [sheet.table.name for sheet in sheets]
    found.notes += said.notes
    for sheet in sheets:
        found.absent(sheet.table.name, sheet.lines_left)
    return said


def _as_said(scans: list[Scan], said: Said, found: Found) -> list[Scan]:
    named = []
    for scan in scans:
        if (patient := said.patient_of.get(scan.path.as_posix())) is not None:
            part = said.part_of.get(scan.path.as_posix(), scan.part)
            named.append(replace(scan, patient=patient, part=part))
        else:
            reason = f"has no line in {found.tables[-1]}; add one"
            found.reject([scan.path.as_posix()], reason, bare=True)
    return named


def _part(name: str) -> str | None:
    part = part_in(parts_of(name))
    return part if part in (*PUBLISHED, "external") else None


def _placed(tree: Tree, known: Sequence[str]) -> dict[str, str]:
    """Picture -> the folder that says its class; pictures in no such folder are not in it."""
    paths = {
        name: telling(parts_of(name), {*known, *tree.image_folders})
        for name in tree.pictures
        if name not in tree.mask_files
    }
    level = class_level(set(paths.values()), known)
    if level is None:
        return {}
    return {
        name: path[level]
        for name, path in paths.items()
        if len(path) > level and (not known or path[level] in known or names_no_class(path[level]))
    }


def _by_expression(scans: list[Scan], options: Options, found: Found) -> list[Scan]:
    named = [(scan, patient_by(options, scan.path.as_posix())) for scan in scans]
    if without := sum(patient is None for _, patient in named):
        raise UserError(f"--patients: finds no patient in {without} of {len(named)} paths")
    found.notes.append("patients are what --patients finds in the paths")
    return [replace(scan, patient=patient) for scan, patient in named if patient]


def _from_names(scans: list[Scan], kept: dict[str, str], found: Found) -> list[Scan]:
    inner = {scan.path: _below_class(scan.path, kept[scan.path.as_posix()]) for scan in scans}
    for level in range(min(map(len, inner.values()), default=0)):
        below = {path: folders[level] for path, folders in inner.items()}
        folders = {*below.values()}
        if not are_patients(folders):
            continue
        people, notes = one_person_each(folders)
        found.notes += [
            f"patients are the {len(folders)} folders below the classes",
            *notes,
        ]
        return [replace(s, patient=people[below[s.path]]) for s in scans]
    above = {scan.path: _above_class(scan.path, kept[scan.path.as_posix()]) for scan in scans}
    folders = {name for name in above.values() if name is not None}
    if len(folders) >= _FEWEST and are_patients(folders) and None not in above.values():
        people, notes = one_person_each(folders)
        found.notes += [f"patients are the {len(folders)} folders above the classes", *notes]
        return [replace(s, patient=people[above[s.path] or ""]) for s in scans]
    read = [replace(scan, patient=patient_in_name(scan.path)) for scan in scans]
    known = [scan for scan in read if scan.patient != scan.path.stem]
    others = [scan for scan in read if scan.patient == scan.path.stem]
    if known:
        n = len({scan.patient for scan in known})
        found.notes.append(
            "patients are read off the file names"
            + (f" of {len(known)} of {len(scans)} images" if others else "")
            + f": {n} patients ({known[0].path.stem} is {known[0].patient}'s)"
        )
    if not others:
        return known
    people, notes = one_person_each(scan.path.stem for scan in others)
    named = [replace(scan, patient=people[scan.path.stem]) for scan in others]
    alone = sum(scan.patient == scan.path.stem for scan in named)
    found.notes += [
        *notes,
        f"no {' or '.join(PATIENT_TABLES)}: {alone} of {len(scans)} images count as patients of "
        "their own; if one person has several, add the table (file,patient) or scores leak",
    ]
    apart, more = apart_by_class(named, found.classes)
    found.notes += more
    found.alone = not known and len({scan.patient for scan in apart}) == len(apart)
    return [*known, *apart]


def _above_class(path: Path, name: str) -> str | None:
    """The folder above the class's; None where nothing there tells anything."""
    outer = telling(path.parts[: path.parts.index(name)])
    return outer[-1] if outer else None


def _below_class(path: Path, name: str) -> tuple[str, ...]:
    """The folders below the class's; none where the image lies in the class's own."""
    parts = list(path.parts[:-1])
    return telling(parts[parts.index(name) + 1 :])
