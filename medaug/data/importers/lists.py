"""What nnU-Net's, the Decathlon's and MONAI's lists in JSON have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from medaug.data.importers.base import Found, Options, ordered, patient_by
from medaug.data.importers.naming import Sheet, sheets_of
from medaug.data.importers.near import near_miss, nearly_named
from medaug.data.importers.people import one_person_each
from medaug.data.importers.sheets import Said, said_by
from medaug.data.importers.tree import Tree
from medaug.data.names import PICTURES, VOLUMES, ending_of, stem_of
from medaug.data.table import POOL, STUDY, Row
from medaug.errors import UserError

DATASET = "dataset.json"
CLASS_KEYS = ("class", "label", "diagnosis", "target")


@dataclass
class Entry:
    """One listed scan."""

    case: str
    files: tuple[str, ...]
    where: str
    label: str | None = None
    masks: tuple[str, ...] = ()
    patient: str | None = None
    part: str = STUDY
    site: str | None = None
    own: str = ""
    """Its name where no patient is known; the file's by default."""
    covariates: dict[str, str] = field(default_factory=dict)


def case_of(image: str) -> str:
    """The image's file name without its ending."""
    return stem_of(image)


def is_path(value: Any) -> bool:
    return isinstance(value, str) and ("/" in value or ending_of(value) in VOLUMES | PICTURES)


def says_classes(body: Any) -> bool:
    if not isinstance(body, dict) or "file_ending" in body or "channel_names" in body:
        return False
    listed = body.get("training") or []
    return bool(listed) and all(
        isinstance(e, dict) and any(k in e and not is_path(e[k]) for k in CLASS_KEYS)
        for e in listed
    )


def finish(
    tree: Tree,
    entries: list[Entry],
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
        whose = people[entry.where, entry.files[0]]
        _add(entry, whose, said, near_miss(entry.case, sheets), found)
    found.rows.sort(key=lambda row: (row.patient or row.files[0], row.files))
    found.classes = ordered(row.label for row in found.rows if row.label)


def _add(entry: Entry, whose: str, said: Said | None, lacking: str, found: Found) -> None:
    label = entry.label or (said.class_of.get(entry.case) if said else None)
    if label is None and entry.part == POOL:
        found.rows.append(Row(entry.files, None, whose, part=POOL))
        for mask in entry.masks:
            found.leave_out(mask, "a mask of a scan without a class")
        return
    if label is None:
        found.reject((*entry.files, *entry.masks), lacking, entry.case, bare=True)
        return
    held_out = "test" if entry.part == POOL else entry.part  # its class is in a table
    found.rows.append(
        Row(
            entry.files,
            label,
            whose,
            entry.masks,
            site=(said.site_of.get(entry.case) if said else None) or entry.site,
            part=(said.part_of.get(entry.case) if said else None) or held_out,
            covariates={
                **(said.covariates.get(entry.case, {}) if said else {}),
                **entry.covariates,
            },
        )
    )


def _tables(
    tree: Tree, entries: Iterable[Entry], options: Options, what: str
) -> tuple[list[Sheet], Said]:
    aliases = {
        e.case: [[e.case, PurePosixPath(e.files[0]).name, *e.files, stem_of(e.files[0])]]
        for e in entries
    }
    problems: dict[str, str] = {}
    sheets = sheets_of(tree, aliases, problems, near=options.near_ids)
    said = said_by(sheets, options)
    if said is None:
        if problems:
            raise UserError(next(iter(problems.values())))
        if not sheets and (near := nearly_named(tree, [*aliases])):
            raise UserError(near)
        if sheets:
            raise UserError(sheets[0].without_class("cases"))
        raise UserError(
            f"data.root: {what} says nothing of a patient's class; write labels.csv with the "
            "columns case,class[,patient] and a line for each case"
        )
    return sheets, said


def _people(
    entries: list[Entry], said: Said | None, options: Options, found: Found, what: str
) -> dict[tuple[str, str], str]:
    by_table = {**said.group_of, **said.patient_of} if said else {}
    own = {
        (e.where, e.files[0]): patient_by(options, e.files[0]) or e.patient or by_table.get(e.case)
        for e in entries
    }
    told = {(e.where, e.files[0]) for e in entries if e.part != POOL}
    without = [key for key, patient in own.items() if patient is None]
    fallback = {(e.where, e.files[0]): e.own or e.files[0] for e in entries}
    if without:
        stems = {key: case_of(fallback[key]) for key in without}
        by_stem, notes = one_person_each(stems.values())
        changed = {key: by_stem[stem] for key, stem in stems.items() if by_stem[stem] != stem}
        fallback |= changed
        found.notes += notes
        found.notes.append(
            f"{what}: {len(told.intersection(without))} of {len(told)} scans name no patient and "
            'count as one each; if one person has several, add "patient" or scores leak'
        )
        found.alone = len(without) == len(entries) and not changed
    return {key: patient or fallback[key] for key, patient in own.items()}
