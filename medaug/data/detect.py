"""Which layout a folder has, which classes it names, and what it lacks. Nothing is guessed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medaug.data.image_layouts import HEMORRHAGE_CLASSES, PARTS
from medaug.data.images import is_image
from medaug.data.labels import read_table
from medaug.data.layouts import NAME_MAPPING
from medaug.data.listed import LABEL_TABLE, read_list
from medaug.data.monai_datalist import class_of, entries_of, list_in
from medaug.data.nnunet import DATASET, channels_of
from medaug.data.table import TABLE, WANT
from medaug.errors import UserError

_UNNAMED = re.compile(r"unknown|na|n_a|none|unlabel?led|misc", re.I)
_VOLUME = re.compile(r"(?P<stem>.+)_(?P<channel>[A-Za-z0-9]+)\.(nii\.gz|nii|hdr)")
_FILE_COLUMN = re.compile(r"(file|image|path)([ _]?(name|path))?", re.I)
_NOT_CHANNELS = {"seg", "mask", "label"}
_BY_CUSTOM = ("normal", "healthy", "benign", "control", "negative", "LGG", "no", "0")
"""Class names that everybody puts first; the last class is the positive one."""


@dataclass(frozen=True)
class Layout:
    """How a folder is to be read."""

    name: str
    """A key of ``medaug.data.layouts.LAYOUTS``."""
    classes: tuple[str, ...]
    channel: str | None = None
    channels: tuple[str, ...] = ()
    """All that there are."""
    remarks: tuple[str, ...] = ()


def detect(root: Path) -> Layout:
    """The layout of the folder ``root``.

    Raises:
        UserError: it is no folder, has no known layout, or does not say its scans' classes; says
            what to supply.
    """
    if not root.is_dir():
        raise UserError(f"{root}: is no folder; give the one that holds the scans")
    for look in _LOOKS:
        if (found := look(root)) is not None:
            if len(found.classes) < 2:
                known = ", ".join(found.classes) or "none"
                raise UserError(
                    f"{root}: layout {found.name}, but fewer than two classes are named ({known}); "
                    "a study compares classes, so add scans of another one"
                )
            return found
    raise UserError(
        f"{root}: no known layout; use class folders of patients (BraTS) or of PNG and JPEG "
        f"images, nnU-Net ({DATASET}), a MONAI data list, or {TABLE} with the columns "
        "file,class[,mask][,patient]"
    )


def _nnunet(root: Path) -> Layout | None:
    if not (root / "imagesTr").is_dir() or not (root / DATASET).is_file():
        return None
    body = read_list(root / DATASET)
    if list_in(root) is not None and isinstance(body, dict) and "file_ending" not in body:
        listed = body.get("training")
        if listed and all(isinstance(e, dict) and class_of(e) is not None for e in listed):
            return None  # a MONAI list that says the classes itself
    channels = tuple(channels_of(body))
    classes = _labelled(root, "nnU-Net's dataset.json")
    return Layout("nnunet", classes, channels[0], channels)


def _monai(root: Path) -> Layout | None:
    path = list_in(root)
    if path is None:
        return None
    body = read_list(path)
    if not isinstance(body, dict) or not isinstance(body.get("training"), list):
        return None
    said = [class_of(entry) for _, entry, _ in entries_of(body, path.name)]
    if None in said:
        return Layout("monai_datalist", _labelled(root, path.name))
    return Layout("monai_datalist", _ordered(filter(None, said)))


def _table(root: Path) -> Layout | None:
    if not os.path.lexists(root / TABLE):
        return None
    found = read_table(root / TABLE, WANT)
    return Layout("table", _ordered(row["class"].strip() for _, row in found.rows))


def _other_table(root: Path) -> None:
    """A table that lists files, in nobody's known words."""
    for path in sorted(root.glob("*.csv")):
        columns = read_table(path).columns
        if any(_FILE_COLUMN.fullmatch(column) for column in columns):
            raise UserError(
                f"{path.name}: lists files, but which columns say what is not for medaug to guess; "
                f"save it as {TABLE} with the columns file,class[,mask][,patient]"
            )


def _published(root: Path) -> Layout | None:
    """The public sets that have a layout of their own."""
    if (root / "Patients_CT").is_dir() and (root / "hemorrhage_diagnosis.csv").is_file():
        return Layout("ct_ich", HEMORRHAGE_CLASSES)
    if not (root / LABEL_TABLE).is_file():
        return None
    found = read_table(root / LABEL_TABLE)
    if {"id", "hemorrhage"} <= set(found.columns):
        return Layout("head_ct", HEMORRHAGE_CLASSES)
    if {"index", "class"} <= set(found.columns) and (root / "images").is_dir():
        return Layout("image_list", _ordered(row["class"].strip() for _, row in found.rows))
    return None


def _brats(root: Path) -> Layout | None:
    if (root / NAME_MAPPING).is_file() and (channels := _channels(_folders(root))):
        grades = [
            row["Grade"].strip() for _, row in read_table(root / NAME_MAPPING, ["Grade"]).rows
        ]
        classes = _ordered(grade for grade in grades if grade not in ("", "NA"))
        if not any((root / name).is_dir() for name in classes):
            return Layout("brats", classes, _first(channels), tuple(channels))
    named: list[str] = []
    unnamed: list[str] = []
    all_channels: set[str] = set()
    for folder in _folders(root):
        if channels := _channels(_folders(folder)):
            all_channels |= set(channels)
            (unnamed if _UNNAMED.fullmatch(folder.name) else named).append(folder.name)
    if not named:
        if _channels(_folders(root)):
            raise UserError(
                f"{root}: one folder per patient, and nothing says their classes; write "
                f"{NAME_MAPPING} with the columns subject_ID,Grade and a line for each patient"
            )
        return None
    remarks = tuple(
        f"folder {name} is left out: it names no class; move its patients, if you know theirs"
        for name in unnamed
    )
    channels = sorted(all_channels)
    return Layout("brats", _ordered(named), _first(channels), tuple(channels), remarks)


def _class_folders(root: Path) -> Layout | None:
    parts = [root / part for part in PARTS if (root / part).is_dir()] or [root]
    named = {
        folder.name
        for part in parts
        for folder in _folders(part)
        if any(is_image(path) for path in folder.iterdir())
    }
    classes = [name for name in named if not _UNNAMED.fullmatch(name)]
    if not classes:
        return None
    remarks = tuple(f"folder {name} is left out: it names no class" for name in named - {*classes})
    return Layout("class_folders", _ordered(classes), remarks=remarks)


_LOOKS: tuple[Callable[[Path], Layout | None], ...] = (
    *(_table, _nnunet, _monai, _published, _brats, _class_folders, _other_table),
)


def _labelled(root: Path, says_nothing: str) -> tuple[str, ...]:
    """Classes of ``labels.csv``, which has to be there."""
    if not (root / LABEL_TABLE).is_file():
        raise UserError(
            f"{root}: {says_nothing} says nothing of a patient's class; write {LABEL_TABLE} with "
            "the columns case,class[,patient] and a line for each case"
        )
    found = read_table(root / LABEL_TABLE, ["case", "class"])
    return _ordered(row["class"].strip() for _, row in found.rows)


def _ordered(classes: Iterable[Any]) -> tuple[str, ...]:
    """By name, those first that custom puts first."""
    first = [name.casefold() for name in _BY_CUSTOM]
    return tuple(sorted({str(c) for c in classes}, key=lambda c: (c.casefold() not in first, c)))


def _folders(parent: Path) -> list[Path]:
    return sorted(
        path
        for path in parent.iterdir()
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
    )


def _channels(patients: Iterable[Path]) -> list[str]:
    """What follows the patient's name in the names of volumes, over a few patients."""
    found: set[str] = set()
    for folder in list(patients)[:20]:
        for path in folder.iterdir():
            match = _VOLUME.fullmatch(path.name)
            if match and match["stem"] == folder.name and match["channel"] not in _NOT_CHANNELS:
                found.add(match["channel"])
    return sorted(found)


def _first(channels: list[str]) -> str:
    return "flair" if "flair" in channels else channels[0]
