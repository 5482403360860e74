"""Folders of DICOM slices, with or without endings, however deep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from medaug.data.address import of_frames, of_series
from medaug.data.dicom_told import told as header_of
from medaug.data.importers.base import (
    NO_PERSON,
    PERSON,
    Found,
    Look,
    Options,
    as_published,
    ordered,
    patient_by,
)
from medaug.data.importers.dicom_people import by_patient_id, check_one_each, ids_in, images_by_id
from medaug.data.importers.dicom_tables import (
    Key,
    Lacking,
    by_table,
    level_in_tables,
    listed_ids,
)
from medaug.data.importers.folders import class_level, names_no_class, part_in, telling
from medaug.data.importers.people import one_person_each
from medaug.data.importers.sheets import Said
from medaug.data.importers.tree import Tree, folder_of, parts_of
from medaug.data.names import SLICES, ending_of
from medaug.data.table import EXTERNAL, PUBLISHED, STUDY, Row
from medaug.errors import UserError

_SCOUT = 5
"""A series of so few slices beside a longer one is its localiser."""
_CLEARLY = 2.0
"""A series with so many times the slices of the next is the one that was meant."""


@dataclass(frozen=True)
class _Series:
    folder: str
    uid: str
    files: tuple[str, ...]
    alone: bool
    """Whether its folder holds no other."""
    frames: int = 1
    """Of its file, where there is only one."""
    modality: str = ""
    scout: bool = False

    @property
    def slices(self) -> int:
        return len(self.files) if len(self.files) > 1 else self.frames

    @property
    def address(self) -> str:
        return self.folder if self.alone else of_series(self.folder, self.uid)


@dataclass(frozen=True)
class DicomSeries:
    """``DIR/<class>/<patient>/…/*.dcm``, or ``DIR/<patient>/…`` with the classes in a table.

    A file is DICOM by its content, whatever its ending (``.dcm``, ``.IMA``, none); a DICOMDIR is
    never followed. Of several series of one patient the one that is clearly the longest is taken;
    where none is, the person is asked. A mask is ``<patient>_seg.nii.gz`` in the patient's folder.
    Single files straight below a class are pictures, and so are those of a patient who has no
    series; one with several frames is a volume.
    """

    name: str = "dicom_series"

    def looks_like(self, tree: Tree) -> Look | None:
        n = len(tree.dicom)
        if not n or n < len(tree.pictures) or n < len(tree.volumes):
            return None
        return Look(0.8, f"{n} DICOM files")

    def rows(self, tree: Tree, options: Options) -> Found:
        found = Found([])
        _check_packed(tree)
        images: list[Key] = []
        if (ids := _by_ids(tree, options, found)) is not None:
            patients, class_of, said, lacking = ids
            people = {key: key[-1] for key in patients}
        else:
            patients, images = _patients(tree, options, found)
            class_of, said, lacking = _classes(tree, [*patients, *images], options, found)
            people = _people(tree, patients, options, found)
        for key, series in sorted(patients.items(), key=lambda item: (item[0][-1], item[0])):
            name = key[-1]
            label = class_of.get(key)
            files = [file for s in series for file in s.files]
            if label is None:
                reason, bare = lacking.get(key, ("its class is not in data.classes", False))
                if bare:
                    found.reject(files, reason, name, bare=True)
                for file in files:
                    found.leave_out(file, reason)
                continue
            whose = (
                patient_by(options, series[0].folder)
                or (said.patient_of.get("/".join(key)) if said else None)
                or people[key]
            )
            part = _part(files[0], "/".join(key), said)
            more = said.covariates.get("/".join(key), {}) if said else {}
            series = _without_scouts(series, found)
            files = [file for s in series for file in s.files]
            if all(s.slices == 1 for s in series):  # projections, each a picture
                found.rows += [
                    Row((file,), label, whose, part=part, covariates=more) for file in files
                ]
                continue
            one = _one_series(series, options, found)
            found.used |= set(one.files)
            mask = next(
                (m for m in tree.volumes if m.startswith(f"{'/'.join(key)}/{name}_seg.")), None
            )
            found.rows.append(
                Row(
                    (one.address,),
                    label,
                    whose,
                    (mask,) if mask else (),
                    part=part,
                    covariates=more,
                )
            )
        _add_images(tree, images, class_of, said, lacking, options, found)
        found.rows = as_published(found.rows)
        found.classes = ordered(row.label for row in found.rows if row.label)
        return found


def _check_packed(tree: Tree) -> None:
    """Raises UserError where a series would lack slices that are packed one by one."""
    folders = {folder_of(name) for name in tree.dicom}
    packed = [
        name
        for name in tree.pictures
        if folder_of(name) in folders and ending_of(name).rpartition(".")[0] in SLICES
    ]
    if packed:
        raise UserError(
            f"data.root: {len(packed)} files are packed DICOM beside slices ({packed[0]}); unpack "
            "them (gunzip, bunzip2, unxz), or the series would lack these slices"
        )


def _by_ids(
    tree: Tree, options: Options, found: Found
) -> tuple[dict[Key, list[_Series]], dict[Key, str], Said | None, Lacking] | None:
    """The series of each PatientID, where folders say neither class nor patient and a table lists
    PatientIDs; else None."""
    paths = {
        telling(parts_of(name), {*options.classes, *tree.image_folders}) for name in tree.dicom
    }
    level = class_level(paths, options.classes)
    named = {path[level] for path in paths if level is not None and len(path) > level}
    if not tree.tables or len(named) > 1 or level_in_tables(tree, paths) is not None:
        return None
    listed = listed_ids(tree, options, found)
    if listed is None:
        return None
    by_folder: dict[str, list[str]] = defaultdict(list)
    for name in tree.dicom:
        by_folder[folder_of(name)].append(name)
    patients: dict[Key, list[_Series]] = defaultdict(list)
    for folder, files in sorted(by_folder.items()):
        for series in _series_in(tree, folder, files):
            ids = {header_of(tree.root / file).patient_as_written for file in series.files}
            patients[(listed.name_of(min(ids) if len(ids) == 1 else ""),)].append(series)
    class_of, lacking = listed.of(patients)
    return dict(patients), class_of, listed.said, lacking


def _patients(
    tree: Tree, options: Options, found: Found
) -> tuple[dict[Key, list[_Series]], list[Key]]:
    """Patient folder -> its series; and files that are images of their own."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for name in tree.dicom:
        by_folder[folder_of(name)].append(name)
    told = {*options.classes, *tree.image_folders}
    paths = {telling(parts_of(name), told) for name in tree.dicom}
    level = class_level(paths, options.classes)
    tables = bool(tree.tables) and not options.classes
    if tables and (listed := level_in_tables(tree, paths)) is not None:
        level = listed - 1
    patients: dict[Key, list[_Series]] = defaultdict(list)
    images: list[Key] = []
    for folder, files in sorted(by_folder.items()):
        series = _series_in(tree, folder, files)
        depth = _patient_depth(folder, level, told, tables)
        key = tuple(folder.split("/"))[:depth] if folder else ()
        if depth is None and len(series) == len(files) > 1:
            images += [(*folder.split("/"), file) for file in files]
            continue
        if depth is None and (several := _in_class_folder(tree, folder, series)):
            patients |= several
            found.notes.append(
                f"{folder}: the files of {len(several)} people lie in one folder, and are told "
                "apart by PatientID (or by series, where they have none)"
            )
            continue
        key = key or tuple(folder.split("/"))
        if not PERSON.fullmatch(key[-1]):
            for file in files:
                found.leave_out(file, NO_PERSON)
            continue
        patients[key] += series
    return patients, images


def _patient_depth(
    folder: str, level: int | None, known: Collection[str], tables: bool
) -> int | None:
    """How many folders lead to the patient; None where the folder is the class's own."""
    parts = folder.split("/")
    telling_at = [i for i, part in enumerate(parts) if telling([part], known)]
    place = 0 if level is None else level + 1
    if tables and len(telling_at) <= place:
        place = len(telling_at) - 1
    return telling_at[place] + 1 if 0 <= place < len(telling_at) else None


def _series_in(tree: Tree, folder: str, files: list[str]) -> list[_Series]:
    said = {file: header_of(tree.root / file) for file in files}
    groups: dict[tuple[bool, str], list[str]] = defaultdict(list)
    for file, header in said.items():
        groups[header.is_scout, header.series].append(file)
    n_series = sum(not scout for scout, _ in groups) or len(groups)
    return [
        _Series(
            *(folder, uid, tuple(names), n_series == 1 and not (scout and len(groups) > 1)),
            frames=said[names[0]].frames if len(names) == 1 else 1,
            modality=said[names[0]].modality,
            scout=scout,
        )
        for (scout, uid), names in sorted(groups.items())
    ]


def _in_class_folder(tree: Tree, folder: str, series: list[_Series]) -> dict[Key, list[_Series]]:
    """Series that lie straight in their class's folder, by patient; nothing where they are of
    one."""
    by_person: dict[str, list[_Series]] = defaultdict(list)
    for one in series:
        ids = ids_in(tree.root, one.files)
        by_person[min(ids) if len(ids) == 1 else f" {one.uid}"].append(one)
    if len(by_person) < 2:
        return {}
    parts = folder.split("/")
    in_order = sorted(by_person.values(), key=lambda several: several[0].files)
    return {(*parts, f"{parts[-1]}-{i:03d}"): own for i, own in enumerate(in_order, start=1)}


def _people(
    tree: Tree, patients: Mapping[Key, list[_Series]], options: Options, found: Found
) -> dict[Key, str]:
    """Folder -> patient, by the names of folders and by PatientID."""
    by_name, notes = one_person_each(key[-1] for key in patients)
    files_of = {key: [f for s in series for f in s.files] for key, series in patients.items()}
    if options.patients is None:
        check_one_each(tree.root, files_of)
    people, more = by_patient_id(tree.root, files_of, {key: by_name[key[-1]] for key in patients})
    found.notes += [*notes, *more]
    return people


def _without_scouts(series: list[_Series], found: Found) -> list[_Series]:
    """Localisers are left out beside other series."""
    kept = [s for s in series if not s.scout]
    for scout in series if kept else ():
        for file in scout.files if scout.scout else ():
            found.leave_out(file, "a localizer (scout) beside the series that is read")
    return kept or series


def _part(file: str, place: str, said: Said | None) -> str:
    """By the table, else by the folders."""
    part = said.part_of.get(place) if said else None
    part = part or part_in(parts_of(file))
    return part if part in (*PUBLISHED, EXTERNAL) else STUDY


def _one_series(series: list[_Series], options: Options, found: Found) -> _Series:
    """The series that was meant.

    Raises:
        UserError: that is for the person to say.
    """
    if options.channels:
        wanted = {*options.channels}
        series = [
            s for s in series if s.folder.split("/")[-1] in wanted or s.modality in wanted
        ] or series
    kinds = {s.modality: s.slices for s in sorted(series, key=lambda s: s.slices)}
    if len(kinds) > 1:
        told = " and ".join(f"{kind or '(none)'} ({n} slices)" for kind, n in kinds.items())
        raise UserError(
            f"data.root: a patient has series of the modalities {told}, and nothing says which is "
            f"meant; say it with --channels {next(iter(kinds))}"
        )
    longest = sorted(series, key=lambda s: (-s.slices, s.folder, s.uid))
    if len(longest) > 1:
        first, second = longest[0].slices, longest[1].slices
        if first < _CLEARLY * second and not second <= min(_SCOUT, first - 1):
            sizes = ", ".join(str(s.slices) for s in longest[:6])
            raise UserError(
                f"data.root: a patient has {len(longest)} series of {sizes} slices, and nothing "
                "says which is meant; keep one series per folder and patient, or name the series' "
                "folder with --channels NAME"
            )
        for other in longest[1:]:
            for file in other.files:
                found.leave_out(file, "a shorter series beside the one that is read")
    return longest[0]


def _classes(
    tree: Tree, keys: list[Key], options: Options, found: Found
) -> tuple[dict[Key, str], Said | None, Lacking]:
    told = {*options.classes, *tree.image_folders}
    above = {key: telling(key[:-1], told) for key in keys}
    level = class_level(set(above.values()), options.classes)
    named = {k: path[level] for k, path in above.items() if level is not None and len(path) > level}
    if not named or (len({*named.values()}) == 1 and not options.classes and tree.tables):
        try:
            return by_table(tree, keys, options, found)
        except UserError:
            if not named:
                raise
            found.tables.clear()
    labels: dict[Key, str] = {}
    lacking: Lacking = {}
    for key in keys:
        name = named.get(key)
        if name is None or (names_no_class(name) and name not in options.classes):
            lacking[key] = ("lies in no folder that names its class", False)
        elif not options.classes or name in options.classes:
            labels[key] = name
        else:
            lacking[key] = ("its class is not in data.classes", False)
    return labels, None, lacking


def _add_images(
    tree: Tree,
    images: list[Key],
    class_of: Mapping[Key, str],
    said: Said | None,
    lacking: Lacking,
    options: Options,
    found: Found,
) -> None:
    by_id, notes = images_by_id(tree.root, [key[-1] for key in images])
    for key in images:
        name = key[-1]
        if (label := class_of.get(key)) is None:
            reason, bare = lacking.get(key, ("has no class", False))
            found.reject([name], reason, name, bare=bare)
            continue
        patient = patient_by(options, name) or (
            said.patient_of.get("/".join(key)) if said else None
        )
        address = of_frames(name) if header_of(tree.root / name).frames > 1 else name
        found.rows.append(Row((address,), label, patient or by_id[name]))
    if images:
        untold = said is None and options.patients is None and len({*by_id.values()}) == len(by_id)
        found.alone = untold and len(found.rows) == len(images)
        found.notes += notes if said is None and options.patients is None else []
        found.notes.append(f"{len(images)} DICOM files are images of their own, not slices")
