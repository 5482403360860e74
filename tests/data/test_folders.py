"""The seven invariants of the one door, over every folder of :mod:`tests.data.folders`."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from medaug.data import look
from medaug.data.canonical import alike_classes, alike_ids, is_blank
from medaug.data.cohort import units_and_labels
from medaug.data.digests import Digests
from medaug.data.importers import IMPORTERS, Options, Tree, account, recognise
from medaug.data.importers.base import used_files
from medaug.data.layouts import checked, cohort_of, read_cohort
from medaug.data.masks import is_mask_folder, may_be_class, names_a_mask
from medaug.data.nifti import Limits, nifti_files
from medaug.data.reader import Cut
from medaug.data.slices import ingest
from medaug.data.splits import patient_labels
from medaug.data.table import ScanTable
from medaug.errors import UserError
from medaug.init import check_table, first_look, write_table
from medaug.spec import DataSpec, SplitSpec
from medaug.store import Store
from tests.data.every_folder import FOLDERS
from tests.data.folders import Is

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


RECOGNISED: dict[str, str] = {}
"""Folder -> the importer that read it."""


@pytest.fixture(scope="module", params=READ)
def case(request, tmp_path_factory) -> Iterator[tuple[Path, Is]]:
    """A folder, built once for all tests of it; they leave it as it is."""
    place = tmp_path_factory.mktemp("case")
    root = place / "scans"
    root.mkdir()
    yield root, FOLDERS[request.param](root)
    shutil.rmtree(place)


def test_each_folder_is_what_it_is(case, request):
    root, wanted = case
    if wanted.refused:
        with pytest.raises(UserError) as refused:
            first_look(root)
        assert re.search(wanted.refused, str(refused.value)), str(refused.value)
        return
    tree, found, cohort = imported(root)
    RECOGNISED[request.node.callspec.params["case"]] = recognise(tree)[0].name
    assert (len(cohort.scans), len({s.patient for s in cohort.scans})) == (
        wanted.scans,
        wanted.patients,
    )
    assert cohort.classes == wanted.classes
    assert sum(scan.mask is not None for scan in cohort.scans) == wanted.masks
    assert sum(row.part == "pool" for row in found.rows) == wanted.pool
    _nothing_vanishes(root, tree, found)
    _classes_are_somebodys(cohort, blank=any("show nothing" in text for text in wanted.says))
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


def _classes_are_somebodys(cohort, *, blank):
    assert not any(map(is_blank, cohort.classes))
    assert not list(alike_classes(cohort.classes))
    assert {scan.label for scan in cohort.scans} == set(range(len(cohort.classes)))
    labels = defaultdict(set)
    for scan in cohort.scans:
        if scan.path.is_file():
            labels[nifti_files(scan.path)[-1].read_bytes()].add(scan.label)
    if not blank and cohort.scans[0].path.suffix != ".npz":
        assert all(len(found) == 1 for found in labels.values())


def _a_patient_is_one_person(found):
    patients = {row.patient for row in found.rows if row.patient}
    assert found.alone or not list(alike_ids(patients))
    assert all(
        len({row.part for row in found.rows if row.patient == p} & {"pool", "study"}) <= 1
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
    for number, (name, build) in enumerate(FOLDERS.items()):
        root = tmp_path / str(number)
        if name not in RECOGNISED and not root.mkdir() and not build(root).refused:
            RECOGNISED[name] = recognise(Tree.of(root))[0].name
    assert {*RECOGNISED.values(), "head_ct", "ct_ich"} == set(IMPORTERS)


# ------------------------------------------------------------- what init says, and what run reads


FEWEST = 4


def test_init_and_check_say_what_run_reads(case, tmp_path):
    """Invariant 6, and the lines of invariants 5 and 7."""
    root, wanted = case
    if wanted.refused:
        with pytest.raises(UserError):
            first_look(root)
        return
    if wanted.init_refuses:
        with pytest.raises(UserError, match=wanted.init_refuses):
            first_look(root)
        return
    _, _, cohort = imported(root)
    label_of = patient_labels(*units_and_labels(cohort.scans))
    if min(Counter(label_of.values()).values()) < FEWEST or len(set(label_of.values())) < 2:
        with pytest.raises(UserError, match=r"usable patients( \(.*\))?, too few"):
            first_look(root)
        return
    seen = first_look(root)
    lines = "\n".join(seen.lines)
    for line in wanted.says:
        assert re.search(line, lines), lines
    path = tmp_path / "mine.csv"
    write_table(seen, path)
    data = seen.data.model_copy(update={"table": path, "root": root, "image_size": 16})
    told, found = check_table(data)
    stored = ingest(data, SplitSpec(folds=2), tmp_path / "stores" / "slices", workers=1)
    store = Store.open(stored.path)
    classes = zip(data.classes, seen.inspection.patients.values(), strict=True)
    for name, patients in classes:
        rows = seen.inspection.slices[name]
        line = f"class {name}: {patients} patients, {rows} slices"
        assert line in lines
        assert line in "\n".join(told)
        assert (stored.patients[name], stored.slices[name]) == (patients, rows)
        assert rows == int((store.labels == data.classes.index(name)).sum())
    assert len(set(store.patients)) == sum(seen.inspection.patients.values())
    assert len(stored.rejects) == len(found.rejected)
    assert len(found.sights) == len(seen.inspection.sights) == len(seen.table.rows) - wanted.pool
    noted = {note.rpartition(" (")[0] for note in stored.notes if note.endswith(" files)")}
    assert noted <= {w for sight in seen.inspection.sights for w in sight.warnings}


def test_headers_alone_say_the_same_slices(case):
    """Where the budget for pixels is spent, numbers stay what they are."""
    root, wanted = case
    if wanted.refused or wanted.init_refuses:
        return
    _, _, cohort = imported(root)
    limits = Limits()
    cut = Cut(16, "all", 1, limits)
    deep, bare = (look.look_at(cohort, cut, workers=1, budget_s=s) for s in (None, 0.0))
    assert [s.slices for s in deep] == [s.slices for s in bare]
    assert [s.reason for s in deep] == [s.reason for s in bare]
