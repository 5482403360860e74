"""What headers say by their bytes, held against pydicom."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SegmentationStorage,
    generate_uid,
)

from medaug.data.dicom_told import Told, is_dicom, series_files, told
from tests.data.dicom_series import nested, voxels, write_series

SYNTAXES = (ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_bytes_say_what_pydicom_says(tmp_path: Path, syntax: str) -> None:
    def change(dataset: Dataset, number: int) -> None:
        dataset.ReferencedImageSequence = nested(3).ReferencedImageSequence
        other = Dataset()
        other.SeriesInstanceUID, other.PatientID = generate_uid(), "SOMEBODY"
        dataset.ReferencedSeriesSequence = [other]
        dataset.ImageType = ["DERIVED", "SECONDARY", "MPR"]

    write_series(tmp_path / "s", voxels(), syntax=syntax, change=change, PatientID="P1")
    for path in sorted((tmp_path / "s").iterdir()):
        said, dataset = told(path), dcmread(path)
        assert said.series == dataset.SeriesInstanceUID
        assert (said.modality, said.sop_class) == (dataset.Modality, dataset.SOPClassUID)
        assert said.image_type == ("DERIVED", "SECONDARY", "MPR")
        assert (said.rows, said.columns, said.samples, said.frames) == (9, 8, 1, 1)
        assert said.position == tuple(dataset.ImagePositionPatient)
        assert said.orientation == tuple(dataset.ImageOrientationPatient)
        assert said.spacing_mm == tuple(dataset.PixelSpacing)


def one(folder: Path, **elements: object) -> Told:
    write_series(folder, voxels(shape=(8, 9, 1)), **elements)
    return told(next(folder.iterdir()))


def test_names_and_ids_are_digests_alone(tmp_path: Path) -> None:
    first = one(tmp_path / "a", PatientID="Zyxq02", PatientName="Doe^Jane")
    second = one(tmp_path / "b", PatientID=" zyxq02", PatientName="DOE^JANE")
    third = one(tmp_path / "c", PatientID="Zyxq03", PatientName="Doe^Joan")
    assert all((first.patient, first.name))
    assert (first.patient, first.name) == (second.patient, second.name)
    assert {first.patient, first.name}.isdisjoint((third.patient, third.name))
    for part in ("zyxq", "doe", "jane"):
        assert part not in repr(first).casefold()


@pytest.mark.parametrize(
    "nobody", ["", "  ", "N/A", "ANONYMOUS", "anon 12", "0000", "XXXXX", "unknown"]
)
def test_ids_that_name_nobody_are_none(tmp_path: Path, nobody: str) -> None:
    assert one(tmp_path / "a", PatientID=nobody).patient == ""


@pytest.mark.parametrize("length", [0, 10, 131, 132, 140, 300])
def test_what_breaks_off_says_nothing_that_it_does_not(tmp_path: Path, length: int) -> None:
    write_series(tmp_path / "s", voxels(shape=(8, 9, 1)))
    path = next((tmp_path / "s").iterdir())
    whole = told(path)
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(path.read_bytes()[:length])
    assert told(broken) in (Told(), Told(sop_class=whole.sop_class))


def test_what_is_no_dicom_says_nothing(tmp_path: Path) -> None:
    for content in (b"\x08\x00" * 200, b"\x02\x00\xff\xff" * 100, b"PNG", b"a,b\n1,2\n" * 40):
        path = tmp_path / "x"
        path.write_bytes(content)
        assert told(path) == Told()
        assert not is_dicom(path)


def test_slices_are_images_of_one_kind(tmp_path: Path) -> None:
    """An object of the same series, and a localiser, are none of its slices."""

    def change(dataset: Dataset, number: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER" if number == 1 else "AXIAL"]
        if number == 2:
            dataset.SOPClassUID = SegmentationStorage

    write_series(tmp_path / "s", voxels(), change=change)
    assert len(series_files(tmp_path / "s")) == 2
    write_series(tmp_path / "t", voxels(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert len(series_files(tmp_path / "t")) == 4
