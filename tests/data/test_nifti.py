"""Sound NIfTI volumes are read exactly, whatever their version, byte order and orientation."""

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medaug.data.files import BadFile, open_regular
from medaug.data.nifti import Limits, read_mask, read_volume
from medaug.data.reader import Cut, read_rows

SHARED = Path(__file__).parents[3] / "shared" / "data"
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
X = np.random.default_rng(0).integers(-500, 500, (5, 6, 7), dtype=np.int16)


def save(path: Path, x=X, affine=LPS, kind=nib.Nifti1Image) -> Path:
    nib.save(kind(x, affine, dtype=x.dtype), path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8", "i8"])
def test_values_are_those_of_nibabel(tmp_path, name, kind, dtype):
    path = save(tmp_path / name, np.abs(X).astype(dtype) % 200, kind=kind)
    volume = read_volume(path)
    assert volume.x_XYZ.dtype == np.float32
    np.testing.assert_array_equal(volume.x_XYZ, nib.load(path).get_fdata())
    np.testing.assert_array_equal(volume.affine, LPS)
    assert volume.spacing_mm == (1, 1, 1)
    assert volume.warnings == ()


def test_scaling_is_applied(tmp_path):
    raw = bytearray(nib.Nifti1Image(X, LPS).to_bytes())
    struct.pack_into("<ff", raw, 112, 0.5, 3)
    (tmp_path / "a.nii").write_bytes(raw)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").x_XYZ, X * 0.5 + 3)


def test_big_endian_has_the_same_values(tmp_path):  # row 39
    header = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(X.astype(">i2"), LPS, header), tmp_path / "big.nii.gz")
    assert gzip.decompress((tmp_path / "big.nii.gz").read_bytes())[:4] == b"\0\0\x01\x5c"
    big, little = (read_volume(p) for p in (tmp_path / "big.nii.gz", save(tmp_path / "l.nii")))
    assert big.x_XYZ.tobytes() == little.x_XYZ.tobytes()


def test_a_pair_is_read_from_its_header(tmp_path):
    nib.save(nib.Nifti1Pair(X, LPS), tmp_path / "a.hdr")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.hdr").x_XYZ, X)


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
def test_analyze_has_nibabels_values_and_no_orientation(tmp_path, endianness, dtype):
    header = nib.Spm99AnalyzeHeader(endianness=endianness)
    header.set_data_dtype(dtype)
    nib.Spm99AnalyzeImage(X.clip(0, 200) * 1.5, None, header).to_filename(tmp_path / "a.img")
    raw = bytearray((tmp_path / "a.hdr").read_bytes())
    raw[252], raw[254] = 2, 1  # orient and originator, where NIfTI has its codes
    raw[283:293] = b"DOE JOHN\0\0"
    (tmp_path / "a.hdr").write_bytes(raw)
    volume = read_volume(tmp_path / "a.hdr")
    reference = nib.Spm99AnalyzeImage.from_filename(tmp_path / "a.img").get_fdata()
    np.testing.assert_allclose(volume.x_XYZ, reference, rtol=1e-6)
    assert not volume.oriented
    assert volume.spacing_lps_mm == (1, 1, 1)
    assert volume.to_lps(volume.x_XYZ) is volume.x_XYZ
    assert volume.free_text == 1
    assert volume.warnings == ("Analyze 7.5: orientation unknown, slices are as stored",)
    with pytest.raises(BadFile, match=r"Analyze 7\.5: orientation unknown.*in the file"):
        read_volume(tmp_path / "a.hdr", limits=Limits(strict=True))


def test_halves_of_a_pair_may_be_in_capitals(tmp_path):
    nib.save(nib.Nifti1Pair(X, LPS), tmp_path / "a.hdr")
    for path in sorted(tmp_path.iterdir()):
        path.rename(path.with_suffix(path.suffix.upper()))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.HDR").x_XYZ, X)


def test_trailing_axes_of_length_one_are_dropped(tmp_path):
    assert read_volume(save(tmp_path / "a.nii", X[..., None])).x_XYZ.shape == X.shape


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SAL", "ILA"])
def test_to_lps_brings_every_orientation_to_one(tmp_path, codes):
    lps = nib.Nifti1Image(X, LPS)
    change = nib.orientations.ornt_transform(
        nib.io_orientation(LPS), nib.orientations.axcodes2ornt(codes)
    )
    nib.save(lps.as_reoriented(change), tmp_path / "a.nii")
    assert "".join(nib.aff2axcodes(nib.load(tmp_path / "a.nii").affine)) == codes
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.to_lps(volume.x_XYZ), X)


def test_unknown_orientation_stays_as_stored_with_a_warning(tmp_path):  # row 28
    image = nib.Nifti1Image(X, None)
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.warnings == ("orientation unknown: neither sform nor qform",)
    np.testing.assert_array_equal(volume.to_lps(volume.x_XYZ), X)
    with pytest.raises(BadFile, match="orientation unknown"):
        read_volume(tmp_path / "a.nii", limits=Limits(strict=True))


def test_contradicting_orientations_warn_and_sform_wins(tmp_path):  # row 27
    image = nib.Nifti1Image(X, LPS)
    image.set_sform(LPS, 1)
    shifted = LPS.copy()
    shifted[0, 3] = 1.5
    image.set_qform(shifted, 1)
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert len(volume.warnings) == 1
    assert "sform and qform disagree" in volume.warnings[0]
    np.testing.assert_array_equal(volume.affine, LPS)
    with pytest.raises(BadFile, match="disagree"):
        read_volume(tmp_path / "a.nii", limits=Limits(strict=True))


def test_free_text_and_extensions_are_counted_and_kept_nowhere(tmp_path):  # row 40
    image = nib.Nifti1Image(X, LPS)
    image.header["descrip"] = b"DOE^JOHN 1950-01-01"
    image.header["aux_file"] = b"ward 7"
    image.header["intent_name"] = b"john"
    image.header["db_name"] = b"DOE"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JOHN"))
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.free_text == 5
    assert "DOE" not in repr(volume)
    np.testing.assert_array_equal(volume.x_XYZ, X)


def test_a_mask_is_read_as_labels(tmp_path):
    image = read_volume(save(tmp_path / "a.nii"))
    labels = (np.abs(X) % 5).astype(np.float32)
    mask = read_mask(save(tmp_path / "m.nii", labels), image)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, labels)


def test_rows_are_the_stored_raster_of_brats_files(tmp_path):
    """240 x 240 stays 240 x 240: no pixel changes between file and store."""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 900, (240, 240, 3), dtype=np.int16)
    labels = np.zeros(x.shape, np.uint8)
    labels[60:90, 100:110, 1] = 4
    image, mask = save(tmp_path / "x.nii.gz", x), save(tmp_path / "m.nii.gz", labels)
    facts, (rows, tumour) = read_rows(image, mask, Cut(240, "all", 1, Limits()))
    np.testing.assert_array_equal(rows[:, 0], x.transpose(2, 1, 0))
    np.testing.assert_array_equal(tumour, (labels > 0).transpose(2, 1, 0))
    assert facts["slice_index"] == [0, 1, 2]
    assert facts["moments"] == [x.size, x.sum(dtype=float), np.square(x.astype(float)).sum()]


def test_policy_and_step_choose_slices(tmp_path):
    x = np.random.default_rng(2).integers(0, 9, (16, 16, 9), dtype=np.int16)
    labels = np.zeros(x.shape, np.uint8)
    labels[2:4, 2:4, 3:7] = 1
    image, mask = save(tmp_path / "x.nii", x), save(tmp_path / "m.nii", labels)

    def index(policy, step, mask=mask):
        return read_rows(image, mask, Cut(16, policy, step, Limits()))[0]["slice_index"]

    assert index("all", 1) == list(range(9))
    assert index("all", 4) == [0, 4, 8]
    assert index("tumour_only", 1) == [3, 4, 5, 6]
    assert index("tumour_only", 2) == [4, 6]
    with pytest.raises(BadFile, match="no slice shows the tumour"):
        index("tumour_only", 8)
    with pytest.raises(BadFile, match="no mask"):
        index("tumour_only", 1, mask=None)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path):  # row 51
    path = save(tmp_path / "a.nii")
    with (
        pytest.raises(BadFile, match="changed during ingest"),
        open_regular(path),
        path.open("ab") as file,
    ):
        file.write(b"more")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real volumes at {SHARED}")
def test_real_volumes_read_as_nibabel_reads_them():
    images = sorted(SHARED.glob("*brats_layout/*/*/*_flair.nii.gz"))[::9]
    assert images
    for path in images:
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.x_XYZ, nib.load(path).get_fdata(dtype=np.float32))
        mask = path.with_name(path.name.replace("_flair", "_seg"))
        labels = read_mask(mask, volume)
        np.testing.assert_array_equal(labels, nib.load(mask).get_fdata())
        np.testing.assert_array_equal(volume.to_lps(volume.x_XYZ), volume.x_XYZ)
