"""What an importer is: an object that knows one kind of folder, and lists its scans as rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from medaug.data.address import split_address
from medaug.data.canonical import tidy
from medaug.data.cohort import Reject
from medaug.data.formats import UNREAD
from medaug.data.importers.tree import HIDDEN, Tree, lies_in
from medaug.data.masks import of_anatomy
from medaug.data.names import (
    ARCHIVES,
    DRAWN,
    PICTURES,
    PREDICTIONS,
    SLICES,
    SPREADSHEETS,
    TABLES,
    VOLUMES,
    ending_of,
    stem_of,
)
from medaug.data.table import PUBLISHED, STUDY, Row

PERSON = re.compile(r"[\w .()+#=,'-]{1,64}")
"""What a folder of one person may be called; the name never becomes a path, its pseudonym does."""
NO_PERSON = (
    "the folder's name is no patient id; use 1 to 64 letters, digits, spaces and . _ - ( ) only"
)
_GUESSED = re.compile(r".*(submission|predictions?|preds)([_ -]?\d+)?", re.I)


@dataclass(frozen=True)
class Options:
    """What a person has said beforehand; an importer asks where it would have to guess."""

    classes: tuple[str, ...] = ()
    """Names that are classes."""
    required: tuple[str, ...] = ()
    """Classes that have to have scans."""
    channels: tuple[str, ...] = ()
    """Sequences to read, in this order; none: the importer's own choice."""
    class_column: str | None = None
    positive: str | None = None
    """One value of the class column against all others."""
    patients: re.Pattern[str] | None = None
    """Finds the patient in a scan's path: its group ``patient``, else what its groups find, joined
    by ``-``, else all of it."""
    patient_column: str | None = None
    """The column of a table that says who is on a scan, whatever it is called."""
    near_ids: bool = False
    """A table's ids that differ from names of files or folders only by case, zeros, ``.0`` or
    separators name these."""
    missing: bool = False
    """Leave out scans whose class is blank in a table."""
    blocks: bool = False
    """Take blocks of consecutive numbers for patients."""


@dataclass(frozen=True)
class Look:
    """How sure an importer is that a folder is of its kind, from 0 to 1, and why."""

    confidence: float
    reason: str


@dataclass
class Found:
    """The scans of a folder, and everything else in it with the reason why it is none."""

    rows: list[Row]
    left_out: dict[str, str] = field(default_factory=dict)
    """File -> reason, one line without any name."""
    tables: list[str] = field(default_factory=list)
    """Files that were read for what they say of the scans."""
    used: set[str] = field(default_factory=set)
    """Files of scans that are folders: the slices of a series."""
    notes: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    """Scans that cannot be used, one for each, their paths relative; the files of each are in
    ``left_out`` as well."""
    lost: dict[str, str] = field(default_factory=dict)
    """Class -> why a scan of it cannot be used."""
    lines_left: dict[str, str] = field(default_factory=dict)
    """Table -> what it says of scans that are not here."""
    channels: tuple[str, ...] = ()
    """Sequences that the folder has."""
    read: tuple[str, ...] = ()
    """Those that the rows list."""
    classes: tuple[str, ...] = ()
    """In their order, where the importer knows one."""
    alone: bool = False
    """No patient is known: every scan counts as one of its own."""
    written: bool = False
    """A person wrote the table: whose a scan is, is not for an importer to mend."""
    counted: bool = False
    """Whether :func:`account` has been here."""
    volume: int | None = None
    """Which volume of 4-D files is read."""

    def leave_out(self, name: str, reason: str) -> None:
        self.left_out.setdefault(name, reason)

    def reject(
        self, files: Sequence[str], reason: str, patient: str | None = None, *, bare: bool = False
    ) -> None:
        """Leave out a scan that should have been one; ``bare``: it only lacks a label."""
        for name in files:
            self.leave_out(name, reason)
        self.rejects.append(Reject(Path(files[0]), reason, patient, unlabelled=bare))

    def absent(self, table: str, n: int, what: str = "lines have no image here") -> None:
        """``n`` lines of ``table`` speak of scans that are not here."""
        if n > 0:
            self.lines_left[table] = f"{n} {what}"


@runtime_checkable
class Importer(Protocol):
    """One kind of folder."""

    @property
    def name(self) -> str: ...

    def looks_like(self, tree: Tree) -> Look | None:
        """How sure it is; None where it is not of this kind. Names and tables are read only."""

    def rows(self, tree: Tree, options: Options) -> Found:
        """The scans.

        Raises:
            UserError: the folder does not say what a study has to know; says what to supply.
        """


def account(tree: Tree, found: Found) -> Found:
    """``found``, with a reason for every file of ``tree`` that it does not use.

    Afterwards the files below the folder are those that are used and those left out, exactly.
    """
    found.rows = [
        replace(row, label=row.label and tidy(row.label), patient=row.patient and tidy(row.patient))
        for row in found.rows
    ]
    found.classes = tuple(dict.fromkeys(map(tidy, found.classes)))
    used = used_files(found)
    found.used |= {voxels for voxels, header in tree.header_of.items() if header in used}
    used |= found.used
    for name in tree.files:
        if name not in used and name not in found.left_out:
            found.left_out[name] = _why(name, tree, found)
    for name in used & found.left_out.keys():
        del found.left_out[name]
    found.left_out.update(tree.noise)
    for name, reason in tree.noise.items():
        if reason != HIDDEN and not found.counted:
            place = Path(name)
            whose = place.parent.name if ending_of(name) in VOLUMES else place.name
            found.rejects.append(Reject(place, reason, whose))
    found.counted = True
    assert len(used & set(tree.files)) + len(found.left_out) == tree.total, "a file vanished"
    return found


def used_files(found: Found) -> set[str]:
    """Every file that a row, a mask or a label comes from."""
    used = set(found.tables) | found.used
    for row in found.rows:
        used |= {split_address(Path(name))[0].as_posix() for name in (*row.files, *row.masks)}
    return used


def is_guessed(table: str) -> bool:
    """Whether a table holds what somebody has guessed: ``sample_submission.csv``."""
    return _GUESSED.fullmatch(stem_of(table)) is not None or lies_in(table, PREDICTIONS)


def _why(name: str, tree: Tree, found: Found) -> str:
    ending = ending_of(name)
    if (header := tree.header_of.get(name)) is not None:
        return found.left_out.get(header) or _why(header, tree, found)
    if lies_in(name, PREDICTIONS | DRAWN):
        return "in a folder of predictions, overlays or results"
    if name in tree.mask_files:
        return of_anatomy(name) or "a mask without its scan"
    if name in tree.dicom_objects:
        return tree.dicom_objects[name]
    if name.rpartition("/")[2].upper() == "DICOMDIR":
        return "a DICOMDIR, which is not followed"
    if ending in UNREAD:
        return UNREAD[ending]
    if ending in SLICES or (found.used and name in tree.dicom):
        return "a DICOM file outside of the series that are read"
    if ending in VOLUMES:
        return "a volume that is no scan of this study: another sequence, or nothing says its class"
    if ending in PICTURES:
        return "an image that is no scan of this study: nothing says its class"
    if ending in TABLES:
        if is_guessed(name):
            return "a table of predictions or a sample submission"
        return "a table that was not needed"
    if ending in SPREADSHEETS:
        return "a spreadsheet, which is not read; if it says classes or patients, save it as CSV"
    if ending in ARCHIVES:
        return "an archive that is no scan of this study"
    return f"no scan by its ending ({ending})" if ending else "no scan: it has no ending"


def patient_by(options: Options, name: str) -> str | None:
    """The patient that the person's own expression finds in a path."""
    if options.patients is None or (match := options.patients.search(name)) is None:
        return None
    if "patient" in (options.patients.groupindex or {}):
        return match["patient"]
    return "-".join(filter(None, match.groups())) or match[0]


def as_published(rows: Iterable[Row]) -> list[Row]:
    """The rows, without the publisher's part where there is a single one: it tells nothing."""
    rows = list(rows)
    if len({row.part for row in rows} & {*PUBLISHED}) > 1:
        return rows
    return [replace(row, part=STUDY) if row.part in PUBLISHED else row for row in rows]


def count_reasons(left_out: Mapping[str, str]) -> list[tuple[str, int]]:
    """(reason, number of files), the most frequent first."""
    return Counter(left_out.values()).most_common()


def ordered(classes: Iterable[str]) -> tuple[str, ...]:
    """By name, those first that custom puts first: the last class is the positive one."""
    first = [name.casefold() for name in _BY_CUSTOM]
    return tuple(sorted({str(c) for c in classes}, key=lambda c: (c.casefold() not in first, c)))


_BY_CUSTOM = (
    *("normal", "healthy", "benign", "control", "controls", "negative", "LGG", "no", "0"),
    *("no finding", "hc", "cn"),
)
