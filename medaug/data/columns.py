"""What the column of a table says, by its name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from medaug.data.canonical import is_blank, tidy
from medaug.data.labels import Table
from medaug.data.names import PART_WORDS
from medaug.errors import UserError

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "file": ("file", "files", "filename", "path", "filepath", "image", "imagepath", "scan"),
    "class": ("class", "label"),
    "patient": (
        *("patient", "patients", "patientid", "patientno", "patientnumber", "patid", "pid"),
        *("subject", "subjectid", "subjectno", "participant", "participantid", "person"),
        *("personid",),
    ),
    "mask": ("mask", "masks", "maskpath", "maskfile", "segmentation"),
    "group": ("group", "groupid"),
    "site": ("site", "centre", "center"),
    "part": ("part",),
    "slice": ("slice",),
}
"""Role -> what its column may be called, in lower case without spaces and separators."""
NEEDED = ("file", "class")
PART_COLUMNS = frozenset(
    (
        "part partition split datasplit datasetsplit splitname set subset dataset datasettype "
        "phase usage stage fold folds group partname traintest traintestsplit datapartition"
    ).split()
)
_SOMEBODY = re.compile(
    r".*(patient|patienten|subject|participant|person|proband|individual|volunteer|donor|animal)s?"
    r"(id|ids|no|nr|num|number|name|uid|code|key|identifier|barcode|pseudonym|index|hash)?"
)
_SHORT_FOR_SOMEBODY = frozenset(
    (
        "id mrn case caseid caseno casenumber casename study studyid studyno ptid pt ptno rid eid "
        "sub subid subj subjid pat patno record recordid anonid pseudonym pseudonymid mouse "
        "mouseid rat ratid hospitalnumber nhsnumber accession accessionnumber name lesion lesionid "
        "slideid specimen specimenid sample sampleid biopsyid exam examid"
    ).split()
)


def simplified(column: str) -> str:
    """A column's name without case, spaces and separators."""
    return re.sub(r"[\s_.-]+", "", tidy(column)).casefold()


def roles_of(
    found: Table, needed: Sequence[str] = NEEDED, patient: str | None = None
) -> dict[str, str]:
    """Role -> column; ``patient`` is that of patients, if it is one.

    Raises:
        UserError: two columns would play one role, a needed role has none, or no column is called
            patient and another one seems to say who is on a scan.
    """
    columns: dict[str, str] = {}
    for role, names in SYNONYMS.items():
        fitting = [c for c in found.columns if simplified(c) in names and c != patient]
        if role == "patient" and patient in found.columns:
            fitting = [patient]
        if role == "group":  # a column group may as well say train and test
            fitting = [c for c in fitting if not says_parts(row[c] for _, row in found.rows)]
        if len(fitting) > 1:
            raise UserError(
                f"{found.name}:1: columns {' and '.join(fitting)} both name the {role}; keep one, "
                "or rename the other"
            )
        if fitting:
            columns[role] = fitting[0]
    for role in needed:
        if role not in columns:
            raise UserError(
                f"{found.name}:1: no column '{role}' (want {{file, class[, patient, mask, …]}}, "
                f"have {{{', '.join(found.columns)}}}); add it, or is it comma-separated?"
            )
    if not {"patient", "group"} & columns.keys():
        refuse_unheard_people(found.name, [cells for _, cells in found.rows], found.columns)
    return columns


def part_said(cell: str) -> str | None:
    """``train``, ``val``, ``test`` or ``external``, where a cell says so in a publisher's words."""
    return PART_WORDS.get(re.sub(r"[\W_]+", "", tidy(cell)).casefold().removesuffix("split"))


def says_parts(cells: Iterable[str]) -> bool:
    """Whether cells, as far as they say anything, are all parts of a publisher's."""
    said = {cell for cell in cells if not is_blank(cell)}
    return bool(said) and all(map(part_said, said))


def part_column(
    columns: Collection[str], rows: Sequence[Mapping[str, str]]
) -> tuple[str | None, list[str]]:
    """The column that says which part of the publisher's a scan is of, if there is one; and a note
    on each other one that is called so."""
    notes = []
    for column in columns:
        if simplified(column) not in PART_COLUMNS:
            continue
        cells = {tidy(row[column]) for row in rows if not is_blank(row[column])}
        if says_parts(cells):
            return column, []
        if simplified(column).startswith("fold") and len(cells) > 1:
            notes.append(
                f"column {column} ({len(cells)} values) says the publisher's folds: it is kept as "
                "a further column, and the study draws folds of its own, by patient"
            )
    return None, notes


def refuse_unheard_people(
    table: str,
    rows: Sequence[Mapping[str, str]],
    columns: Collection[str],
    *,
    by_option: bool = False,
) -> None:
    """``columns`` are those that play no role; nothing else says who is on a scan. ``by_option``:
    whether ``init --patients COLUMN`` can say it.

    Raises:
        UserError: one of them seems to, since it names several scans alike: ignored, every scan
            would count as a patient of its own.
    """
    for column in columns:
        if not _may_name_people(column):
            continue
        cells = [tidy(row[column]) for row in rows if not is_blank(row[column])]
        if 1 < len(set(cells)) < len(cells):
            told = f"say so with --patients '{column}', " if by_option else ""
            raise UserError(
                f"{table}:1: column '{column}' ({len(set(cells))} values in {len(cells)} lines) "
                f"seems to say who is on a scan; {told}call it patient (or group), or give the "
                "table such a column beside it"
            )


def _may_name_people(column: str) -> bool:
    name = simplified(column)
    return _SOMEBODY.fullmatch(name) is not None or name in _SHORT_FOR_SOMEBODY
