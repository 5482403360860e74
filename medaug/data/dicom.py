"""DICOM from files that nobody vouches for: series, a file per slice or one for all; pictures.

:mod:`medaug.data.dicom_header` judges each file's structure first. Of its elements only
:data:`TAGS` are read, so no name, date or note is ever in memory as text; DICOMDIR files are not
looked at, for they may point anywhere (CVE-2026-32711). Memory and time are bounded by whoever
calls (:mod:`medaug.data.sandbox`).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, config, dcmread, uid
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from medaug.data.address import FRAMES, split_address
from medaug.data.dicom_geometry import Placed, place
from medaug.data.dicom_header import check_structure
from medaug.data.dicom_told import series_files, told
from medaug.data.files import BadFile, open_regular
from medaug.data.images import Picture
from medaug.data.nifti import Volume
from medaug.data.nifti_header import DEFAULT_LIMITS, Limits

TAGS = (
    *("SOPClassUID", "SeriesInstanceUID", "Modality", "BodyPartExamined"),
    *("BurnedInAnnotation", "RecognizableVisualFeatures"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration"),
    *("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PixelData"),
)
"""Every element that is read; none of them describes a person."""
FRAME_TAGS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
"""Beside them of files with several frames: where each lies, and what its numbers mean."""

# Many scanners write numbers longer than the standard's 16 characters; they are checked here.
config.settings.reading_validation_mode = config.IGNORE

MAX_SLICES = 4096
_RAW = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
_LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000)
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_HEAD = frozenset({"HEAD", "BRAIN", "SKULL", "FACE", "HEADNECK", "ORBIT", "EYE"})
_CLEANED = "or set data.accept.cleaned_pixels once you have looked"


@dataclass(frozen=True)
class _Slice:
    """One file, its pixels still as they are stored."""

    dataset: Dataset
    syntax: UID
    placed: Placed


def read_series(folder: Path, *, limits: Limits = DEFAULT_LIMITS) -> Volume:
    """Read the one series in ``folder`` as float32, RescaleSlope and RescaleIntercept applied; a
    folder with one file of several frames, or the address of these, is read as
    :func:`medaug.data.dicom_frames.read_frames` does.

    Slices are ordered by ImagePositionPatient along the normal of ImageOrientationPatient (PS3.3
    C.7.6.2), X runs along the rows and Y along the columns.

    Raises:
        BadFile: a file is not what :data:`TAGS` and ``limits`` want, or the slices are not one
            regular stack; names a file by its place in the order of names, from 1.
    """
    from medaug.data.dicom_frames import read_frames

    place_, part_ = split_address(folder)
    if part_ == FRAMES:
        return read_frames(place_, limits)
    if not stat.S_ISDIR(os.lstat(place_).st_mode):
        raise BadFile("not a folder; put the series' .dcm files into a folder of their own")
    paths = series_files(folder)
    if len(paths) == 1 and told(paths[0]).frames > 1:
        return read_frames(paths[0], limits)
    if not 2 <= len(paths) <= MAX_SLICES:
        raise BadFile(f"holds {len(paths)} .dcm files, want 2 to {MAX_SLICES} of one series")
    slices = []
    for number, path in enumerate(paths, start=1):
        try:
            slices.append(_read_slice(path, len(paths), limits))
        except BadFile as error:
            raise BadFile(f"file {number} of {len(paths)}: {error}") from None
    _check_one_series([part.dataset for part in slices])
    order, spacing_mm, affine = place([part.placed for part in slices], limits)
    x_XYZ = np.empty((*slices[0].placed.shape, len(slices)), np.float32, order="F")
    for z, number in enumerate(order):
        try:
            part = slices[number]
            x_XYZ[:, :, z] = grey_values(decoded(part.dataset, part.syntax), part.dataset).T
        except BadFile as error:
            raise BadFile(f"file {number + 1} of {len(paths)}: {error}") from None
    return volume_of(x_XYZ, spacing_mm, affine, slices[0].dataset, slices[0].syntax)


def volume_of(
    x_XYZ: NDArray[np.float32],
    spacing_mm: tuple[float, float, float],
    affine: NDArray[np.float64],
    about: Dataset,
    syntax: UID,
) -> Volume:
    """Raises BadFile where every voxel is equal."""
    low, high = float(x_XYZ.min()), float(x_XYZ.max())
    if low == high:
        raise BadFile(f"every voxel is {low:g} (zero variance); export the series again")
    return Volume(x_XYZ, spacing_mm, affine, True, _warnings(about, syntax), 0)


def read_dicom_picture(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Read one DICOM file of one frame as a picture: grey values in their own units, or RGB.

    Raises:
        BadFile: as :func:`read_series`, or it has several frames.
    """
    dataset, syntax = read_file(path, limits)
    if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
        raise BadFile(
            f"holds {frames} frames; list it as FILE#{FRAMES} to read them as a volume, or export "
            "the one that is meant"
        )
    check_raster(dataset, syntax, 1, limits, colour=True)
    stored = decoded(dataset, syntax)
    raster = stored if stored.ndim == 3 else grey_values(stored, dataset)
    if raster.min() == raster.max():
        raise BadFile("every pixel is equal (zero variance); export it again")
    return Picture(raster, _warnings(dataset, syntax))


def _read_slice(path: Path, n_slices: int, limits: Limits) -> _Slice:
    dataset, syntax = read_file(path, limits)
    check_raster(dataset, syntax, n_slices, limits)
    return _Slice(dataset, syntax, Placed.of(dataset))


def read_file(path: Path, limits: Limits, more: tuple[str, ...] = ()) -> tuple[Dataset, UID]:
    """The elements of :data:`TAGS` (and ``more``) of a file, and its transfer syntax.

    Raises:
        BadFile: its structure is unsound, or its pixels may show a name or a face.
    """
    with open_regular(path) as file:
        syntax = check_structure(file, os.fstat(file.fileno()).st_size)
        dataset = _elements(file, (*TAGS, *more))
    if "TransferSyntaxUID" not in dataset.file_meta:  # without a preamble nothing says it
        dataset.file_meta.TransferSyntaxUID = syntax
    _check_person(dataset, limits)
    return dataset, syntax


def _elements(file: BinaryIO, names: tuple[str, ...]) -> Dataset:
    """The elements called ``names``."""
    dataset = dcmread(file, specific_tags=list(names), force=True)
    try:
        for name in names:
            dataset.get(name)  # a value is parsed on first use
    except (ValueError, TypeError, OverflowError):  # whose text would repeat the value
        raise BadFile("an element's value is not of its type; export the series again") from None
    return dataset


def _check_person(dataset: Dataset, limits: Limits) -> None:
    """Refuse pixels that may show a name or a face."""
    if limits.accept.cleaned_pixels:
        return
    if dataset.get("BurnedInAnnotation") == "YES":
        raise BadFile(f"BurnedInAnnotation is YES: pixels may name the patient; clean, {_CLEANED}")
    if str(dataset.get("SOPClassUID", "")).startswith(uid.SecondaryCaptureImageStorage):
        raise BadFile(f"a secondary capture: pixels may name the patient; clean, {_CLEANED}")
    head = dataset.get("BodyPartExamined") in _HEAD and dataset.get("Modality") in ("CT", "MR")
    if head and dataset.get("RecognizableVisualFeatures") != "NO":
        raise BadFile(
            f"a head without RecognizableVisualFeatures NO: its surface shows a face; deface, "
            f"{_CLEANED}"
        )


def check_raster(
    dataset: Dataset, syntax: UID, n_slices: int, limits: Limits, *, colour: bool = False
) -> None:
    """Judge the size and kind of the pixels of one of ``n_slices`` files before any is decoded."""
    rows, columns = _whole(dataset, "Rows"), _whole(dataset, "Columns")
    frames = int(dataset.get("NumberOfFrames") or 1)
    samples, kind = _whole(dataset, "SamplesPerPixel"), dataset.get("PhotometricInterpretation")
    if (total := rows * columns * frames * n_slices * samples) > limits.accept.max_voxels:
        raise BadFile(
            f"{rows} x {columns} x {frames} in {n_slices} slices ({4 * total:.3g} bytes), more "
            f"than the limit of {4 * limits.accept.max_voxels:.3g} bytes; crop it, or raise "
            "data.accept.max_voxels"
        )
    if frames > 1 and n_slices > 1:
        raise BadFile(f"holds {frames} frames; keep such a file in a folder of its own")
    allocated, stored = _whole(dataset, "BitsAllocated"), _whole(dataset, "BitsStored")
    if not (colour and samples == 3 and kind in _COLOURS and allocated == 8):
        if kind == "PALETTE COLOR":
            raise BadFile("has a colour palette, which is not read; export it as RGB or grey")
        if samples != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
            raise BadFile("is not MONOCHROME with one sample per pixel; save grey values that way")
        if allocated not in (8, 16, 32) or not stored <= allocated:
            raise BadFile(f"{stored} of {allocated} bits per pixel; save 8, 16 or 32")
    if syntax in _RAW:
        want, got = rows * columns * frames * samples * allocated // 8, len(dataset.PixelData)
        if kind == "YBR_FULL_422":  # two of its pixels share their colour
            want = want * 2 // 3
        if got - want not in (0, want % 2):  # values are padded to an even length
            raise BadFile(f"{got} bytes of pixel data, {rows} x {columns} take {want}; copy again")
    elif not get_decoder(syntax).is_available:
        raise BadFile(f"no decoder for {syntax.name} ({syntax}); pip install 'medaug[dicom]'")


def _whole(dataset: Dataset, name: str) -> int:
    value = dataset.get(name)
    if not isinstance(value, int) or value < 1:
        raise BadFile(f"{name} is missing or not a positive whole number; export it again")
    return value


def _check_one_series(datasets: list[Dataset]) -> None:
    series = {str(dataset.get("SeriesInstanceUID", "")) for dataset in datasets}
    if len(series) > 1:
        raise BadFile(f"holds {len(series)} series; keep one series per folder")


def decoded(dataset: Dataset, syntax: UID, frame: int | None = None) -> NDArray[Any]:
    """(Rows, Columns) as they are stored, or (Rows, Columns, 3) RGB; of one ``frame`` from 0."""
    try:
        pixels, _ = get_decoder(syntax).as_array(dataset, index=frame)
    except (ValueError, RuntimeError, AttributeError, NotImplementedError):
        raise BadFile(f"damaged {syntax.name} pixel data; copy the file again") from None
    return pixels


def grey_values(
    stored_HW: NDArray[Any], dataset: Dataset, rescale: Dataset | None = None
) -> NDArray[np.float32]:
    """(Rows, Columns): slope * stored + intercept, computed in float64. ``rescale`` has the slope
    and intercept, where it is not ``dataset``."""
    bits = int(dataset.BitsStored)
    signed = dataset.PixelRepresentation == 1
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if stored_HW.min() < low or stored_HW.max() > high:
        raise BadFile(f"pixels use more than {bits} bits, an overlay may be in them; remove it")
    slope, values_HW = 1.0, stored_HW.astype(np.float64)
    if dataset.get("ModalityLUTSequence"):
        values_HW = _looked_up(stored_HW, dataset)
    else:  # an empty element is as good as none (PS3.3 C.11.1)
        slope, intercept = (
            default if (said := (rescale or dataset).get(name)) in (None, "") else float(said)
            for name, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
        )
        with np.errstate(over="ignore", invalid="ignore"):
            values_HW = values_HW * slope + intercept
    outside = _padding(stored_HW, dataset)
    if outside.any() and not outside.all():
        values_HW[outside] = values_HW[~outside].min()
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        values_HW = -values_HW  # its lowest value is white: turned, so that bright is bright
    with np.errstate(over="ignore", invalid="ignore"):
        x_HW = values_HW.astype(np.float32)
    if slope == 0 or not np.isfinite(x_HW).all():
        raise BadFile(f"RescaleSlope = {slope:g} leaves no finite grey values; export it again")
    return x_HW


def _padding(stored_HW: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_]:
    """Where the scanner has put its filler: PixelPaddingValue, or all up to
    PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2). It is no tissue, and may lie far below all others.
    """
    value, limit = (dataset.get(f"PixelPadding{end}") for end in ("Value", "RangeLimit"))
    if not isinstance(value, int):
        return np.zeros(stored_HW.shape, bool)
    low, high = sorted((value, limit if isinstance(limit, int) else value))
    return (stored_HW >= low) & (stored_HW <= high)


def _looked_up(stored_HW: NDArray[np.integer], dataset: Dataset) -> NDArray[np.float64]:
    """Through the Modality LUT (PS3.3 C.11.1): what lies outside of it takes its first or last."""
    try:
        about = dataset.ModalityLUTSequence[0]
        n, first, bits = (int(value) for value in about.LUTDescriptor)
        data = about.LUTData
        raw = np.frombuffer(data, f"<u{1 if bits <= 8 else 2}") if isinstance(data, bytes) else data
        table = np.asarray(raw, np.float64)
    except (AttributeError, ValueError, TypeError, IndexError):
        raise BadFile("its Modality LUT cannot be read; export the series again") from None
    n = n or 1 << 16
    if bits not in range(8, 17) or len(table) < n:
        raise BadFile("its Modality LUT is not as long as it says; export the series again")
    if dataset.PixelRepresentation == 1 and first >= 1 << 15:
        first -= 1 << 16
    return table[np.clip(stored_HW.astype(np.int64) - first, 0, n - 1)]


def _warnings(first: Dataset, syntax: UID) -> tuple[str, ...]:
    warnings = []
    if syntax in _LOSSY:
        warnings.append(f"lossy compression ({syntax.name}): grey values are approximate")
    if isinstance(first.get("PixelPaddingValue"), int):
        warnings.append("padding beyond the field of view is given the lowest value within it")
    if first.get("Modality") in ("CT", "MR") and not first.get("BodyPartExamined"):
        warnings.append("no BodyPartExamined: if these are heads, see that they are defaced")
    return tuple(warnings)
