"""Where folders and tables could both say what scans are: which of them is believed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from medaug.data.importers import Options, Tree, recognise
from medaug.data.importers.naming import file_aliases, matched
from medaug.data.labels import Table
from medaug.errors import UserError
from medaug.init import FirstLook, first_look
from medaug.spec.data import AcceptSpec
from tests.data.dicom_series import voxels, write_series
from tests.data.folders import picture, table, volume
from tests.data.folders_of_cohorts import cq500, rsna_miccai
from tests.data.folders_of_lists import bus_bra, left_right_and_mask, odir, vindr
from tests.data.folders_of_tables import listed_in_capitals


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


def looked_at(build: Any, tmp_path: Path, *accept: str, **options: Any) -> FirstLook:
    build(tmp_path)
    given = AcceptSpec(**dict.fromkeys(accept, True))
    return first_look(tmp_path, Options(**options), accept=given)


def test_a_person_says_which_column_is_the_patient(tmp_path: Path) -> None:
    seen = looked_at(odir, tmp_path, patients=re.compile("ID"))
    assert seen.lines[0] == "layout csv_images: 32 scans of 16 patients"
    assert "patients are those of full_df.csv, column ID" in seen.lines
    assert {row.patient for row in seen.table.rows} == {str(i) for i in range(16)}


def test_an_expression_of_a_person_needs_no_column(tmp_path: Path) -> None:
    seen = looked_at(bus_bra, tmp_path, patients=re.compile(r"bus_(\d+)"))
    assert seen.lines[0] == "layout csv_images: 32 scans of 16 patients"


def test_a_column_of_patients_in_ones_own_table(tmp_path: Path) -> None:
    for i in range(16):
        picture(tmp_path / f"x/{i}.png")
    rows = ([f"x/{i}.png", i // 2 % 2, f"m{i // 2}"] for i in range(16))
    table(tmp_path / "scans.csv", "file,class,MRN", rows)
    with pytest.raises(UserError, match=r"column 'MRN' .* seems to say who"):
        first_look(tmp_path)
    seen = first_look(tmp_path, Options(patients=re.compile("MRN")))
    assert seen.lines[0] == "layout table: 16 scans of 8 patients"


def test_a_scan_is_positive_if_one_of_its_readers_says_so(tmp_path: Path) -> None:
    seen = looked_at(vindr, tmp_path, positive="Cardiomegaly")
    told = {row.files[0]: row.label for row in seen.table.rows}
    assert told == {f"train/{i:032x}.png": "Cardiomegaly" if i % 2 else "other" for i in range(16)}


def test_files_of_several_columns_are_channels_if_a_person_says_so(tmp_path: Path) -> None:
    seen = looked_at(left_right_and_mask, tmp_path, channels=("left_image", "right_image"))
    assert seen.table.rows[0].files == ("img/000Lx.png", "img/000Rx.png")
    assert (
        "channels: left_image, right_image; the study reads left_image, right_image" in seen.lines
    )
    assert not any(line.startswith("left out") for line in seen.lines)
    with pytest.raises(UserError, match=r"no column 'middle' of pairs\.csv names files"):
        first_look(tmp_path, Options(channels=("middle",)))


def test_near_ids_of_pictures_are_taken_if_a_person_says_so(tmp_path: Path) -> None:
    seen = looked_at(listed_in_capitals, tmp_path, "near_ids")
    assert seen.lines[0] == "layout csv_images: 12 scans of 12 patients"


def test_near_ids_of_dicom_folders(tmp_path: Path) -> None:
    seen = looked_at(rsna_miccai, tmp_path, "near_ids", channels=("FLAIR",))
    assert seen.lines[0] == "layout dicom_series: 8 scans of 8 patients"
    assert all("/FLAIR" in row.files[0] for row in seen.table.rows)


def test_ids_of_headers_and_a_column_that_a_person_names(tmp_path: Path) -> None:
    seen = looked_at(cq500, tmp_path, class_column="R1:ICH")
    assert seen.lines[0] == "layout dicom_series: 8 scans of 8 patients"
    assert {row.patient: row.label for row in seen.table.rows} == {
        f"CQ500-CT-{97 + i}": str(i % 2) for i in range(8)
    }
