"""Who is on a 2-D image: the hardest question of public image sets, and where they leak."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from medaug.data.cohort import Reject, Scan
from medaug.data.labels import read_table
from medaug.errors import UserError

PATIENT_TABLES = ("patients.csv", "groups.csv")
PATIENT_COLUMNS = ("patient", "group")

_IN_NAME = tuple(
    re.compile(pattern)
    for pattern in (
        # Kermany's chest X-rays: person123_bacteria_4 and person123_virus_4 are one child.
        r"(?P<patient>person\d+)_(bacteria|virus)_\d+(_\d+)?",
        r"(?P<patient>(NORMAL\d+-)?IM-\d+)-\d+(-\d+)?",
        # His OCT: (disease)-(patient)-(number of the image).
        r"(CNV|DME|DRUSEN|NORMAL)-(?P<patient>\d{3,})-\d+",
        r".*?(?P<patient>TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4})(?![A-Za-z0-9]).*",
        r"(?P<patient>OAS[1-4]_?\d{4})(?!\d).*",
        r".*?(?<!\d)(?P<patient>\d{3}_S_\d{4})(?!\d).*",  # ADNI
        r".*?(?P<patient>LIDC-IDRI-\d{4})(?!\d).*",
        r"(?P<patient>sub-[A-Za-z0-9]+)_.+",  # BIDS
        r"(?P<patient>PAT_\d+)_\d+_\d+",  # PAD-UFES-20
        r"SOB_[BM]_[A-Z]+[-_](?P<patient>\d\d-\d+[A-Z]*)-\d+-\d+",  # BreakHis
        # Blood smears of the NIH (malaria): the same number in both classes is one person.
        r"(?P<patient>C\d+P\d+)(?:[Tt]hin|N?thin|ReThin)?[A-Z]?_IMG_.*",
    )
)
"""Names that public sets give their pictures, and who is on them."""

_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d{1,9})")

BLOCK, GUARD = 60, 15
"""Images without patients, numbered patient by patient, are grouped in blocks of about 60
consecutive numbers; the 15 between two blocks are not used, as a patient may lie across."""


def patient_in_name(path: Path) -> str:
    """The patient that a known naming scheme gives, else the file's stem."""
    for pattern in _IN_NAME:
        if match := pattern.fullmatch(path.stem):
            return match["patient"]
    return path.stem


def apart_by_class(scans: Sequence[Scan], classes: Sequence[str]) -> tuple[list[Scan], list[str]]:
    """The scans with patients of their own where several classes number their images alike, and a
    note about them.

    ``normal/1.png`` and ``ill/1.png`` are two people if numbers run on in each folder, because then
    they count images. A name or a number with gaps around it is somebody's: equal ones in two
    classes stay one patient, who is never on both sides of a split.
    """
    numbers: dict[tuple[str, int | None], set[int]] = defaultdict(set)
    labels_of: dict[str, set[int | None]] = defaultdict(set)
    for scan in scans:
        labels_of[scan.patient].add(scan.label)
        if match := _NUMBERED.fullmatch(scan.patient):
            numbers[match["before"], scan.label].add(int(match["number"]))
    running = {key for key, n in numbers.items() if max(n) - min(n) + 1 < 2 * len(n)}

    def counts_images(patient: str) -> bool:
        match = _NUMBERED.fullmatch(patient)
        return match is not None and all(
            (match["before"], label) in running for label in labels_of[patient]
        )

    alike = {p for p, labels in labels_of.items() if len(labels) > 1 and counts_images(p)}
    if not alike:
        return list(scans), []
    apart = [
        replace(scan, patient=f"{classes[scan.label or 0]} {scan.patient}")
        if scan.patient in alike
        else scan
        for scan in scans
    ]
    return apart, [
        f"{len(alike)} numbers are file names in the folders of several classes: they seem to "
        "count images, so equal ones are taken for different people; if they are one person's, "
        "add patients.csv (file,patient) or scores leak"
    ]


def patients_of_table(
    root: Path, scans: Sequence[Scan], rejects: list[Reject]
) -> tuple[list[Scan], list[str], dict[str, int]]:
    """The scans with the patients of ``patients.csv`` or ``groups.csv``, where there is one; notes
    for the user; table -> number of its lines without an image.

    ``file`` is an image's name, with its folder (``normal/1.png``) where several have it.

    Images that the table lacks go to ``rejects``.

    Raises:
        UserError: the table is malformed or contradicts itself.
    """
    name = next((name for name in PATIENT_TABLES if os.path.lexists(root / name)), None)
    if name is None:
        alone = sum(patient_in_name(scan.path) == scan.path.stem for scan in scans)
        if not alone:
            return list(scans), ["patients are read off the file names"], {}
        note = (
            f"no {' or '.join(PATIENT_TABLES)}: {alone} of {len(scans)} images count as patients "
            "of their own; if one person has several, add the table (file,patient) or scores leak"
        )
        return list(scans), [note], {}
    table = read_table(root / name, ["file"])
    column = next((column for column in PATIENT_COLUMNS if column in table.columns), None)
    if column is None:
        raise UserError(f"{name}:1: no column {' or '.join(PATIENT_COLUMNS)}; add one of the two")
    patient_of: dict[str, str] = {}
    for line, row in table.rows:
        patient = row[column].strip()
        if not patient:
            raise UserError(f"{name}:{line}: {column} is empty; name who is on the image")
        if patient_of.setdefault(row["file"], patient) != patient:
            raise UserError(f"{name}:{line}: this file has another {column} further up")
    listed, used = [], set()
    for scan in scans:
        parts = scan.path.relative_to(root).parts
        names = ("/".join(parts[i:]) for i in range(len(parts)))
        if (file := next((name for name in names if name in patient_of), None)) is not None:
            used.add(file)
            listed.append(replace(scan, patient=patient_of[file]))
        else:
            reason = f"has no line in {name}; add one"
            rejects.append(Reject(scan.path, reason, unlabelled=True))
    lines_left = len(patient_of.keys() - used)
    return listed, [f"patients are those of {name}, column {column}"], {name: lines_left}


def published_leaks(scans: Iterable[Scan]) -> Iterator[str]:
    """What names alone show of leaks between the publisher's own train, val and test folders."""
    parts_of: dict[str, set[str | None]] = defaultdict(set)
    scans = list(scans)
    files: dict[tuple[str, int | None], list[Scan]] = defaultdict(list)
    for scan in scans:
        parts_of[scan.patient].add(scan.part)
        files[scan.path.stem, scan.label].append(scan)
    if leaking := sum(len(parts) > 1 for parts in parts_of.values()):
        yield (
            f"{leaking} of {len(parts_of)} patients are in more than one of the folders train, "
            "val, test: the published split leaks"
        )
    across = [alike for alike in files.values() if len({scan.part for scan in alike}) > 1]
    if across:
        n = len(across)
        yield f"{n} file names are in more than one of the folders train, val, test: copies?"
    alike = [a for a in files.values() if len(a) > 1 and len({s.part for s in a}) == 1]
    if twice := sum(len({scan.path.parent for scan in a}) == 1 for a in alike):
        yield f"{twice} file names are there with several endings: one picture twice?"
    if mixed := of_several_classes(scans):
        yield f"{mixed} patients have images of several classes"


def of_several_classes(scans: Iterable[Scan]) -> int:
    """How many patients have scans of more than one class."""
    labels_of: dict[str, set[int | None]] = defaultdict(set)
    for scan in scans:
        labels_of[scan.patient].add(scan.label)
    return sum(len(labels) > 1 for labels in labels_of.values())


def in_blocks(scans: Iterable[Scan]) -> tuple[list[Scan], str]:
    """Stand-ins for patients, made of consecutive numbers of one class, and a note about them.

    A patient has one class and takes consecutive numbers. So nobody lies across a change of
    class or a wide gap in the numbers, and elsewhere a guard band of :data:`GUARD` numbers
    between two blocks is left out.
    """
    runs: list[list[Scan]] = []
    for scan in sorted(scans, key=number):
        last = runs[-1][-1] if runs else None
        if last and last.label == scan.label and number(scan) - number(last) <= GUARD:
            runs[-1].append(scan)
        else:
            runs.append([scan])
    grouped = []
    for run in runs:
        start, length = number(run[0]), number(run[-1]) - number(run[0]) + 1
        n_blocks = max(1, round((length + GUARD) / (BLOCK + GUARD)))
        width = (length + GUARD) / n_blocks - GUARD
        for scan in run:
            block, offset = divmod(number(scan) - start, width + GUARD)
            if offset < width:
                grouped.append(replace(scan, patient=f"block-{start}-{int(block)}"))
    n_blocks = len({scan.patient for scan in grouped})
    left_out = sum(map(len, runs)) - len(grouped)
    return grouped, (
        f"no column {' or '.join(PATIENT_COLUMNS)}: images are grouped by number into {n_blocks} "
        f"blocks, {left_out} images between blocks are left out; this is only right where numbers "
        "run patient by patient"
    )


def number(scan: Scan) -> int:
    """The image's number in its series or set."""
    assert scan.index is not None
    return scan.index
