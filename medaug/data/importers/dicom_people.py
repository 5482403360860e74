"""Who is on DICOM files: what their PatientIDs say beside the names of folders.

Ids are compared as digests (:mod:`medaug.data.dicom_told`): none of them is a patient's name
here, folders and files are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medaug.data.dicom_told import told
from medaug.errors import UserError

Key = tuple[str, ...]
"""The folders down to a patient."""


def ids_in(root: Path, files: Iterable[str]) -> set[str]:
    """The PatientIDs of files, but for those that name nobody."""
    return {told(root / file).patient for file in files} - {""}


def check_one_each(root: Path, files_of: Mapping[Key, Sequence[str]]) -> None:
    """Raises UserError where a folder that should be one person's holds several people's files."""
    mixed = {key: n for key, files in files_of.items() if (n := len(ids_in(root, files))) > 1}
    if mixed:
        key, n = next(iter(mixed.items()))
        raise UserError(
            f"data.root: {len(mixed)} folders that would be one patient's hold files of several "
            f"PatientIDs ({n} in {'/'.join(key)}); keep one person's files in a folder of their "
            "own, or say who is who with --patients"
        )


def by_patient_id(
    root: Path, files_of: Mapping[Key, Sequence[str]], people: Mapping[Key, str]
) -> tuple[dict[Key, str], list[str]]:
    """Folder -> patient, where ``people`` says what names let one see; and notes.

    Folders with one PatientID are one patient's, folders of one name with several PatientIDs are
    several people's. An id that all folders have tells nothing.
    """
    ids = {key: min(ids_in(root, files), default="") for key, files in files_of.items()}
    known = {one for one in ids.values() if one}
    patient_of = dict(people)
    if len(known) < 2:
        alike = sum(map(bool, ids.values()))
        note = f"PatientID is the same in {alike} folders: the folders tell people apart"
        return patient_of, [note] if alike > 1 else []
    notes = []
    of_name: dict[str, set[str]] = defaultdict(set)
    for key, name in people.items():
        if ids[key] and key[-1] == name:
            of_name[name].add(ids[key])
    apart = {name for name, several in of_name.items() if len(several) > 1}
    if apart:
        for key, name in people.items():
            if name in apart and key[-1] == name:
                patient_of[key] = "/".join(key)
        notes.append(
            f"{len(apart)} names of folders stand for several PatientIDs, and so for several people"
        )
    first: dict[str, str] = {}
    names_of: dict[str, set[str]] = defaultdict(set)
    for key in sorted(patient_of, key=lambda key: (key[-1], key)):
        if one := ids[key]:
            patient_of[key] = first.setdefault(one, patient_of[key])
            names_of[one] |= {told(root / file).name for file in files_of[key]} - {""}
    merged = len({*people.values()}) + len(apart) - len({*patient_of.values()})
    if merged > 0:
        notes.append(
            f"{merged} folders have the PatientID of another one and are taken for the same "
            f"people: {len({*patient_of.values()})} patients"
        )
    return patient_of, [*notes, *_of_several_names(names_of)]


def images_by_id(root: Path, files: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """File -> the first file with its PatientID, for files that are images of their own; notes."""
    ids = {file: told(root / file).patient for file in files}
    if len({*ids.values()} - {""}) < 2:
        return {file: file for file in ids}, []
    first: dict[str, str] = {}
    names_of: dict[str, set[str]] = defaultdict(set)
    people = {}
    for file in sorted(ids):
        people[file] = first.setdefault(ids[file], file) if ids[file] else file
        names_of[ids[file]] |= {told(root / file).name} - {""}
    names_of.pop("", None)
    n = len({*people.values()})
    return people, [
        f"patients are told by PatientID: {n} of {len(people)} images",
        *_of_several_names(names_of),
    ]


def _of_several_names(names_of: Mapping[str, set[str]]) -> list[str]:
    several = sum(len(names) > 1 for names in names_of.values())
    if not several:
        return []
    return [
        f"{several} PatientIDs stand with several PatientNames and are taken for one person each; "
        "if they are several people's, say who is who with --patients (or a column patient)"
    ]
