"""DICOM files that are scans of their own: stacks of frames, and pictures grey or in colour."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from medaug.data.colour import surveyed
from medaug.data.dicom import read_dicom_picture, read_series
from medaug.data.dicom_told import told
from medaug.data.files import BadFile
from medaug.data.importers import Options, Tree, account, recognise
from medaug.data.layouts import read_cohort
from medaug.data.nifti import Limits
from medaug.data.reader import Cut, read_rows
from medaug.data.slices import ingest
from medaug.spec import DataSpec, SplitSpec
from medaug.spec.data import AcceptSpec
from medaug.store import Store
from tests.data.dicom_series import voxels, write_frames, write_series

X = voxels() // 2 * 2
"""Even numbers, which a slope of two leaves whole."""
CUT = Cut(16, "all", 1, Limits())


def picture(path: Path, seed: int = 0, change=lambda d, n: None, **elements: object) -> np.ndarray:
    """One file of one frame without a place in space, as radiography has it."""

    def flat(dataset: Dataset, index: int) -> None:
        for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            delattr(dataset, name)
        change(dataset, index)

    x = voxels(seed)[:, :, :1]
    folder = path.parent / f"{path.name}.d"
    write_series(folder, x, change=flat, Modality="CR", BodyPartExamined="CHEST", **elements)
    os.replace(next(folder.glob("*.dcm")), path)
    folder.rmdir()
    return x[:, :, 0].T


def test_frames_are_the_series_that_they_could_have_been(tmp_path: Path) -> None:
    write_series(tmp_path / "s", X)
    (tmp_path / "f").mkdir()
    write_frames(tmp_path / "f/all.dcm", X)
    assert told(tmp_path / "f/all.dcm").frames == X.shape[2]
    wanted = read_series(tmp_path / "s")
    for address in ("f", "f/all.dcm#frames"):
        found = read_series(tmp_path / address)
        np.testing.assert_array_equal(found.x_XYZ, wanted.x_XYZ)
        np.testing.assert_allclose(found.affine, wanted.affine)
        assert found.spacing_mm == wanted.spacing_mm
        facts, (x,) = read_rows(tmp_path / address, None, CUT)
        np.testing.assert_array_equal(x, read_rows(tmp_path / "s", None, CUT)[1][0])
        assert len(facts["slice_index"]) == X.shape[2]
    with pytest.raises(BadFile, match=r"holds 4 frames; list it as FILE#frames"):
        read_rows(tmp_path / "f/all.dcm", None, CUT)


def frames(path: Path, change) -> Path:
    path.mkdir()
    write_frames(path / "x.dcm", X, change=change)
    return path


def no_places(dataset: Dataset, _: int) -> None:
    del dataset.PerFrameFunctionalGroupsSequence


def one_place(dataset: Dataset, _: int) -> None:
    """Two echoes of two slices."""
    each = dataset.PerFrameFunctionalGroupsSequence
    for first in (0, 2):
        each[first + 1].PlanePositionSequence = each[first].PlanePositionSequence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_places, "holds 4 frames without a place in space, as a cine does"),
        (one_place, "two slices in one place"),
        (lambda d, _: d.PerFrameFunctionalGroupsSequence.pop(), "holds 4 frames and places 3"),
        (lambda d, _: setattr(d, "NumberOfFrames", 3), r"bytes of pixel data, 9 x 8 take 432"),
        (lambda d, _: setattr(d, "NumberOfFrames", 2**30), r"data\.accept\.max_voxels"),
        (
            lambda d, _: delattr(d.SharedFunctionalGroupsSequence[0], "PixelMeasuresSequence"),
            "PixelSpacing is missing",
        ),
    ],
)
def test_frames_that_are_no_stack(tmp_path: Path, change, message: str) -> None:
    started = time.perf_counter()
    with pytest.raises(BadFile, match=message):
        read_series(frames(tmp_path / "f", change))
    assert time.perf_counter() - started < 5


def test_a_picture_is_its_grey_values(tmp_path: Path) -> None:
    x = picture(tmp_path / "a.dcm", RescaleSlope=2.0, RescaleIntercept=-10.0)
    read = read_dicom_picture(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read.raster, (2.0 * x - 10).astype(np.float32))
    assert told(tmp_path / "a.dcm").samples == 1
    os.replace(tmp_path / "a.dcm", tmp_path / "IM0001")
    _, (rows,) = read_rows(tmp_path / "IM0001", None, Cut(9, "all", 1, Limits()))
    assert rows.shape == (1, 1, 9, 9)
    assert set(2.0 * x.ravel() - 10) == {*rows[0, 0].ravel()}, "8 columns beside one of padding"
    white = picture(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(
        read_dicom_picture(tmp_path / "b.dcm").raster, -white.astype("f4")
    )


def test_padding_is_no_tissue(tmp_path: Path) -> None:
    def fill(dataset: Dataset, _: int) -> None:
        pixels = np.frombuffer(dataset.PixelData, np.uint16).copy()
        pixels[:8] = 4000
        dataset.PixelData = pixels.tobytes()
        dataset.PixelPaddingValue = 4000

    x = picture(tmp_path / "a.dcm", change=fill)
    read = read_dicom_picture(tmp_path / "a.dcm")
    assert (read.raster[0] == read.raster[1:].min()).all()
    np.testing.assert_array_equal(read.raster[1:], x[1:])
    assert any("padding" in note for note in read.notes)


@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_colour_stays_colour(tmp_path: Path, syntax: str | None) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (9, 8, 3), dtype=np.uint8)

    def coloured(dataset: Dataset, _: int) -> None:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PlanarConfiguration = 7, 0
        dataset.PixelData = rgb.tobytes()
        if syntax is not None:
            dataset.compress(syntax)

    picture(tmp_path / "a.dcm", change=coloured)
    assert told(tmp_path / "a.dcm").samples == 3
    np.testing.assert_array_equal(read_dicom_picture(tmp_path / "a.dcm").raster, rgb)
    _, (rows,) = read_rows(tmp_path / "a.dcm", None, Cut(9, "all", 1, Limits()))
    assert rows.shape == (1, 3, 9, 9)
    folder = tmp_path / "f"
    folder.mkdir()
    os.replace(tmp_path / "a.dcm", folder / "x.dcm")
    write_series(folder, X)
    with pytest.raises(BadFile, match="is not MONOCHROME"):
        read_series(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, _: setattr(d, "PixelData", d.PixelData[:50]), "50 bytes of pixel data"),
        (lambda d, _: setattr(d, "Rows", 60000), "bytes of pixel data, 60000 x 8 take"),
        (lambda d, _: setattr(d, "Columns", 65535) or setattr(d, "Rows", 65535), "max_voxels"),
        (lambda d, _: setattr(d, "BurnedInAnnotation", "YES"), "BurnedInAnnotation is YES"),
        (lambda d, _: setattr(d, "PhotometricInterpretation", "PALETTE COLOR"), "a colour palette"),
        (lambda d, _: setattr(d, "PixelData", bytes(144)), "every pixel is equal"),
    ],
)
def test_bad_pictures(tmp_path: Path, change, message: str) -> None:
    picture(tmp_path / "a.dcm", change=change)
    with pytest.raises(BadFile, match=message):
        read_dicom_picture(tmp_path / "a.dcm")


@pytest.mark.usefixtures("reader_processes")
def test_folders_of_pictures_and_of_frames(tmp_path: Path) -> None:
    """Views of a patient are pictures of one person; a file of frames is a volume."""
    for i in range(8):
        folder = tmp_path / "in" / ("ill", "well")[i % 2] / f"D{i}"
        folder.mkdir(parents=True)
        picture(folder / "CC.dcm", i)
        picture(folder / "MLO", 100 + i)
    tree = Tree.of(tmp_path / "in")
    importer, _ = recognise(tree)
    found = account(tree, importer.rows(tree, Options()))
    assert (importer.name, len(found.rows), len({r.patient for r in found.rows})) == (
        *("dicom_series", 16, 8),
    )
    assert not found.left_out
    data = DataSpec(
        *(), layout="dicom_series", root=tmp_path / "in", classes=("ill", "well"), image_size=16
    )
    cohort = read_cohort(data)
    assert surveyed(cohort, data, 1).channels == 1
    store = Store.open(ingest(data, SplitSpec(folds=2), tmp_path / "s", workers=1).path)
    assert (len(store), len(set(store.patients))) == (16, 8)
    for i in range(8):
        folder = tmp_path / "frames" / ("ill", "well")[i % 2] / f"D{i}"
        folder.mkdir(parents=True)
        write_frames(folder / "x.dcm", voxels(i) // 2 * 2)
    data = data.model_copy(update={"root": tmp_path / "frames"})
    store = Store.open(ingest(data, SplitSpec(folds=2), tmp_path / "t", workers=1).path)
    assert len(store) == 8 * X.shape[2]


def test_a_picture_with_a_face_needs_a_look(tmp_path: Path) -> None:
    write_series(tmp_path / "s", X[:, :, :1], RecognizableVisualFeatures="")
    path = next((tmp_path / "s").glob("*.dcm"))
    with pytest.raises(BadFile, match="its surface shows a face"):
        read_dicom_picture(path)
    looked = Limits(accept=AcceptSpec(cleaned_pixels=True))
    assert read_dicom_picture(path, limits=looked).raster.shape == (9, 8)
    assert dcmread(path).Rows == 9
