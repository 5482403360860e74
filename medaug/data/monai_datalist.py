"""MONAI's data lists: JSON with ``training: [{"image": …, "label": …}, …]``.

https://docs.monai.io/en/stable/data.html (load_decathlon_datalist)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from medaug.data.cohort import Cohort, Reject, Scan, folder_of
from medaug.data.listed import below, cohort_of, read_cases, read_list
from medaug.errors import UserError
from medaug.spec.study import DataSpec

LISTS = ("datalist.json", "dataset.json", "dataset_0.json")
SECTIONS = {"training": "train", "validation": "val"}
"""Sections that are read, and the publisher's part that each is; ``test`` has no labels."""
CLASS_KEYS = ("class", "label")
PATIENT_KEYS = ("patient", "patient_id", "subject", "subject_id", "group")


def monai_datalist(spec: DataSpec, progress: object = None) -> Cohort:
    """``DIR/datalist.json`` (or ``dataset.json``), its paths relative to ``DIR``.

    An entry's class is its ``class``, or its ``label`` where that is no path; without either,
    ``DIR/labels.csv`` (``case``, ``class`` and perhaps ``patient``; the case is the image's file
    name without its ending) says it. A ``label`` that is a path is the mask. The patient is the
    entry's ``patient``, ``patient_id``, ``subject`` or ``group``, or the table's.
    """
    root = folder_of(spec)
    path = list_in(root)
    if path is None:
        raise UserError(f"data.root: holds no {' or '.join(LISTS)}; check data.root")
    entries = entries_of(read_list(path), path.name)
    named = [(part, entry, where) for part, entry, where in entries]
    images = {where: _image(entry, where) for _, entry, where in named}
    lacking = [case_of(images[where]) for _, entry, where in named if class_of(entry) is None]
    table = read_cases(root, spec, lacking, f"{path.name}") if lacking else None
    scans, rejects, alone = [], [], 0
    for part, entry, where in named:
        name, case = images[where], case_of(images[where])
        image, said = below(root, name, where), class_of(entry)
        if said is not None:
            label = _label(said, spec, where)
        else:
            assert table is not None
            if case in table.reasons:
                rejects.append(Reject(image, table.reasons[case], case, unlabelled=True))
                continue
            label = table.label_of[case]
        patient = next((str(entry[key]) for key in PATIENT_KEYS if entry.get(key)), None)
        patient = patient or (table.patient_of.get(case) if table else None)
        alone += patient is None
        mask = entry.get("label")
        scans.append(
            Scan(
                patient or name,
                image,
                below(root, str(mask), where) if is_path(mask) else None,
                label,
                part=part,
            )
        )
    notes = list(table.notes) if table else []
    if alone and not table:
        notes.append(
            f"{path.name}: {alone} of {len(scans)} scans name no patient and count as one each; if "
            'one person has several, add "patient" to the entries or scores leak'
        )
    return cohort_of(spec, scans, rejects, notes)


def list_in(root: Path) -> Path | None:
    return next((root / name for name in LISTS if os.path.lexists(root / name)), None)


def entries_of(body: Any, name: str) -> list[tuple[str, dict[str, Any], str]]:
    """(part, entry, ``file: section[number]``) of each scan with labels."""
    found = []
    for section, part in SECTIONS.items():
        listed = body.get(section, []) if isinstance(body, dict) else []
        for number, entry in enumerate(listed if isinstance(listed, list) else []):
            where = f"{name}: {section}[{number}]"
            if not isinstance(entry, dict) or "image" not in entry:
                raise UserError(f'{where}: no image; write {{"image": "path", …}}')
            found.append((part, entry, where))
    if not found:
        raise UserError(f'{name}: lists no scans; want "training": [{{"image": …}}, …]')
    return found


def case_of(image: str) -> str:
    """The image's file name without its ending."""
    return Path(image).name.removesuffix(".gz").rsplit(".", 1)[0]


def class_of(entry: dict[str, Any]) -> str | None:
    """What an entry says of its class; None where it says nothing, or only names a mask."""
    for key in CLASS_KEYS:
        value = entry.get(key)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, str | int) and not is_path(value):
            return str(value)
    return None


def is_path(value: Any) -> bool:
    return isinstance(value, str) and ("/" in value or "." in value)


def _image(entry: dict[str, Any], where: str) -> str:
    image = entry["image"]
    if isinstance(image, list) and len(image) == 1:
        image = image[0]
    if not isinstance(image, str):
        raise UserError(f"{where}: several images; list one channel per entry")
    return image.removeprefix("./")


def _label(said: str, spec: DataSpec, where: str) -> int:
    if said not in spec.label_of:
        known = ", ".join(spec.label_of)
        raise UserError(
            f"{where}: class '{said[:20]}' is none of {known}; correct data.classes, or map it in "
            "data.grades"
        )
    return spec.label_of[said]
