"""BIDS: ``sub-<label>/[ses-<label>/]anat/…_<suffix>.nii.gz`` and ``participants.tsv``."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medaug.data.importers.base import Found, Look, Options, ordered
from medaug.data.importers.naming import Sheet, sheets_of
from medaug.data.importers.near import near_miss, nearly_named
from medaug.data.importers.sheets import Said, said_by
from medaug.data.importers.tree import Tree
from medaug.data.masks import ORGAN, TISSUE, of_anatomy
from medaug.data.names import stem_of
from medaug.data.table import STUDY, Row
from medaug.errors import UserError

PARTICIPANTS = "participants.tsv"
_NAME = re.compile(
    r"(?P<who>sub-[A-Za-z0-9]+)(?:_(?P<ses>ses-[A-Za-z0-9]+))?(?P<more>(?:_[A-Za-z]+-[A-Za-z0-9]+)*)"
    r"_(?P<suffix>[A-Za-z0-9]+)"
)
_MASKS = frozenset({"dseg", "mask", "probseg", "roi", "seg", "lesion"})
_TISSUE = re.compile(
    r"_(label|desc)-(GM|WM|CSF|BG|SCGM|CGM|BS|brain|head|aseg|aparc\w*)(_|$)", re.I
)
_PIPELINES = ("fmriprep", "smriprep", "freesurfer", "fastsurfer", "cat12", "anat")
_ANATOMY_SAID = "a segmentation of the anatomy, or in another space: no tumour's mask"
_ORDER = ("FLAIR", "T1w", "T1c", "T2w")
_ENOUGH = 0.9


@dataclass
class _Exam:
    who: str
    images: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    masks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bids:
    """https://bids-specification.readthedocs.io/ (common principles, MRI)

    The patient is the participant, whatever the session; the class is a column of
    ``participants.tsv`` (``group``, ``diagnosis`` …), its other columns become covariates. Masks
    are ``…_dseg``, ``…_mask`` or ``…_roi``, also below ``derivatives``.
    """

    name: str = "bids"

    def looks_like(self, tree: Tree) -> Look | None:
        named = sum(_NAME.fullmatch(stem_of(name)) is not None for name in tree.volumes)
        if not named or not (PARTICIPANTS in tree or "dataset_description.json" in tree):
            return None
        return Look(0.96, f"{named} volumes with BIDS names and {PARTICIPANTS}")

    def rows(self, tree: Tree, options: Options) -> Found:
        found = Found([])
        exams = _exams(tree, found)
        found.channels = _suffixes(exams)
        found.read = _chosen(found.channels, exams, options)
        people = {exam.who for exam in exams.values()}
        aliases = {who: [[who, who.removeprefix("sub-")]] for who in people}
        problems: dict[str, str] = {}
        sheets = sheets_of(tree, aliases, problems, near=options.near_ids)
        said = said_by(sheets, options)
        if said is None:
            raise UserError(
                next(iter(problems.values()), None)
                or (nearly_named(tree, people) if not sheets else None)
                or _what_to_supply(tree, sheets)
            )
        found.tables += [sheet.table.name for sheet in sheets]
        for sheet in sheets:
            found.absent(sheet.table.name, sheet.lines_left)
        for key in sorted(exams):
            self._add(exams[key], said, near_miss(exams[key].who, sheets), found)
        found.classes = ordered(row.label for row in found.rows if row.label)
        found.notes += [f"classes are those of {said.table}, column {said.column}"]
        return found

    def _add(self, exam: _Exam, said: Said, lacking: str, found: Found) -> None:
        every = [name for names in exam.images.values() for name in names]
        if (why := said.several.get(exam.who)) is not None:
            for name in (*every, *exam.masks):
                found.leave_out(name, why)
            return
        if exam.who not in said.class_of:
            found.reject((*every, *exam.masks), lacking, exam.who, bare=True)
            return
        if missing := [suffix for suffix in found.read if suffix not in exam.images]:
            reason = f"its session has no {missing[0]} image"
            found.reject((*every, *exam.masks), reason, exam.who)
            return
        files = tuple(sorted(exam.images[suffix])[0] for suffix in found.read)
        for name in every:
            if name not in files:
                found.leave_out(name, "another sequence or run than the study reads")
        found.rows.append(
            Row(
                files,
                said.class_of[exam.who],
                exam.who,
                tuple(exam.masks),
                site=said.site_of.get(exam.who),
                part=said.part_of.get(exam.who, STUDY),
                covariates=said.covariates.get(exam.who, {}),
            )
        )


def _what_to_supply(tree: Tree, sheets: Sequence[Sheet]) -> str:
    if sheets:
        columns = ", ".join(column for sheet in sheets for column in sheet.columns())
        return (
            f"{sheets[0].table.name}: no column says the class of a participant (columns: "
            f"{columns}); name it diagnosis or group, or say --class COLUMN"
        )
    said = "names none of the participants" if PARTICIPANTS in tree else "is missing"
    return (
        f"{PARTICIPANTS}: {said}, and nothing else says their classes; write it with the columns "
        "participant_id and group"
    )


def _exams(tree: Tree, found: Found) -> dict[tuple[str, str], _Exam]:
    """(participant, session) -> its files."""
    exams: dict[tuple[str, str], _Exam] = {}
    masks: list[tuple[tuple[str, str], str]] = []
    for name in tree.volumes:
        match = _NAME.fullmatch(stem_of(name))
        if match is None:
            continue
        key = (match["who"], match["ses"] or "")
        if _of_anatomy(name, match["more"]):
            found.leave_out(name, _said_of(name, match["suffix"]))
        elif match["suffix"].casefold() in _MASKS or "label-" in match["more"]:
            masks.append((key, name))
        elif name.startswith("derivatives/"):
            found.leave_out(name, "a derivative, not the scan itself")
        else:
            exam = exams.setdefault(key, _Exam(match["who"]))
            exam.images[match["suffix"]].append(name)
    for key, name in masks:
        if key in exams:
            exams[key].masks.append(name)
    return exams


def _said_of(name: str, suffix: str) -> str:
    said = of_anatomy(name)
    return said if said and said != TISSUE else ORGAN if "mask" in suffix else _ANATOMY_SAID


def _of_anatomy(name: str, entities: str) -> bool:
    """Whether a derivative outlines the brain or its tissues, or lies in another space."""
    if of_anatomy(name) or _TISSUE.search(entities) is not None:
        return True
    if not name.startswith("derivatives/"):
        return False
    pipeline = name.split("/")[1].casefold()
    is_brain_of_it = any(word in pipeline for word in _PIPELINES)
    return "space-" in entities or (is_brain_of_it and stem_of(name).endswith("_dseg"))


def _suffixes(exams: Mapping[tuple[str, str], _Exam]) -> tuple[str, ...]:
    names = {suffix for exam in exams.values() for suffix in exam.images}
    return tuple(sorted(names, key=lambda s: (_ORDER.index(s) if s in _ORDER else 9, s)))


def _chosen(
    channels: tuple[str, ...], exams: Mapping[tuple[str, str], _Exam], options: Options
) -> tuple[str, ...]:
    if options.channels:
        by_name = {name.casefold(): name for name in channels}
        if unknown := [c for c in options.channels if c.casefold() not in by_name]:
            raise UserError(
                f"data.channel: no {unknown[0]} image in the folder; it has {', '.join(channels)}"
            )
        return tuple(by_name[name.casefold()] for name in options.channels)
    has = Counter(suffix for exam in exams.values() for suffix in exam.images)
    return tuple(c for c in channels if has[c] >= _ENOUGH * len(exams))[:1] or channels[:1]
