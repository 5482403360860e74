"""Three public sets, as they are downloaded."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from medaug.data.canonical import is_blank, tidy
from medaug.data.cohort import Scan
from medaug.data.columns import SYNONYMS, simplified
from medaug.data.image_patients import in_blocks
from medaug.data.importers.base import Found, Look, Options, ordered
from medaug.data.importers.tree import Tree, folder_of
from medaug.data.labels import Table, read_table
from medaug.data.names import stem_of
from medaug.data.table import Row
from medaug.errors import UserError

HEMORRHAGE_CLASSES = ("normal", "hemorrhage")
LABELS, GROUPS, DIAGNOSES = "labels.csv", "groups.csv", "hemorrhage_diagnosis.csv"
_SUBTYPES = ("Intraventricular", "Intraparenchymal", "Subarachnoid", "Epidural", "Subdural")
_BLURRED = "a mask in JPEG, which has no sharp borders"


@dataclass(frozen=True)
class HeadCt:
    """Kaggle's head CT haemorrhage set: ``DIR/head_ct/head_ct/NNN.png`` and ``DIR/labels.csv``
    (``id, hemorrhage``). The patient is the ``group`` of ``DIR/groups.csv`` (``id``, ``group``)."""

    name: str = "head_ct"

    def looks_like(self, tree: Tree) -> Look | None:
        if LABELS in tree and {"id", "hemorrhage"} <= _columns(tree, LABELS):
            return Look(0.95, "labels.csv with the columns id, hemorrhage")
        return None

    def rows(self, tree: Tree, options: Options) -> Found:
        found = Found([], classes=HEMORRHAGE_CLASSES, tables=[LABELS])
        table = read_table(tree.root / LABELS, ["id", "hemorrhage"])
        labels = _by_number(table, "id", "hemorrhage", ("0", "1"))
        groups: dict[int, str] | None = None
        if GROUPS in tree:
            found.tables.append(GROUPS)
            groups = _by_number(read_table(tree.root / GROUPS, ["id", "group"]), "id", "group")
        else:
            found.notes.append(
                "no groups.csv: every image counts as a patient of its own, but neighbouring "
                "numbers of this set are often one person; add the table (id,group) or scores leak"
            )
        images = _numbered(tree, ("head_ct/head_ct", "head_ct", ""), labels, LABELS, found)
        found.absent(LABELS, len(labels) - len(images))
        for number, name in images.items():
            patient = stem_of(name)
            if groups is not None:
                if number not in groups:
                    found.reject([name], f"has no line in {GROUPS}; add one", bare=True)
                    continue
                patient = f"group-{groups[number]}"
            label = HEMORRHAGE_CLASSES[int(labels[number])]
            found.rows.append(Row((name,), label, patient, slice=number))
        found.alone = groups is None
        found.rows.sort(key=_by_patient_and_number)
        return found


@dataclass(frozen=True)
class CtIch:
    """PhysioNet's CT-ICH: ``DIR/Patients_CT/<id>/brain/<slice>.jpg|png`` and
    ``DIR/hemorrhage_diagnosis.csv`` with a line per slice; the label is a slice's own."""

    name: str = "ct_ich"

    def looks_like(self, tree: Tree) -> Look | None:
        inside = any(name.startswith("Patients_CT/") for name in tree.pictures)
        if inside and DIAGNOSES in tree:
            return Look(0.95, f"Patients_CT and {DIAGNOSES}")
        return None

    def rows(self, tree: Tree, options: Options) -> Found:
        found = Found([], classes=HEMORRHAGE_CLASSES, tables=[DIAGNOSES])
        labels = _slice_labels(tree.root / DIAGNOSES)
        folders = {name.split("/")[1] for name in tree.files if name.startswith("Patients_CT/")}
        if not folders:
            raise UserError("data.root: holds no folder Patients_CT; check data.root")
        for patient in sorted(folders):
            own = labels.get(int(patient), {}) if patient.isdecimal() else {}
            place = f"Patients_CT/{patient}/brain"
            images = _numbered(tree, (place,), own, DIAGNOSES, found)
            for number, name in images.items():
                label = HEMORRHAGE_CLASSES[own[number]]
                found.rows.append(Row((name,), label, patient, slice=number))
        found.absent(DIAGNOSES, sum(map(len, labels.values())) - len(found.rows))
        for name in tree.pictures:
            if name.startswith("Patients_CT/") and "/bone/" in name:
                found.leave_out(name, "the bone window of a slice whose brain window is read")
        found.rows.sort(key=_by_patient_and_number)
        return found


@dataclass(frozen=True)
class ImageList:
    """``DIR/labels.csv`` (``index``, ``class``), ``DIR/images/<index>.jpg|png`` and, where there
    are any, ``DIR/masks/<index>.png``: the brain tumours of figshare 1512427, for one.

    The patient is the column ``patient`` or ``group``. Without either every image is a patient of
    its own, unless the person accepts blocks of consecutive numbers
    (:func:`medaug.data.image_patients.in_blocks`).
    """

    name: str = "image_list"

    def looks_like(self, tree: Tree) -> Look | None:
        listed = LABELS in tree and {"index", "class"} <= _columns(tree, LABELS)
        if listed and any(folder_of(name) == "images" for name in tree.pictures):
            return Look(0.92, "labels.csv with the columns index, class beside images/")
        return None

    def rows(self, tree: Tree, options: Options) -> Found:
        found = Found([], tables=[LABELS])
        table = read_table(tree.root / LABELS, ["index", "class"])
        class_of = _by_number(table, "index", "class")
        column = _patient_column(table)
        patient_of = _by_number(table, "index", column) if column else {}
        images = _numbered(tree, ("images",), class_of, LABELS, found)
        found.absent(LABELS, len(class_of) - len(images))
        masks = {n: m for n, name in images.items() if (m := _mask(tree, name))}
        if masks:
            for number in [n for n in images if n not in masks]:
                found.reject([images.pop(number)], "no mask; put masks/<index>.png beside images/")
        found.classes = ordered(class_of[n] for n in images)
        rows = {
            n: Row(
                (name,), class_of[n], patient_of.get(n, stem_of(name)), masks.get(n, ()), slice=n
            )
            for n, name in images.items()
        }
        found.rows = list(rows.values())
        if column:
            found.notes.append(f"patients are those of {LABELS}, column {column}")
        else:
            self._without_patients(rows, options, found)
        found.rows.sort(key=_by_patient_and_number)
        return found

    def _without_patients(self, rows: dict[int, Row], options: Options, found: Found) -> None:
        order = {name: i for i, name in enumerate(found.classes)}
        scans = [
            Scan(r.patient or "", Path(r.files[0]), label=order[r.label or ""], index=n)
            for n, r in rows.items()
        ]
        grouped, note = in_blocks(scans)
        if not options.blocks:
            blocks = len({scan.patient for scan in grouped})
            found.alone = True
            found.notes.append(
                f"no column patient or group: each of {len(rows)} images counts as a patient of "
                f"its own; if numbers run patient by patient, {blocks} blocks of consecutive "
                "numbers are a stand-in that you can accept (data.accept.blocks, or --blocks)"
            )
            return
        found.notes.append(note)
        kept = {scan.index: scan.patient for scan in grouped}
        for number, row in rows.items():
            if number not in kept:
                for name in (*row.files, *row.masks):
                    found.leave_out(name, "lies between two blocks of numbers")
        found.rows = [replace(r, patient=kept[n]) for n, r in rows.items() if n in kept]


def _columns(tree: Tree, name: str) -> set[str]:
    try:
        return set(read_table(tree.root / name).columns)
    except UserError:
        return set()


def _patient_column(table: Table) -> str | None:
    for role in ("patient", "group"):
        for column in table.columns:
            if simplified(column) in SYNONYMS[role]:
                return column
    return None


def _mask(tree: Tree, image: str) -> tuple[str, ...]:
    mask = f"masks/{stem_of(image)}.png"
    return (mask,) if mask in tree or mask in tree.noise else ()


def _by_patient_and_number(row: Row) -> tuple[str, int]:
    return row.patient or "", row.slice or 0


def _numbered(
    tree: Tree, folders: Iterable[str], known: Collection[int], table: str, found: Found
) -> dict[int, str]:
    """Number -> image, of the first of ``folders`` that there is; other images are left out."""
    place = next((f for f in folders if os.path.isdir(tree.root / f)), None)
    images: dict[int, str] = {}
    for name in tree.pictures:
        if folder_of(name) != place:
            continue
        stem = stem_of(name)
        if stem.casefold().endswith("_hge_seg"):
            found.leave_out(name, _BLURRED)
        elif stem.isdecimal() and int(stem) in known:
            if int(stem) in images:
                raise UserError(f"{table}: two images have one number; keep one of them")
            images[int(stem)] = name
        else:
            reason = f"has no line in {table}; add one or move the file away"
            found.reject([name], reason, bare=True)
    return images


def _by_number(
    table: Table, id_column: str, column: str, allowed: Collection[str] | None = None
) -> dict[int, str]:
    """Image number -> cell of ``column``."""
    cells: dict[int, str] = {}
    for line, row in table.rows:
        where = f"{table.name}:{line}"
        image, cell = _whole(row[id_column], where, id_column), tidy(row[column])
        if is_blank(cell) or (allowed is not None and cell not in allowed):
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
