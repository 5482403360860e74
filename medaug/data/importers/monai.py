"""Scans that a MONAI data list names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from medaug.data.canonical import is_blank, tidy
from medaug.data.columns import (
    SYNONYMS,
    part_column,
    part_said,
    refuse_unheard_people,
    simplified,
)
from medaug.data.importers.base import Found, Look, Options
from medaug.data.importers.lists import CLASS_KEYS, Entry, case_of, finish, is_path
from medaug.data.importers.tree import Tree
from medaug.data.labels import read_json
from medaug.data.table import POOL
from medaug.errors import UserError

LISTS = ("datalist.json", "dataset.json", "dataset_0.json", "data_list.json")
SECTIONS = {
    **{"training": "train", "train": "train", "validation": "val", "val": "val"},
    **{"test": "test", "testing": "test"},
}
"""Sections that are read, and the publisher's part that each is; ``test`` may have no labels."""


@dataclass(frozen=True)
class MonaiList:
    """``DIR/datalist.json`` (or ``dataset.json``), its paths relative to ``DIR``.

    https://docs.monai.io/en/stable/data.html (load_decathlon_datalist)

    An entry's class is its ``class``, or its ``label`` where that is no path; without either, a
    table (``labels.csv``: ``case``, ``class`` and perhaps ``patient``; the case is the image's file
    name without its ending) says it. A ``label`` that is a path is the mask. The patient is the
    entry's ``patient``, ``patient_id``, ``subject`` …, or the table's; ``0`` is an id.
    """

    name: str = "monai_datalist"

    def looks_like(self, tree: Tree) -> Look | None:
        path = _list_in(tree)
        return None if path is None else Look(0.97, f"{path} with a list of training scans")

    def rows(self, tree: Tree, options: Options) -> Found:
        path = _list_in(tree)
        if path is None:
            raise UserError(f"data.root: holds no {' or '.join(LISTS)}; check data.root")
        found = Found([], tables=[path])
        body = read_json(tree.root / path)
        entries = [
            self._entry(tree, part, entry, where) for part, entry, where in entries_of(body, path)
        ]
        here = [e for e in entries if e.part != POOL or all(file in tree for file in e.files)]
        found.absent(path, len(entries) - len(here), "scans under test are not here")
        entries = _in_parts(here)
        if not any(entry.patient for entry in entries):
            _refuse_unheard(path, [entry.covariates for entry in entries])
        if options.channels and len({len(e.files) for e in entries}) == 1:
            found.read = options.channels
        found.notes += _sections_left(path, body)
        labelled = all(e.label is not None for e in entries if e.part != POOL)
        finish(tree, entries, options, found, path, labelled=labelled)
        return found

    def _entry(self, tree: Tree, part: str, entry: dict[str, Any], where: str) -> Entry:
        files = tuple(below(tree, name, where) for name in _images(entry, where))
        mask = entry.get("label")
        mask = mask if is_path(mask) else entry.get("mask") or entry.get("seg")
        masks = (below(tree, str(mask), where),) if is_path(mask) else ()
        patients = {key: tidy(str(entry[key])) for key in _named(entry, "patient")}
        if len(set(patients.values())) > 1:
            raise UserError(
                f"{where}: {' and '.join(patients)} both name the patient; keep one of them"
            )
        groups = {key: tidy(str(entry[key])) for key in _named(entry, "group")}
        known = {"image", "mask", "seg", *CLASS_KEYS, *patients, *groups}
        sites = _named(entry, "site")
        label = class_of(entry, where)
        further = {k: tidy(str(v)) for k, v in entry.items() if _is_scalar(v)}
        return Entry(
            case_of(files[0]),
            files,
            where,
            label,
            masks,
            next(iter((patients or groups).values()), None),
            POOL if part == "test" and label is None else part,
            further[sites[0]] if sites else None,
            covariates={k: v for k, v in further.items() if k not in {*known, *sites}},
        )


def _in_parts(entries: list[Entry]) -> list[Entry]:
    """The entries in the parts that a key like ``split`` says, where one does."""
    labelled = [entry for entry in entries if entry.part != POOL]
    keys = dict.fromkeys(key for entry in labelled for key in entry.covariates)
    cells = [{key: entry.covariates.get(key, "") for key in keys} for entry in labelled]
    column, _ = part_column(keys, cells)
    for entry in labelled if column else ():
        said = part_said(entry.covariates.pop(column or "", ""))
        entry.part = said or entry.part
    return entries


def entries_of(body: Any, name: str) -> list[tuple[str, dict[str, Any], str]]:
    """(part, entry, ``file: section[number]``) of each scan."""
    found = []
    for section, part in SECTIONS.items():
        listed = body.get(section, []) if isinstance(body, dict) else []
        for number, entry in enumerate(listed if isinstance(listed, list) else []):
            where = f"{name}: {section}[{number}]"
            if part == "test" and isinstance(entry, str):
                entry = {"image": entry}
            if not isinstance(entry, dict) or "image" not in entry:
                raise UserError(f'{where}: no image; write {{"image": "path", …}}')
            found.append((part, entry, where))
    if not found:
        raise UserError(f'{name}: lists no scans; want "training": [{{"image": …}}, …]')
    return found


def _sections_left(path: str, body: Mapping[str, Any]) -> list[str]:
    """What else the list lists."""
    return [
        f"{path}: section {name} ({len(listed)} entries) is none of {', '.join(SECTIONS)}, and is "
        "not read"
        for name, listed in body.items()
        if name not in SECTIONS
        and isinstance(listed, list)
        and any(isinstance(entry, dict) and "image" in entry for entry in listed)
    ]


def class_of(entry: Mapping[str, Any], where: str = "") -> str | None:
    """What an entry says of its class; None where it says nothing, or only names a mask.

    Raises:
        UserError: it says that there is none: null, nan or an empty text.
    """
    for key in CLASS_KEYS:
        if key not in entry:
            continue
        value = entry[key]
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, bool) or is_path(value) or isinstance(value, list | dict):
            continue
        if value is None or is_blank(str(value)):
            raise UserError(
                f"{where}: {key} is blank, nan or N/A; write what a person said, or take the entry "
                "out"
            )
        if isinstance(value, str | int | float):
            return tidy(str(value))
    return None


def below(tree: Tree, text: str, where: str) -> str:
    """The file that a list calls ``text``, relative to the folder; it has to lie below it.

    Raises:
        UserError: it is no path below it, whatever ``..`` and links say.
    """
    name = str(PurePosixPath(text.removeprefix("./")))
    path = tree.root / name
    outside = os.path.isabs(text) or not path.resolve().is_relative_to(tree.root.resolve())
    if not text or outside:
        raise UserError(f"{where}: points outside of data.root; write paths relative to it")
    return os.path.normpath(name)


def _list_in(tree: Tree) -> str | None:
    for name in LISTS:
        if name in tree:
            body = read_json(tree.root / name)
            if isinstance(body, dict) and isinstance(body.get("training"), list):
                return name
    return None


def _named(entry: Mapping[str, Any], role: str) -> list[str]:
    """The keys of an entry that play a role and say something."""
    return [
        key
        for key, value in entry.items()
        if simplified(key) in SYNONYMS[role] and value is not None and not is_blank(str(value))
    ]


def _refuse_unheard(path: str, further: list[dict[str, str]]) -> None:
    keys = dict.fromkeys(key for each in further for key in each)
    refuse_unheard_people(path, [{key: e.get(key, "") for key in keys} for e in further], keys)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _images(entry: Mapping[str, Any], where: str) -> list[str]:
    image = entry["image"]
    images = image if isinstance(image, list) else [image]
    if not images or not all(isinstance(name, str) for name in images):
        raise UserError(f'{where}: image is no path; write {{"image": "path", …}}')
    return images
