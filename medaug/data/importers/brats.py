"""Folders of volumes: BraTS 2013 to 2023, and whatever is laid out like it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from medaug.data.canonical import is_blank, tidy
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
from medaug.data.importers.brats_cases import Case, cases_of
from medaug.data.importers.folders import (
    class_level,
    names_no_class,
    part_in,
    telling,
)
from medaug.data.importers.naming import Sheet, sheets_of
from medaug.data.importers.near import near_miss, nearly_named
from medaug.data.importers.people import one_person_each
from medaug.data.importers.places import told_apart
from medaug.data.importers.sheets import Said, said_by, with_patients
from medaug.data.importers.tree import Tree, parts_of
from medaug.data.labels import read_table
from medaug.data.names import stem_of
from medaug.data.privacy import pseudonym
from medaug.data.table import POOL, STUDY, Row
from medaug.errors import UserError

NAME_MAPPING = "name_mapping.csv"
_ID_COLUMN = re.compile(r"(BraTS_?\d{2,4}_?(subject_?)?ID)|((subject|patient)(_?ID)?)|ID", re.I)
"""Columns of subject ids: BraTS_2020_subject_ID, BraTS18ID, subject_ID, patient_id …"""
_PUBLISHED = ("flair", "t1", "t1ce", "t2")
"""The order of study A; the first of them is what a study reads where it takes one."""
_ALSO_CALLED = {
    "t2f": "flair",
    "t1n": "t1",
    "t1c": "t1ce",
    "t2w": "t2",
    "t1gd": "t1ce",
    "t1w": "t1",
}
_ENOUGH = 0.9
"""Share of the scans that have to have a sequence for a study to read it."""


@dataclass
class _Labels:
    """What folders and tables say of cases, by :attr:`Case.key`."""

    class_of: dict[tuple[str, str], str] = field(default_factory=dict)
    lacking: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict)
    """Why a case has no class, and whether it should have one."""
    said: Said | None = None


@dataclass(frozen=True)
class Brats:
    """``…/<class>/<patient>/<patient>_<sequence>.nii.gz`` and ``<patient>_seg.nii.gz``, or
    ``…/<patient>/…`` with the classes in a table (``name_mapping.csv``); 2023 writes ``-`` for
    ``_``. Folders of parts (``…TrainingData``) are no classes. Volumes that lie in their class's
    folder are cases of their own.
    """

    name: str = "brats"

    def looks_like(self, tree: Tree) -> Look | None:
        if not tree.volumes:
            return None
        cases = cases_of(tree, _listed(tree))
        n = len(cases)
        if not n:
            return None
        masked = sum(bool(case.masks) for case in cases)
        own = sum(case.own_folder for case in cases)
        return Look(
            0.95 if own > n / 2 else 0.6, f"{n} folders or files of volumes, {masked} with a mask"
        )

    def rows(self, tree: Tree, options: Options) -> Found:
        found = Found([])
        cases = _possible(tree, found)
        if not cases:
            raise UserError(
                "data.root: holds no volume of a patient (.nii.gz, .nii, .hdr); check data.root"
            )
        channels = _sequences(cases)
        read = _chosen(channels, cases, options)
        found.channels, found.read = tuple(channels), read
        labels = _classes(tree, cases, options, found)
        patient_of, notes = one_person_each(case.name for case in cases)
        found.notes += notes
        for case in cases:
            self._add(case, labels, read, patient_of, options, found)
        found.rows = as_published(sorted(found.rows, key=lambda r: r.patient or r.files[0]))
        _check_one_class(found.rows)
        found.classes = ordered(row.label for row in found.rows if row.label)
        return found

    def _add(
        self,
        case: Case,
        labels: _Labels,
        read: tuple[str, ...],
        patient_of: Mapping[str, str],
        options: Options,
        found: Found,
    ) -> None:
        every = [*case.sequences.values(), *case.masks]
        label, said = labels.class_of.get(case.key), labels.said
        by_table = said.part_of.get(case.name) if said else None
        part = by_table or part_in(parts_of(every[0])) or STUDY
        part = STUDY if part == POOL and label is not None else part
        if label is None and part not in ("val", "test", POOL):
            reason, fault = labels.lacking.get(
                case.key, ("its class is not in data.classes", False)
            )
            if fault:
                found.reject(every, reason, case.name, bare=True)
            for name in every:
                found.leave_out(name, reason)
            return
        if missing := [name for name in read if name not in case.sequences]:
            reason = f"no {missing[0]} image; put <patient>_{missing[0]}.nii.gz into the folder"
            found.reject(every, reason, case.name)
            if label is not None:
                found.lost.setdefault(label, reason)
            return
        files = tuple(case.sequences[name] for name in read)
        masks = case.masks_of(read)
        for mask in case.masks:
            if mask not in masks:
                found.leave_out(mask, "a mask of another sequence than the study reads")
        for name, file in case.sequences.items():
            if name not in read:
                found.leave_out(file, "another sequence than the study reads")
        patient = patient_by(options, files[0])
        if patient is None and said is not None:
            patient = said.patient_of.get(case.name)
            patient = None if patient == case.name else patient  # an examination's own name
        found.rows.append(
            Row(
                files=files,
                label=label,
                patient=patient or patient_of[case.name],
                masks=masks if label is not None else (),
                site=said.site_of.get(case.name) if said else None,
                part=POOL if label is None else part,
                covariates=said.covariates.get(case.name, {}) if said else {},
            )
        )
        for mask in masks if label is None else ():
            found.leave_out(mask, "a mask of a scan without a class")


def _possible(tree: Tree, found: Found) -> list[Case]:
    """The cases whose names can be patient ids; the files of others are left out."""
    cases = []
    for case in cases_of(tree, _listed(tree)):
        if PERSON.fullmatch(case.name):
            cases.append(case)
            continue
        found.reject((*case.sequences.values(), *case.masks), NO_PERSON, case.name)
    return cases


def _listed(tree: Tree) -> set[str]:
    """Folders that a table names; where it names those of several levels, the most."""
    best: set[str] = set()
    depth = max((len(parts_of(name)) for name in tree.volumes), default=0)
    for level in range(depth if tree.tables else 0):
        paths = (parts_of(name) for name in tree.volumes)
        names = {path[level] for path in paths if len(path) > level}
        if len(names) > max(1, len(best)) and sheets_of(tree, {name: [[name]] for name in names}):
            best = names
    return best


def _sequences(cases: Collection[Case]) -> list[str]:
    """By the published order where they are known, else by name."""
    names = {name for case in cases for name in case.sequences}

    def place(name: str) -> tuple[int, str]:
        known = _ALSO_CALLED.get(name, name)
        return (_PUBLISHED.index(known) if known in _PUBLISHED else len(_PUBLISHED), name)

    return sorted(names, key=place)


def _chosen(channels: list[str], cases: Collection[Case], options: Options) -> tuple[str, ...]:
    if options.channels:
        wanted = tuple(name.casefold() for name in options.channels)
        by_other_name = {known: name for name, known in _ALSO_CALLED.items() if name in channels}
        wanted = tuple(n if n in channels else by_other_name.get(n, n) for n in wanted)
        if not any(name in channels for name in wanted):
            have = f"; it has {', '.join(channels)}" if channels else ""
            raise UserError(f"data.channel: no {wanted[0]} image in the folder{have}")
        return wanted
    has = Counter(name for case in cases for name in case.sequences)
    return tuple(name for name in channels if has[name] >= _ENOUGH * len(cases))[:1] or tuple(
        channels[:1]
    )


def _classes(tree: Tree, cases: Collection[Case], options: Options, found: Found) -> _Labels:
    """The class of each case by its folders, or by a table; and what tables say besides."""
    paths = {case.key: _above(case, options.classes) for case in cases}
    level = class_level(set(paths.values()), options.classes)
    named = {k: p[level] for k, p in paths.items() if level is not None and len(p) > level}
    aliases = {
        case.name: [[case.name], [stem_of(f) for f in case.sequences.values()]] for case in cases
    }
    problems: dict[str, str] = {}
    sheets = sheets_of(tree, aliases, problems, near=options.near_ids) if aliases else []
    if named and not _told_by(sheets, named, options):
        labels = _by_folder(cases, named, options, found)
        if sheets:
            labels.said = with_patients(Said({}, {}, {}, {}, ""), sheets, options)
            if not (options.patient_column or sheets[0].beginnings):
                labels.said.patient_of.clear()  # the folders name them
    else:
        said = said_by(sheets, options)
        labels = _by_sheets(cases, said, sheets)
        if said is not None:
            _tell(sheets, said, found)
    found.tables += [sheet.table.name for sheet in sheets] if labels.said else []
    if not labels.class_of:
        raise UserError(_what_to_supply(tree, cases, sheets, problems, options))
    return labels


def _told_by(sheets: list[Sheet], named: Mapping[tuple[str, str], str], options: Options) -> bool:
    """Whether tables say the classes although the scans lie in a folder: a single one that nobody
    asked for, beside a table with several classes."""
    if not sheets or options.classes or len({*named.values()}) > 1:
        return False
    said = said_by(sheets, options)
    return said is not None and len({*said.class_of.values()}) > 1


def _by_folder(
    cases: Iterable[Case],
    named: Mapping[tuple[str, str], str],
    options: Options,
    found: Found,
) -> _Labels:
    labels = _Labels()
    no_class, others = set(), Counter[str]()
    for case in cases:
        name = named.get(case.key)
        if name is None:
            labels.lacking[case.key] = ("lies in no folder that names its class", False)
        elif name in options.classes or not (options.classes or names_no_class(name)):
            labels.class_of[case.key] = name
        elif names_no_class(name):
            no_class.add(name)
            reason = "its folder names no class; move the scan, if you know its class"
            labels.lacking[case.key] = (reason, False)
        else:
            others[name] += 1
    found.notes += [f"folder {n} is left out: it names no class" for n in sorted(no_class)]
    if others:  # such folders may be named after patients
        found.notes.append(
            f"{len(others)} folder(s) beside {', '.join(options.required or options.classes)} "
            f"skipped, with {others.total()} folder(s) inside: their class is not in data.classes"
        )
    return labels


def _by_sheets(cases: Iterable[Case], said: Said | None, sheets: list[Sheet]) -> _Labels:
    labels = _Labels(said=said)
    for case in cases:
        if said is not None and case.name in said.class_of:
            labels.class_of[case.key] = said.class_of[case.name]
        elif said is not None and case.name in said.several:
            labels.lacking[case.key] = (said.several[case.name], False)
        else:
            labels.lacking[case.key] = (near_miss(case.name, sheets), True)
    return labels


def _tell(sheets: list[Sheet], said: Said, found: Found) -> None:
    for sheet in sheets:
        ids = [tidy(row[sheet.column]) for _, row in sheet.table.rows]
        known = {tidy(row[sheet.column]) for _, row in sheet.row_of.values()}
        if left := {i for i in ids if not is_blank(i)} - known:
            named = ", ".join(map(pseudonym, sorted(left)[:5])) + ", …" * (len(left) > 5)
            what = f"patients have no folder ({named})"
            found.absent(sheet.table.name, len(left), what)
    first = sheets[0]
    found.notes.append(f"{first.table.name}: ids are those of column {first.column}")
    found.notes += [note for note in said.notes if first.column not in note or first.beginnings]


def _what_to_supply(
    tree: Tree,
    cases: Collection[Case],
    sheets: Sequence[Sheet],
    problems: Mapping[str, str],
    options: Options,
) -> str:
    n_cases = len(cases)
    if problems:
        return next(iter(problems.values()))
    if sheets and not options.required:
        return sheets[0].without_class("patients")
    if near := nearly_named(tree, {case.name for case in cases}):
        return near
    others = [name for name in tree.tables if not name.endswith(NAME_MAPPING)]
    if others and not options.required:
        return (
            f"data.root: {n_cases} volumes, and {others[0]} has no column that names their files "
            "or folders; write ids as these are called, or a table labels.csv with the columns "
            "case,class[,patient]"
        )
    tables = [name for name in tree.tables if name.endswith(NAME_MAPPING)]
    if tables:
        table = read_table(tree.path(tables[0]), ["Grade"])
        ids = [c for c in table.columns if _ID_COLUMN.fullmatch(c)]
        if not ids:
            return (
                f"{table.name}:1: no column of ids (have {{{', '.join(table.columns)}}}); name it "
                "subject_ID"
            )
        return (
            f"{table.name}: none of the {n_cases} patient folders is in column "
            f"{' or '.join(ids)}; ids are compared exactly, as text"
        )
    if options.required:
        return (
            f"data.root: holds neither a folder {' or '.join(options.required)} nor "
            f"{NAME_MAPPING}; check data.root and data.classes"
        )
    return (
        f"data.root: {n_cases} volumes, one folder per patient, and nothing says their classes; "
        f"write {NAME_MAPPING} with the columns subject_ID,Grade and a line for each patient"
    )


def _above(case: Case, known: Collection[str]) -> tuple[str, ...]:
    return telling([part for part in case.place.split("/") if part], known)


def _check_one_class(rows: Iterable[Row]) -> None:
    class_of: dict[str, str] = {}
    for row in rows:
        if row.label is None or row.patient is None:
            continue
        if (other := class_of.setdefault(row.patient, row.label)) != row.label:
            raise UserError(
                f"data.root: patient {pseudonym(row.patient)} is in {other} and in {row.label}; "
                "a patient has one class; rename a folder if they are two people's, or take all "
                f"such names for two with {told_apart([other, row.label], row.patient)}"
            )
