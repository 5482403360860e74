"""Where folders and tables could both say what scans are: which of them is believed."""

from __future__ import annotations

from pathlib import Path

from medaug.data.importers import Options, Tree, recognise
from tests.data.dicom_series import voxels, write_series
from tests.data.folders import table, volume


def test_one_folder_is_no_class_beside_a_table_of_several(tmp_path: Path) -> None:
    for i in range(8):
        volume(tmp_path / f"volumes/sub-{i:03d}_T1w.nii.gz")
    rows = [[f"sub-{i:03d}", ("AD", "CN")[i % 2], 60 + i] for i in range(8)]
    table(tmp_path / "participants.csv", "participant_id,diagnosis,age", rows)
    tree = Tree.of(tmp_path)
    found = recognise(tree)[0].rows(tree, Options())
    assert sorted(found.classes) == ["AD", "CN"]
    assert sorted((row.patient, row.label) for row in found.rows) == [
        (f"sub-{i:03d}", ("AD", "CN")[i % 2]) for i in range(8)
    ]


def test_one_folder_stays_a_class_where_no_table_says_more(tmp_path: Path) -> None:
    for i in range(4):
        volume(tmp_path / f"AD/sub-{i:03d}_T1w.nii.gz")
    table(tmp_path / "participants.csv", "participant_id,age", [[f"sub-{i:03d}", i] for i in range(4)])  # fmt: skip
    tree = Tree.of(tmp_path)
    assert {row.label for row in recognise(tree)[0].rows(tree, Options()).rows} == {"AD"}


def test_a_table_of_patients_leaves_their_series_whole(tmp_path: Path) -> None:
    for i in range(6):
        write_series(tmp_path / f"P{i}", voxels(i, (16, 16, 5)))
    table(tmp_path / "labels.csv", "PatientID,label", [[f"P{i}", i % 2] for i in range(6)])
    tree = Tree.of(tmp_path)
    importer, _ = recognise(tree)
    assert importer.name == "dicom_series"
    rows = importer.rows(tree, Options()).rows
    assert sorted((row.patient, row.label) for row in rows) == [(f"P{i}", str(i % 2)) for i in range(6)]  # fmt: skip
