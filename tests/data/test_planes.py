"""Slices in the plane in which they were acquired, and pixels made square."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from medaug.data.layouts import read_cohort
from medaug.data.nifti import Limits
from medaug.data.planes import is_square, plane_of, slices_of_plane, squared, squared_mask
from medaug.data.reader import Cut, read_rows
from medaug.data.slices import ingest_signature
from medaug.data.survey import cut_by_planes, survey
from medaug.spec import DataSpec, SplitSpec
from tests.data.dicom_series import write_series
from tests.data.folders_of_pixels import GRADES, volumes

CUT = Cut(32, "all", 1, Limits())


def write(path: Path, x_LPS: np.ndarray, mm: tuple[float, float, float], axes: str = "LPS") -> Path:
    image = nib.Nifti1Image(x_LPS, np.diag([-mm[0], -mm[1], mm[2], 1.0]))
    change = orientations.ornt_transform(
        orientations.axcodes2ornt("LPS"), orientations.axcodes2ornt(axes)
    )
    nib.save(image.as_reoriented(change), path)
    return path


@pytest.mark.parametrize(
    ("spacing_mm", "axis"),
    [
        ((1, 1, 1), 2),
        ((1, 1, 9), 2),
        ((1.4, 1, 1), 2),
        ((6, 1, 1), 0),
        ((1, 6, 1), 1),
        ((3, 1, 3), 2),
        ((3, 1, 2), 0),
        ((2, 1, 5), 2),
    ],
)
def test_the_plane_of_the_farthest_slices(spacing_mm, axis):
    assert plane_of(spacing_mm) == axis


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PSL", "AIR", "SLP"])
def test_sagittal_slices_are_as_a_radiologist_sees_them(tmp_path, axes):
    x = np.random.default_rng(1).integers(1, 900, (5, 32, 32)).astype(np.int16)
    facts, (rows,) = read_rows(write(tmp_path / "a.nii.gz", x, (6, 1, 1), axes), None, CUT)
    assert rows.shape == (5, 1, 32, 32)
    for n, (row, column) in product(range(5), [(0, 0), (3, 7), (31, 30)]):
        assert rows[n, 0, row, column] == x[n, column, 31 - row]  # the head up, the nose left
    assert (
        "slices are sagittal and far apart: taken as they are, not axial ones" in facts["warnings"]
    )


def test_coronal_slices(tmp_path):
    x = np.random.default_rng(1).integers(1, 900, (32, 4, 32)).astype(np.int16)
    _, (rows,) = read_rows(write(tmp_path / "a.nii.gz", x, (1, 6, 1)), None, CUT)
    np.testing.assert_array_equal(rows[:, 0], x.transpose(1, 2, 0)[:, ::-1])


def test_a_sagittal_series_of_dicom(tmp_path):
    x = np.random.default_rng(1).integers(1, 900, (32, 32, 5)).astype(np.int16)
    sagittal = (0, 1, 0, 0, 0, -1)  # rows to Posterior, columns to Inferior
    write_series(tmp_path / "s", x, spacing_mm=(1, 1, 6), orientation=sagittal)
    _, (rows,) = read_rows(tmp_path / "s", None, CUT)
    assert rows.shape == (5, 1, 32, 32)


@pytest.mark.parametrize("mm", [(2, 1, 4), (1, 2, 4), (1, 1.2, 4)])
def test_a_circle_stays_one(tmp_path, mm):
    """A cylinder of 10 mm radius; area and width of its slices tell its shape."""
    n = (round(40 / mm[0]), round(40 / mm[1]), 3)
    at = [(np.arange(k) + 0.5) * d - 20 for k, d in zip(n[:2], mm[:2], strict=True)]
    inside = at[0][:, None] ** 2 + at[1][None] ** 2 <= 100
    x = np.repeat(inside[..., None], 3, -1)
    image = write(tmp_path / "a.nii.gz", x.astype(np.int16) * 100, mm)
    mask = write(tmp_path / "m.nii.gz", x.astype(np.uint8), mm)
    facts, (rows, masks) = read_rows(image, mask, Cut(40, "all", 1, Limits()))
    assert "pixels are not square: resampled to their smaller side" in facts["warnings"]
    for picture in (rows[1, 0] > 50, masks[1] > 0):
        height, width = picture.any(axis=1).sum(), picture.any(axis=0).sum()
        assert abs(int(height) - int(width)) <= 2
        assert picture.sum() == pytest.approx(np.pi * 100, rel=0.06)


def test_resampling_is_linear_and_labels_stay_labels():
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[None, :, None], (2, 8, 5)).copy()
    fine = squared(ramp, (2.0, 1.0))
    assert fine.shape == (2, 16, 5)
    np.testing.assert_allclose(np.diff(fine[0, 1:-1, 0]), 0.5, atol=1e-6)
    mask = (ramp > 3).astype(np.uint8)
    np.testing.assert_array_equal(squared_mask(mask, (2.0, 1.0)), np.repeat(mask, 2, axis=1))
    assert squared(ramp, (1.04, 1.0)) is ramp
    assert is_square((1, 1, 7))
    assert not is_square((1, 1.1, 7))


def test_axial_cuts_are_what_they_were():
    x = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(slices_of_plane(x, 2), x.transpose(2, 1, 0))


def test_stores_of_square_pixels_keep_their_names(tmp_path):
    names = []
    for k, spacing in enumerate([(1, 1, 8), (6, 1, 1)]):
        root = tmp_path / str(k)
        volumes((16, 16, 16), spacing)(root)
        data = DataSpec(layout="brats", root=root, channel="t1", classes=GRADES, image_size=16)
        cohort = read_cohort(data)
        names.append(ingest_signature(cohort, data, SplitSpec(folds=2)))
        assert cut_by_planes(cohort.scans, data) == bool(k)
        assert sum(survey(cohort, data).slices.values()) == 12 * 16
    assert len(set(names)) == 2
