"""The same picture twice: under two classes it is refused, under two patients they are one."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medaug.data.digests import Digests
from medaug.data.nifti import Limits, nifti_files
from medaug.data.reader import Cut, read_rows
from medaug.data.sandbox import Sandbox
from medaug.data.table import POOL, Row, lines_of
from medaug.errors import UserError

_LOOK = 16
"""Side in pixels at which a picture is looked at, to leave blank ones alone."""


def same_pictures(rows: Sequence[Row], base: Path, digests: Digests) -> list[list[int]]:
    """Groups of rows whose (first) files have equal content, blank pictures left out.

    Only files of equal size are read, of a pair the one that holds the voxels; folders of slices
    and rows of archives are not compared.
    """
    pixels = [nifti_files(base / row.files[0])[-1] for row in rows]
    by_size: dict[int, list[int]] = defaultdict(list)
    for number, path in enumerate(pixels):
        try:
            about = os.lstat(path)
        except OSError:
            continue
        if about.st_size and os.path.isfile(path):
            by_size[about.st_size].append(number)
    alike = [n for numbers in by_size.values() if len(numbers) > 1 for n in numbers]
    found = digests.all_of(pixels[n] for n in alike)
    by_content: dict[str, list[int]] = defaultdict(list)
    for number, digest in zip(alike, found, strict=True):
        if len(digest) == 64:
            by_content[digest].append(number)
    return [numbers for numbers in by_content.values() if len(numbers) > 1]


def one_person(
    rows: Sequence[Row], base: Path, digests: Digests, *, name: str, merge: bool, accept: bool
) -> tuple[list[Row], list[str]]:
    """The rows without a picture of two people, and notes about it.

    ``merge``: an importer invented the patients or read them off names, so equal pictures join
    them; else a person wrote them, and is asked.

    Raises:
        UserError: a picture has two classes; or two patients that a person wrote.
    """
    same = same_pictures(rows, base, digests)
    groups = [
        numbers
        for numbers in same
        if len({rows[n].label for n in numbers} | {None}) > 2
        or len({rows[n].unit for n in numbers}) > 1
    ]
    own = sum(len(numbers) - 1 for numbers in same if numbers not in groups)
    groups = _not_blank(groups, rows, base)
    for numbers in groups:
        told = {rows[n].label for n in numbers if rows[n].part != POOL}
        if len(told) > 1:
            where = lines_of([rows[n] for n in numbers])
            raise UserError(
                f"{name}: {where}: the same picture in the classes "
                f"{' and '.join(sorted(map(str, told)))} ({len(numbers)} files of equal content); "
                "keep the one that is right"
            )
    notes = []
    if own:
        notes.append(f"{own} files are copies of another one of the same patient")
    if not groups or accept:
        return list(rows), notes
    if not merge:
        first = [rows[n] for n in groups[0]]
        raise UserError(
            f"{name}: {lines_of(first)}: the same picture under {len({r.unit for r in first})} "
            f"patients ({len(groups)} such pictures); give them one patient or group, take lines "
            "out, or set data.accept.copies"
        )
    joined, people = _joined(rows, groups)
    return joined, [
        *notes,
        f"{len(groups)} pictures are there under several patients, {people} in all: each such set "
        "is taken for one patient",
    ]


def _joined(rows: Sequence[Row], groups: list[list[int]]) -> tuple[list[Row], int]:
    """The rows with one patient for each chain of equal pictures."""
    parent: dict[str, str] = {}

    def first(name: str) -> str:
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    people = set()
    for numbers in groups:
        units = sorted({first(rows[n].unit) for n in numbers})
        people |= {rows[n].unit for n in numbers}
        for unit in units:
            parent[unit] = units[0]
    changed = [
        replace(row, patient=first(row.unit), group=None) if first(row.unit) != row.unit else row
        for row in rows
    ]
    return changed, len(people)


def _not_blank(groups: list[list[int]], rows: Sequence[Row], base: Path) -> list[list[int]]:
    """Without pictures that show nothing: two black slices are nobody's copy."""
    if not groups:
        return []
    cut = Cut(_LOOK, "all", 1, Limits())
    tasks = [(base / rows[numbers[0]].files[0], None, cut) for numbers in groups]
    with Sandbox(read_rows, workers=1) as sandbox:
        shown = [
            bool(o.arrays) and not np.isclose(o.arrays[0].min(), o.arrays[0].max())
            for o in sandbox.map(tasks)
        ]
    return [numbers for numbers, seen in zip(groups, shown, strict=True) if seen]
