"""Where folders and tables could both say what scans are: which of them is believed."""

from __future__ import annotations

from pathlib import Path

from medaug.data.importers import Options, Tree, recognise
from medaug.data.importers.naming import file_aliases, matched
from medaug.data.labels import Table
from tests.data.dicom_series import voxels, write_series
from tests.data.folders import picture, table, volume


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


def test_paths_of_another_machine_name_the_files_that_their_ends_fit(tmp_path: Path) -> None:
    rows = []
    for i in range(8):
        place = f"train/patient{i // 2:05d}/study{1 + i % 2}/view1.png"
        picture(tmp_path / place)
        rows.append([f"/home/bob/Set-v1/{place}", ("ill", "well")[i // 2 % 2]])
    table(tmp_path / "train.csv", "Path,label", rows)
    tree = Tree.of(tmp_path)
    importer, _ = recognise(tree)
    assert importer.name == "csv_images"
    found = importer.rows(tree, Options()).rows
    assert {row.patient for row in found} == {f"patient{i:05d}" for i in range(4)}
    assert sorted((row.files[0], row.label) for row in found) == sorted(
        (path.removeprefix("/home/bob/Set-v1/"), label) for path, label in rows
    )


def test_an_end_that_fits_two_files_names_neither(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / f"a{i}/x.png")
    sheet = Table("t.csv", ("Path",), ((2, {"Path": "elsewhere/x.png"}), (3, {"Path": "b/a1/x.png"})))  # fmt: skip
    found = matched(sheet, file_aliases([f"a{i}/x.png" for i in range(4)]))
    assert found is not None
    assert [*found.row_of] == ["a1/x.png"]


def test_y_beside_x_is_a_place(tmp_path: Path) -> None:
    """Boxes of a finding, none where there is none."""
    rows = []
    for i in range(8):
        picture(tmp_path / f"imgs/p{i}.png")
        rows += [[f"p{i}", 3, 4, 5, 5, 1]] * 2 if i % 2 else [[f"p{i}", "", "", "", "", 0]]
    table(tmp_path / "labels.csv", "patientId,x,y,width,height,Target", rows)
    tree = Tree.of(tmp_path)
    found = recognise(tree)[0].rows(tree, Options()).rows
    assert sorted((row.patient, row.label) for row in found) == [
        (f"p{i}", str(i % 2)) for i in range(8)
    ]


def test_folders_of_people_above_their_class(tmp_path: Path) -> None:
    for i in range(8):
        for k in range(2):
            word = ("negative", "positive")[i % 2]
            picture(tmp_path / f"train/XR_HAND/patient{i:05d}/study{1 + k}_{word}/image{k}.png")
    tree = Tree.of(tmp_path)
    found = recognise(tree)[0].rows(tree, Options())
    assert found.classes == ("negative", "positive")
    assert {row.patient for row in found.rows} == {f"patient{i:05d}" for i in range(8)}
    assert "patients are the 8 folders above the classes" in found.notes
