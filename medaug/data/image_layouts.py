"""Folder layouts of 2-D image sets. No image is opened here; nothing guesses a class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from medaug.data.cohort import Cohort, Reject, Scan, absent, folder_of
from medaug.data.files import BadFile, check_name
from medaug.data.image_patients import (
    PATIENT_COLUMNS,
    apart_by_class,
    in_blocks,
    number,
    patient_in_name,
    patients_of_table,
    published_leaks,
)
from medaug.data.images import is_image
from medaug.data.labels import Table, read_table
from medaug.errors import UserError
from medaug.spec.study import DataSpec

Progress = Callable[[int, int, str], None]

PARTS = ("train", "val", "test")
HEMORRHAGE_CLASSES = ("normal", "hemorrhage")
_CT_ICH_TABLE = "hemorrhage_diagnosis.csv"
_CT_ICH_MASK = "_HGE_Seg"
"""Masks lie beside the images there, as JPEG, which has no sharp borders: they are not read."""
_SUBTYPES = ("Intraventricular", "Intraparenchymal", "Subarachnoid", "Epidural", "Subdural")


def class_folders(spec: DataSpec, progress: Progress | None = None) -> Cohort:
    """``DIR/<class>/*.png|jpg|jpeg``, or the same under ``DIR/train``, ``DIR/val``, ``DIR/test``.

    The patient comes from ``DIR/patients.csv`` or ``DIR/groups.csv`` (columns ``file`` and
    ``patient`` or ``group``); without a table from names like those of Kermany's chest X-rays;
    else every file stem is a patient of its own, and one of each class where stems only count the
    images of a folder (:func:`medaug.data.image_patients.apart_by_class`).
    """
    root = folder_of(spec)
    parts: list[str | None] = [part for part in PARTS if _is_folder(root / part)]
    found: list[Scan] = []
    rejects: list[Reject] = []
    for part in parts or [None]:
        folder = root / part if part else root
        for label, name in enumerate(spec.classes):
            for path in _images(folder / name, rejects):
                found.append(Scan(patient_in_name(path), path, label=label, part=part))
    present = {scan.label for scan in found}
    missing = [name for label, name in enumerate(spec.classes) if label not in present]
    if missing:
        raise UserError(
            f"data.root: no PNG or JPEG image in a folder {' or '.join(missing)}; check data.root "
            "and data.classes"
        )
    scans, notes, lines_left = patients_of_table(root, found, rejects)
    if not lines_left:  # no table
        scans, assumed = apart_by_class(scans, spec.classes)
        notes += assumed
    notes += _absent(spec, lines_left)
    notes += published_leaks(scans)
    return Cohort(_renumbered(scans), spec.classes, tuple(rejects), tuple(notes))


def head_ct(spec: DataSpec, progress: Progress | None = None) -> Cohort:
    """Kaggle's head CT haemorrhage set: ``DIR/head_ct/head_ct/NNN.png`` and ``DIR/labels.csv``
    (``id, hemorrhage``). The patient is the ``group`` of ``DIR/groups.csv`` (``id``, ``group``).
    """
    root = folder_of(spec)
    _want_classes(spec, HEMORRHAGE_CLASSES)
    folders = (root / "head_ct" / "head_ct", root / "head_ct", root)
    folder = next(folder for folder in folders if _is_folder(folder))
    table = read_table(root / "labels.csv", ["id", "hemorrhage"])
    labels = _by_number(table, "id", "hemorrhage", ("0", "1"))
    groups: dict[int, str] | None = None
    notes = []
    if os.path.lexists(root / "groups.csv"):
        groups = _by_number(read_table(root / "groups.csv", ["id", "group"]), "id", "group")
    else:
        notes.append(
            "no groups.csv: every image counts as a patient of its own, but neighbouring numbers "
            "of this set are often one person; add the table (id,group) or scores leak"
        )
    scans, rejects = [], list[Reject]()
    found = _numbered_images(folder, labels, "labels.csv", rejects)
    notes += _absent(spec, {"labels.csv": len(labels) - len(found)})
    for scan in found:
        label = int(labels[number(scan)])
        if groups is None:
            scans.append(replace(scan, label=label))
        elif number(scan) in groups:
            scans.append(replace(scan, label=label, patient=f"group-{groups[number(scan)]}"))
        else:
            reason = "has no line in groups.csv; add one"
            rejects.append(Reject(scan.path, reason, unlabelled=True))
    return Cohort(_ordered(scans), spec.classes, tuple(rejects), tuple(notes))


def ct_ich(spec: DataSpec, progress: Progress | None = None) -> Cohort:
    """PhysioNet's CT-ICH: ``DIR/Patients_CT/<id>/brain/<slice>.jpg|png`` and
    ``DIR/hemorrhage_diagnosis.csv`` with a line per slice; the label is a slice's own."""
    root = folder_of(spec)
    _want_classes(spec, HEMORRHAGE_CLASSES)
    labels = _slice_labels(root / _CT_ICH_TABLE)
    if not _is_folder(root / "Patients_CT"):
        raise UserError("data.root: holds no folder Patients_CT; check data.root")
    scans: list[Scan] = []
    rejects: list[Reject] = []
    for folder in sorted((root / "Patients_CT").iterdir()):
        patient = folder.name
        own = labels.get(int(patient), {}) if patient.isdecimal() else {}
        for scan in _numbered_images(folder / "brain", own, _CT_ICH_TABLE, rejects):
            scans.append(replace(scan, patient=patient, label=own[number(scan)]))
    lines_left = sum(map(len, labels.values())) - len(scans)
    notes = _absent(spec, {_CT_ICH_TABLE: lines_left})
    return Cohort(_ordered(scans), spec.classes, tuple(rejects), tuple(notes))


def image_list(spec: DataSpec, progress: Progress | None = None) -> Cohort:
    """``DIR/labels.csv`` (``index``, ``class``), ``DIR/images/<index>.jpg|png`` and, where there
    are any, ``DIR/masks/<index>.png``: the brain tumours of figshare 1512427, for one.

    The patient is the column ``patient`` or ``group``. Without either, consecutive numbers of one
    class are taken in blocks (:func:`medaug.data.image_patients.in_blocks`).
    """
    root = folder_of(spec)
    table = read_table(root / "labels.csv", ["index", "class"])
    class_of = _by_number(table, "index", "class", spec.label_of)
    column = next((column for column in PATIENT_COLUMNS if column in table.columns), None)
    patient_of = _by_number(table, "index", column) if column else {}
    scans, rejects = [], list[Reject]()
    for scan in _numbered_images(root / "images", class_of, "labels.csv", rejects):
        mask = root / "masks" / f"{scan.path.stem}.png"
        scans.append(
            replace(
                scan,
                patient=patient_of.get(number(scan), scan.patient),
                label=spec.label_of[class_of[number(scan)]],
                mask=mask if os.path.lexists(mask) else None,
            )
        )
    notes = _absent(spec, {"labels.csv": len(class_of) - len(scans)})
    if any(scan.mask for scan in scans):
        reason = "no mask; put masks/<index>.png beside images/"
        rejects += [Reject(scan.path, reason) for scan in scans if not scan.mask]
        scans = [scan for scan in scans if scan.mask]
    if not column:
        scans, note = in_blocks(scans)
        notes.append(note)
    return Cohort(_ordered(scans), spec.classes, tuple(rejects), tuple(notes))


IMAGE_LAYOUTS: Mapping[str, Callable[[DataSpec, Progress | None], Cohort]] = {
    "class_folders": class_folders,
    "head_ct": head_ct,
    "ct_ich": ct_ich,
    "image_list": image_list,
}


def _by_number(
    table: Table, id_column: str, column: str, allowed: Collection[str] | None = None
) -> dict[int, str]:
    """Image number -> cell of ``column``."""
    cells: dict[int, str] = {}
    for line, row in table.rows:
        where = f"{table.name}:{line}"
        image, cell = _whole(row[id_column], where, id_column), row[column].strip()
        if not cell or (allowed is not None and cell not in allowed):
            wanted = f"one of {', '.join(allowed)}" if allowed else "something"
            raise UserError(f"{where}: {column} is unknown; write {wanted}")
        if cells.setdefault(image, cell) != cell:
            raise UserError(f"{where}: this {id_column} has another {column} further up")
    return cells


def _slice_labels(path: Path) -> dict[int, dict[int, int]]:
    """Patient -> slice -> 1 with haemorrhage, 0 without; the subtypes must agree."""
    table = read_table(path, ["PatientNumber", "SliceNumber", "No_Hemorrhage", *_SUBTYPES])
    labels: dict[int, dict[int, int]] = {}
    for line, row in table.rows:
        where = f"{table.name}:{line}"
        patient = _whole(row["PatientNumber"], where, "PatientNumber")
        index = _whole(row["SliceNumber"], where, "SliceNumber")
        normal, *subtypes = (
            _whole(row[column], where, column) for column in ("No_Hemorrhage", *_SUBTYPES)
        )
        label = int(any(subtypes))
        if normal != 1 - label:
            raise UserError(f"{where}: No_Hemorrhage contradicts the subtypes; correct the line")
        if labels.setdefault(patient, {}).setdefault(index, label) != label:
            raise UserError(f"{where}: this slice has another label further up; remove one line")
    return labels


def _whole(cell: str, where: str, column: str) -> int:
    cell = cell.strip()
    if not (cell.isascii() and cell.isdecimal()):
        raise UserError(f"{where}: {column} is no whole number; correct it")
    return int(cell)


def _numbered_images(
    folder: Path, known: Collection[int], table: str, rejects: list[Reject]
) -> list[Scan]:
    """Images whose stem is a number of ``known``; the patient is the stem until told better."""
    scans = []
    for path in _images(folder, rejects):
        if path.stem.endswith(_CT_ICH_MASK):
            continue
        if path.stem.isdecimal() and int(path.stem) in known:
            scans.append(Scan(path.stem, path, index=int(path.stem)))
        else:
            reason = f"has no line in {table}; add one or move the file away"
            rejects.append(Reject(path, reason, unlabelled=True))
    return scans


def _absent(spec: DataSpec, lines: Mapping[str, int]) -> list[str]:
    """Notes on labels without an image (``lines``: table -> how many), where that is accepted."""
    return [
        absent(spec, f"{table}: {n} lines have no image here")
        for table, n in lines.items()
        if n > 0
    ]


def _images(folder: Path, rejects: list[Reject]) -> list[Path]:
    """Images of a folder, by name; those with impossible names go to ``rejects``."""
    if not _is_folder(folder):
        return []
    paths = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not is_image(path):
            continue
        try:
            check_name(path)
        except BadFile as error:
            rejects.append(Reject(path, str(error)))
        else:
            paths.append(path)
    return paths


def _ordered(scans: Iterable[Scan]) -> tuple[Scan, ...]:
    return tuple(sorted(scans, key=lambda scan: (scan.patient, number(scan))))


def _renumbered(scans: Iterable[Scan]) -> tuple[Scan, ...]:
    """By patient, part and name; the images of each patient are numbered from 0."""
    seen: Counter[str] = Counter()
    numbered = []
    for scan in sorted(scans, key=lambda s: (s.patient, s.part or "", s.path.name, s.path)):
        numbered.append(replace(scan, index=seen[scan.patient]))
        seen[scan.patient] += 1
    return tuple(numbered)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _want_classes(spec: DataSpec, classes: tuple[str, ...]) -> None:
    if spec.classes != classes:
        raise UserError(f"data.classes: layout {spec.layout} has [{', '.join(classes)}]; write so")
