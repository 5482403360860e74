"""Scans that a JSON file lists: nnU-Net 1 and 2, the Medical Segmentation Decathlon, MONAI."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from medaug.data.canonical import is_blank, tidy
from medaug.data.importers.base import Found, Look, Options, ordered, patient_by
from medaug.data.importers.people import one_person_each
from medaug.data.importers.sheets import Said, Sheet, near_miss, said_by, sheets_of
from medaug.data.importers.tree import Tree, folder_of
from medaug.data.labels import read_json
from medaug.data.names import PICTURES, VOLUMES, ending_of, stem_of
from medaug.data.table import POOL, STUDY, Row
from medaug.errors import UserError

DATASET = "dataset.json"
LISTS = ("datalist.json", "dataset.json", "dataset_0.json", "data_list.json")
SECTIONS = {"training": "train", "validation": "val"}
"""Sections that are read, and the publisher's part that each is; ``test`` has no labels."""
CLASS_KEYS = ("class", "label", "diagnosis", "target")
PATIENT_KEYS = (
    *("patient", "patient_id", "patientid", "PatientID", "subject", "subject_id"),
    *("participant_id", "participant", "group"),
)
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")


@dataclass
class _Entry:
    """One listed scan."""

    case: str
    files: tuple[str, ...]
    where: str
    label: str | None = None
    masks: tuple[str, ...] = ()
    patient: str | None = None
    part: str = STUDY
    own: str = ""
    """Its name where no patient is known; the file's by default."""
    covariates: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NnUnet:
    """``DIR/imagesTr/<case>_<channel number>.nii.gz`` and ``DIR/labelsTr/<case>.nii.gz``, where
    ``DIR/dataset.json`` gives each channel's name and number; or, as in the Decathlon, one 4-D
    file a case without a number.

    https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md

    It segments and knows no class of a patient: a table (``labels.csv``: ``case``, ``class`` and
    perhaps ``patient``) says it. The held-out images of ``imagesTs`` are in the pool.
    """

    name: str = "nnunet"

    def looks_like(self, tree: Tree) -> Look | None:
        if DATASET not in tree or not any(n.startswith("imagesTr/") for n in tree.files):
            return None
        body = read_json(tree.root / DATASET)
        if _says_classes(body):
            return None  # a MONAI list
        return Look(0.98, "imagesTr and dataset.json")

    def rows(self, tree: Tree, options: Options) -> Found:
        found = Found([], tables=[DATASET])
        about = read_json(tree.root / DATASET)
        channels, ending = channels_of(about), ending_in(about)
        found.channels = tuple(channels)
        cases = _cases(tree, "imagesTr", ending, len(channels))
        whole = [files[None] for files in cases.values() if None in files]
        read = _wanted(options, channels)
        if not cases or (not whole and not any(read[0][1] in files for files in cases.values())):
            raise UserError(
                f"imagesTr: no file ends in _{read[0][1]:04d}{ending}; check data.channel"
            )
        if whole and len(channels) > 1:
            read, found.volume = read[:1], read[0][1]
            found.notes.append(
                f"each file holds {len(channels)} volumes; the study reads {read[0][0]} "
                f"(data.accept.volume: {read[0][1]})"
            )
        found.read = tuple(name for name, _ in read)
        entries = []
        for case, files in cases.items():
            listed = tuple(files.get(None) or files.get(n) or "" for _, n in read)
            if not all(listed):
                for name in filter(None, files.values()):
                    found.leave_out(name, f"its case has no {read[0][0]} image")
                continue
            for name in files.values():
                if name not in listed:
                    found.leave_out(name, "another sequence than the study reads")
            mask = f"labelsTr/{case}{ending}"
            masks = (mask,) if mask in tree or mask in tree.noise else ()
            entries.append(_Entry(case, listed, DATASET, masks=masks, own=case))
        _finish(tree, entries, options, found, "nnU-Net's dataset.json")
        for case, files in _cases(tree, "imagesTs", ending, len(channels)).items():
            listed = tuple(files.get(None) or files.get(n) or "" for _, n in read)
            if all(listed):
                found.rows.append(Row(listed, None, f"{case}", part=POOL))
        return found


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
        if options.channels and len({len(e.files) for e in entries}) == 1:
            found.read = options.channels
        self._test(tree, body, found)
        labelled = all(entry.label is not None for entry in entries)
        _finish(tree, entries, options, found, path, labelled=labelled)
        return found

    def _entry(self, tree: Tree, part: str, entry: dict[str, Any], where: str) -> _Entry:
        files = tuple(below(tree, name, where) for name in _images(entry, where))
        mask = entry.get("label")
        mask = mask if is_path(mask) else entry.get("mask") or entry.get("seg")
        masks = (below(tree, str(mask), where),) if is_path(mask) else ()
        patients = {
            key: tidy(str(entry[key]))
            for key in PATIENT_KEYS
            if entry.get(key) is not None and not is_blank(str(entry[key]))
        }
        if len(set(patients.values())) > 1 and set(patients) - {"group"} != set(list(patients)[:1]):
            raise UserError(
                f"{where}: {' and '.join(patients)} both name the patient; keep one of them"
            )
        known = {"image", "mask", "seg", *CLASS_KEYS, *patients}
        return _Entry(
            case_of(files[0]),
            files,
            where,
            class_of(entry, where),
            masks,
            next(iter(patients.values()), None),
            part,
            covariates={
                k: tidy(str(v)) for k, v in entry.items() if k not in known and _is_scalar(v)
            },
        )

    def _test(self, tree: Tree, body: Mapping[str, Any], found: Found) -> None:
        for number, entry in enumerate(body.get("test") or ()):
            image = entry.get("image") if isinstance(entry, dict) else entry
            if isinstance(image, str):
                name = below(tree, image, f"test[{number}]")
                found.leave_out(name, "listed under test, without a label")


def channels_of(about: Any) -> dict[str, int]:
    """Channel name -> number, from ``channel_names`` (``modality`` in version 1)."""
    named = about.get("channel_names") or about.get("modality") if isinstance(about, dict) else None
    if not isinstance(named, Mapping) or not all(str(key).isdecimal() for key in named):
        raise UserError(f'{DATASET}: no channel_names; write {{"0": "FLAIR", …}}')
    return {str(name): int(key) for key, name in named.items()}


def ending_in(about: Mapping[str, Any]) -> str:
    ending = about.get("file_ending", ".nii.gz")
    if ending not in VOLUMES | PICTURES:
        raise UserError(f"{DATASET}: file_ending is not supported; use .nii.gz, .nii or .png")
    return str(ending)


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
    return stem_of(image)


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


def is_path(value: Any) -> bool:
    return isinstance(value, str) and ("/" in value or ending_of(value) in VOLUMES | PICTURES)


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


def _says_classes(body: Any) -> bool:
    if not isinstance(body, dict) or "file_ending" in body or "channel_names" in body:
        return False
    listed = body.get("training") or []
    return bool(listed) and all(
        isinstance(e, dict) and any(k in e and not is_path(e[k]) for k in CLASS_KEYS)
        for e in listed
    )


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _images(entry: Mapping[str, Any], where: str) -> list[str]:
    image = entry["image"]
    images = image if isinstance(image, list) else [image]
    if not images or not all(isinstance(name, str) for name in images):
        raise UserError(f'{where}: image is no path; write {{"image": "path", …}}')
    return images


def _cases(
    tree: Tree, folder: str, ending: str, n_channels: int
) -> dict[str, dict[int | None, str]]:
    """Case -> channel number (None: one file for all) -> file."""
    stems = {
        stem_of(name): name
        for name in tree.files
        if folder_of(name) == folder and ending_of(name) == ending
    }
    cases: dict[str, dict[int | None, str]] = defaultdict(dict)
    for stem, name in sorted(stems.items()):
        match = _CHANNEL.fullmatch(stem)
        if match and int(match["number"]) < n_channels:
            cases[match["case"]][int(match["number"])] = name
        else:
            cases[stem][None] = name
    return dict(cases)


def _wanted(options: Options, channels: Mapping[str, int]) -> list[tuple[str, int]]:
    by_name = {name.casefold(): name for name in channels}
    if not options.channels:
        return list(channels.items())[:1]
    unknown = [name for name in options.channels if name.casefold() not in by_name]
    if unknown:
        raise UserError(
            f"data.channel: '{unknown[0]}' is none of {DATASET}'s ({', '.join(channels)}); name one"
        )
    wanted = [by_name[name.casefold()] for name in options.channels]
    return [(name, channels[name]) for name in wanted]


def _finish(
    tree: Tree,
    entries: list[_Entry],
    options: Options,
    found: Found,
    what: str,
    *,
    labelled: bool = False,
) -> None:
    """Rows of the entries, with what tables say where the list says nothing."""
    sheets: list[Sheet] = []
    said: Said | None = None
    if not labelled:
        sheets, said = _tables(tree, entries, options, what)
        found.tables += [sheet.table.name for sheet in sheets]
        for sheet in sheets:
            found.absent(sheet.table.name, sheet.lines_left)
        found.notes += list(said.notes)
    people = _people(entries, said, options, found, what)
    for entry in entries:
        label = entry.label or (said.class_of.get(entry.case) if said else None)
        if label is None:
            reason = near_miss(entry.case, sheets)
            found.reject((*entry.files, *entry.masks), reason, entry.case, bare=True)
            continue
        more = said.covariates.get(entry.case, {}) if said else {}
        found.rows.append(
            Row(
                entry.files,
                label,
                people[entry.where, entry.files[0]],
                entry.masks,
                part=entry.part,
                covariates={**more, **entry.covariates},
            )
        )
    found.rows.sort(key=lambda row: (row.patient or row.files[0], row.files))
    found.classes = ordered(row.label for row in found.rows if row.label)


def _tables(
    tree: Tree, entries: Iterable[_Entry], options: Options, what: str
) -> tuple[list[Sheet], Said]:
    aliases = {
        e.case: [[e.case, PurePosixPath(e.files[0]).name, *e.files, stem_of(e.files[0])]]
        for e in entries
    }
    problems: dict[str, str] = {}
    sheets = sheets_of(tree, aliases, problems)
    said = said_by(sheets, options)
    if said is None:
        if problems:
            raise UserError(next(iter(problems.values())))
        raise UserError(
            f"data.root: {what} says nothing of a patient's class; write labels.csv with the "
            "columns case,class[,patient] and a line for each case"
        )
    return sheets, said


def _people(
    entries: list[_Entry], said: Said | None, options: Options, found: Found, what: str
) -> dict[tuple[str, str], str]:
    by_table = {**said.group_of, **said.patient_of} if said else {}
    own = {
        (e.where, e.files[0]): patient_by(options, e.files[0]) or e.patient or by_table.get(e.case)
        for e in entries
    }
    without = [key for key, patient in own.items() if patient is None]
    fallback = {(e.where, e.files[0]): e.own or e.files[0] for e in entries}
    if without:
        stems = {key: case_of(fallback[key]) for key in without}
        by_stem, notes = one_person_each(stems.values())
        changed = {key: by_stem[stem] for key, stem in stems.items() if by_stem[stem] != stem}
        fallback |= changed
        found.notes += notes
        found.notes.append(
            f"{what}: {len(without)} of {len(entries)} scans name no patient and count as one "
            'each; if one person has several, add "patient" or scores leak'
        )
        found.alone = len(without) == len(entries) and not changed
    return {key: patient or fallback[key] for key, patient in own.items()}
