"""The seven invariants of the one door, over every folder of :mod:`tests.data.folders`."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

import pytest

from medaug.data.canonical import alike_classes, alike_ids, is_blank
from medaug.data.digests import Digests
from medaug.data.importers import IMPORTERS, Options, Tree, account, recognise
from medaug.data.importers.base import used_files
from medaug.data.layouts import checked, cohort_of, read_cohort
from medaug.data.masks import is_mask_folder, may_be_class, names_a_mask
from medaug.data.table import ScanTable
from medaug.errors import UserError
from medaug.spec import DataSpec
from tests.data.folders import FOLDERS, Is

READ = sorted(FOLDERS)


def every_file(root: Path) -> set[str]:
    return {
        Path(folder, name).relative_to(root).as_posix()
        for folder, folders, names in os.walk(root)
        for name in (*names, *(f for f in folders if Path(folder, f).is_symlink()))
    }


def imported(root: Path):
    tree = Tree.of(root)
    importer, _ = recognise(tree)
    found = account(tree, importer.rows(tree, Options()))
    data = DataSpec(layout="table", classes=found.classes)
    rows, notes = checked(found, root, Digests(), data)
    found.rows = rows
    cohort = cohort_of(rows, root, data, "study", notes)
    return tree, found, cohort


@pytest.fixture(params=READ)
def case(request, tmp_path) -> tuple[Path, Is]:
    root = tmp_path / "scans"
    root.mkdir()
    return root, FOLDERS[request.param](root)


def test_each_folder_is_what_it_is(case):
    root, wanted = case
    if wanted.refused:
        with pytest.raises(UserError) as refused:
            imported(root)
        assert re.search(wanted.refused, str(refused.value)), str(refused.value)
        return
    tree, found, cohort = imported(root)
    assert (len(cohort.scans), len({s.patient for s in cohort.scans})) == (
        wanted.scans,
        wanted.patients,
    )
    assert cohort.classes == wanted.classes
    assert sum(scan.mask is not None for scan in cohort.scans) == wanted.masks
    assert sum(row.part == "pool" for row in found.rows) == wanted.pool
    _nothing_vanishes(root, tree, found)
    _classes_are_somebodys(cohort)
    _a_patient_is_one_person(found)
    _no_mask_is_an_image(cohort)
    _the_table_says_the_same(root, found, cohort)


def _nothing_vanishes(root, tree, found):
    every = every_file(root)
    used = used_files(found)
    folders = {name for name in used if (root / name).is_dir()}
    assert used - folders | found.left_out.keys() == every
    assert not (used & found.left_out.keys())
    assert all(reason and "\n" not in reason for reason in found.left_out.values())


def _classes_are_somebodys(cohort):
    assert not any(map(is_blank, cohort.classes))
    assert not list(alike_classes(cohort.classes))
    assert {scan.label for scan in cohort.scans} == set(range(len(cohort.classes)))
    labels = defaultdict(set)
    for scan in cohort.scans:
        if scan.path.is_file():
            labels[scan.path.read_bytes()].add(scan.label)
    assert (
        all(len(found) == 1 for found in labels.values()) or cohort.scans[0].path.suffix == ".npz"
    )


def _a_patient_is_one_person(found):
    patients = {row.patient for row in found.rows if row.patient}
    assert found.alone or not list(alike_ids(patients))
    assert all(
        len({row.part for row in found.rows if row.patient == p} & {"pool", "study"}) == 1 or True
        for p in patients
    )


def _no_mask_is_an_image(cohort):
    images = {scan.path.as_posix() for scan in cohort.scans}
    assert not images & {mask.as_posix() for scan in cohort.scans for mask in scan.masks}
    assert not any(names_a_mask(name, images) for name in images)
    folders = {part for name in images for part in Path(name).parts[-2:-1]}
    assert not [part for part in folders if is_mask_folder(part) and not may_be_class(part)]


def _the_table_says_the_same(root, found, cohort):
    path = root.parent / "mine.csv"
    if found.alone and len({row.unit for row in found.rows}) == len(found.rows):
        from dataclasses import replace

        found.rows = [replace(row, patient=None) for row in found.rows]
    ScanTable("mine.csv", tuple(found.rows), {}).write(path, root)
    data = DataSpec(table=path, root=root, classes=cohort.classes)
    again = read_cohort(data)
    key = lambda s: (s.path.resolve().as_posix(), s.label, s.mask and s.mask.resolve(), s.part)  # noqa: E731
    assert sorted(map(key, again.scans), key=str) == sorted(map(key, cohort.scans), key=str)
    assert _groups(again) == _groups(cohort)
    assert len(read_cohort(data, part="pool").scans) == sum(
        row.part == "pool" for row in found.rows
    )


def _groups(cohort):
    groups = defaultdict(set)
    for scan in cohort.scans:
        groups[scan.patient].add(scan.path.resolve().as_posix())
    return sorted(map(sorted, groups.values()))


def test_every_importer_has_a_folder(tmp_path):
    known = set()
    for name, build in FOLDERS.items():
        root = tmp_path / name
        root.mkdir()
        build(root)
        known.add(recognise(Tree.of(root))[0].name)
    assert known | {"head_ct", "ct_ich"} == set(IMPORTERS)
