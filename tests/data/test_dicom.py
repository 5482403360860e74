"""DICOM series are the volume they were, whatever the order, orientation and packing of slices."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from medaug.data.dicom import TAGS, read_series
from medaug.data.files import BadFile
from medaug.data.layouts import read_cohort
from medaug.data.nifti_header import Limits
from medaug.data.reader import Cut, read_rows
from medaug.data.slices import ingest
from medaug.spec import DataSpec, SplitSpec
from medaug.spec.data import AcceptSpec
from medaug.store import Store
from tests.data.dicom_series import AXIAL, voxels, write_series

X = voxels()


def test_values_spacing_and_place(tmp_path):
    write_series(tmp_path / "s", X, slope=0.5, intercept=-1024)
    volume = read_series(tmp_path / "s")
    assert volume.x_XYZ.dtype == np.float32
    np.testing.assert_array_equal(volume.x_XYZ, X * np.float32(0.5) - 1024)
    assert volume.spacing_mm == (0.5, 0.75, 2.0)
    # LPS of the file -> RAS of NIfTI
    wanted = [[-0.5, 0, 0, -10], [0, -0.75, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, wanted, atol=1e-12)
    assert volume.oriented
    np.testing.assert_array_equal(volume.to_lps(volume.x_XYZ), volume.x_XYZ)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_plain_syntaxes(tmp_path, syntax):
    write_series(tmp_path / "s", X, syntax=syntax)
    np.testing.assert_array_equal(read_series(tmp_path / "s").x_XYZ, X)


def test_compressed_slices_are_the_same(tmp_path):
    write_series(tmp_path / "s", X, syntax=RLELossless)
    np.testing.assert_array_equal(read_series(tmp_path / "s").x_XYZ, X)


def test_signed_pixels(tmp_path):
    signed = X.astype(np.int16) - 2048
    write_series(tmp_path / "s", signed, PixelRepresentation=1)
    np.testing.assert_array_equal(read_series(tmp_path / "s").x_XYZ, signed)


def oblique(degrees: float) -> tuple[float, ...]:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (1.0, 0.0, 0.0, 0.0, float(c), float(s))


ORIENTATIONS = {
    "axial": AXIAL,
    "axial from above": (1.0, 0, 0, 0, -1.0, 0),
    "coronal": (1.0, 0, 0, 0, 0, -1.0),
    "sagittal": (0, 1.0, 0, 0, 0, -1.0),
    "oblique": oblique(20),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_affine_is_that_of_every_slice(tmp_path, name):
    """Each voxel lies where its own slice says, and nibabel agrees on what is left and up."""
    orientation = ORIENTATIONS[name]
    write_series(tmp_path / "s", X, orientation=orientation)
    volume = read_series(tmp_path / "s")
    i, j, k = 3, 5, 2
    normal = np.cross(orientation[:3], orientation[3:])
    lps = np.array([10.0, -20.0, 30.0]) + i * 0.5 * np.array(orientation[:3])
    lps += j * 0.75 * np.array(orientation[3:]) + k * 2.0 * normal
    ras = volume.affine @ [i, j, k, 1]
    np.testing.assert_allclose(ras[:3], lps * [-1, -1, 1], atol=1e-5)
    turned = nib.as_closest_canonical(nib.Nifti1Image(volume.x_XYZ, volume.affine))
    np.testing.assert_array_equal(
        volume.to_lps(volume.x_XYZ), turned.get_fdata()[::-1, ::-1].astype(np.float32)
    )


def test_a_series_is_the_rows_of_the_same_nifti_volume(tmp_path):
    write_series(tmp_path / "s", X)
    volume = read_series(tmp_path / "s")
    nib.save(nib.Nifti1Image(X.astype(np.float32), volume.affine), tmp_path / "v.nii.gz")
    mask = np.zeros(X.shape, np.uint8)
    mask[2:5, 3:6, 1:3] = 1
    nib.save(nib.Nifti1Image(mask, volume.affine), tmp_path / "m.nii.gz")
    cut = Cut(16, "all", 1, Limits())
    facts, one = read_rows(tmp_path / "s", tmp_path / "m.nii.gz", cut)
    other_facts, other = read_rows(tmp_path / "v.nii.gz", tmp_path / "m.nii.gz", cut)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert facts == other_facts


def write_cohort(root: Path) -> None:
    for label, name in enumerate(("LGG", "HGG")):
        for patient in range(4):
            write_series(root / name / f"{name}_{patient}", voxels(10 * label + patient))


def test_the_layout(tmp_path):
    write_cohort(tmp_path / "in")
    (tmp_path / "in/LGG/LGG_0/DICOMDIR").write_bytes(b"../../../etc/passwd")
    (tmp_path / "in/LGG/empty").mkdir()
    (tmp_path / "in/LGG/bare").mkdir()
    (tmp_path / "in/LGG/bare/1.dcm").write_bytes(b"not DICOM")
    spec = DataSpec(
        layout="dicom_series", root=tmp_path / "in", image_size=16, accept=AcceptSpec(lost=0.5)
    )
    cohort = read_cohort(spec)
    assert [(s.patient, s.label) for s in cohort.scans][-1] == ("bare", 0)
    report = ingest(spec, SplitSpec(folds=2), tmp_path / "s", cohort=cohort)
    assert report.patients == {"LGG": 4, "HGG": 4}
    assert [reason for _, reason in report.rejects] == [
        "not DICOM (no DICM after 128 bytes); convert it or take it away"
    ]
    store = Store.open(report.path)
    assert len(store) == 8 * X.shape[2]
    before = report.path.name
    assert ingest(spec, SplitSpec(folds=2), tmp_path / before) == report


def test_only_listed_elements_are_read(tmp_path, monkeypatch):
    from medaug.data import dicom

    seen = []
    parse = dicom._elements
    monkeypatch.setattr(dicom, "_elements", lambda *a: seen.append(parse(*a)) or seen[-1])
    write_series(tmp_path / "s", X, PatientName="Doe^John", InstitutionName="St. Elsewhere")
    read_series(tmp_path / "s")
    assert {element.keyword for dataset in seen for element in dataset} <= set(TAGS)
    assert all("PatientName" not in dataset for dataset in seen)


def test_head_scans_pass_once_somebody_has_looked(tmp_path):
    write_series(tmp_path / "s", X, RecognizableVisualFeatures="YES")
    with pytest.raises(BadFile, match=r"file 1 of 4: a head .* data\.accept\.cleaned_pixels"):
        read_series(tmp_path / "s")
    accept = DataSpec().accept.model_copy(update={"cleaned_pixels": True})
    np.testing.assert_array_equal(
        read_series(tmp_path / "s", limits=Limits(accept=accept)).x_XYZ, X
    )


def test_doubts_are_warnings(tmp_path):
    write_series(tmp_path / "s", X, BodyPartExamined="")
    assert read_series(tmp_path / "s").warnings == (
        "no BodyPartExamined: if these are heads, see that they are defaced",
    )


def test_an_empty_rescale_is_none_and_a_lut_is_looked_up(tmp_path):
    def empty(dataset, index):
        dataset.RescaleSlope, dataset.RescaleIntercept = None, None

    write_series(tmp_path / "plain", X)
    write_series(tmp_path / "empty", X, change=empty)
    plain = read_series(tmp_path / "plain").x_XYZ
    np.testing.assert_array_equal(read_series(tmp_path / "empty").x_XYZ, plain)

    def with_lut(dataset, index):
        lut = Dataset()
        lut.LUTDescriptor = [4096, 0, 16]
        lut.LUTData = (np.arange(4096, dtype="<u2") * 3 + 7).tobytes()
        lut["LUTData"].VR = "OW"
        lut.ModalityLUTType = "US"
        dataset.ModalityLUTSequence = [lut]

    write_series(tmp_path / "lut", X, change=with_lut)
    np.testing.assert_array_equal(read_series(tmp_path / "lut").x_XYZ, plain * 3 + 7)


def test_monochrome1_is_turned_so_that_bright_is_bright(tmp_path):
    write_series(tmp_path / "two", X)
    write_series(tmp_path / "one", X, PhotometricInterpretation="MONOCHROME1")
    two, one = read_series(tmp_path / "two").x_XYZ, read_series(tmp_path / "one").x_XYZ
    np.testing.assert_array_equal(one, -two)
