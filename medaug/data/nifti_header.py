"""The header of a NIfTI file, judged field by field before any voxel is read.

Nothing is repaired: nibabel mends a negative pixel size or an infinite scale factor silently, so
headers are parsed with ``check=False`` and every field on which geometry or intensities depend is
looked at here. Free text and extensions, which may name the patient, are counted and dropped.
Field names and codes: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel import orientations
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medaug.data.files import BadFile, take
from medaug.spec.data import AcceptSpec

_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8",
    256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_RGB = {128, 2304}
_COMPLEX = {32, 1792, 2048}
_FREE_TEXT = ("data_type", "db_name", "descrip", "aux_file", "intent_name")
_ANALYZE_TEXT = ((4, 10), (14, 18), (148, 80), (228, 24), (263, 10), (273, 10), (283, 10))
"""(first byte, length) of data_type, db_name, descrip, aux_file, generated, scannum, patient_id."""
_MAX_PREAMBLE = 1 << 24
"""Nobody needs more bytes than this between header and voxels."""


@dataclass(frozen=True)
class Limits:
    """What a volume may look like; anything else is refused from its header."""

    accept: AcceptSpec = field(default_factory=AcceptSpec)
    max_ratio: float = 1100.0
    """Promised to stored bytes of a gzip file; deflate itself ends at 1032."""
    max_disagreement_mm: float = 1.0
    """How far apart sform and qform may put the same voxel."""
    strict: bool = False
    """Refuse also what is only doubtful: unknown or contradictory orientation."""


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Header:
    """What is kept of a header; every field has been found sound."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    """Of the stored voxels, with their byte order."""
    offset: int
    """Of the first voxel, in bytes."""
    before: int
    """Bytes of a 4-D file's other volumes that precede the one to read."""
    after: int
    """Bytes of those that follow it."""
    pair: bool
    """The voxels are in an .img file of their own."""
    analyze: bool
    slope: float
    inter: float
    spacing_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    oriented: bool
    warnings: tuple[str, ...]
    free_text: int

    @property
    def voxel_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def extent(self) -> tuple[tuple[int, ...], tuple[float, float, float]]:
        """(voxels, their distance in mm) along Left, Posterior and Superior; as they are stored
        where the orientation is unknown."""
        affine = self.affine if self.oriented else None
        return along_lps(self.shape, self.spacing_mm, affine)


def along_lps(
    shape: Sequence[int], spacing_mm: Sequence[float], affine: NDArray[np.float64] | None
) -> tuple[tuple[int, ...], tuple[float, float, float]]:
    """Voxels, and their distance in mm, along Left, Posterior and Superior; as they are stored
    without an ``affine``."""
    order = [0, 1, 2]
    if affine is not None:
        world = orientations.io_orientation(affine)[:, 0]
        order = [int(np.flatnonzero(world == axis)[0]) for axis in range(3)]
    x_mm, y_mm, z_mm = (float(spacing_mm[axis]) for axis in order)
    return tuple(shape[axis] for axis in order), (x_mm, y_mm, z_mm)


def read_header(stream: io.BufferedIOBase, limits: Limits) -> Header:
    """Read a NIfTI-1 or NIfTI-2 header, extensions included; the stream then stands at the voxels.

    A header of 348 bytes without NIfTI's mark is Analyze 7.5 (Mayo Clinic, ANALYZE 7.5 File
    Format): its voxels have SPM's scale factor where it says one, and no orientation.

    Raises:
        BadFile: with the field that is wrong and its value.
    """
    raw = _take_all(stream, 348)
    size, order = _size_and_order(raw)
    raw += _take_all(stream, size - 348)
    kind = nib.Nifti1Header if size == 348 else nib.Nifti2Header
    header = kind(raw, endianness=order, check=False)
    first = take(stream, 1)
    analyze = size == 348 and not first and _is_analyze(header)
    pair = analyze or _is_pair(header)
    dim = _dim(header, limits)
    dtype = _dtype(header).newbyteorder(order)
    shape, before, after = _volume(dim, limits)
    spacing_mm = _spacing(header, limits)
    affine, oriented, warnings = _affine(header, shape, limits, analyze=analyze)
    slope, inter = _scaling(header, analyze=analyze)
    offset = _offset(header, 0 if pair else size + 4)
    preamble = first + (
        take(stream, _MAX_PREAMBLE) if pair else _take_all(stream, offset - size - len(first))
    )
    free_text = _texts(header, raw, analyze=analyze) + _extensions(preamble, order)
    return Header(
        shape=shape,
        dtype=dtype,
        offset=offset,
        before=before * dtype.itemsize,
        after=after * dtype.itemsize,
        pair=pair,
        analyze=analyze,
        slope=slope,
        inter=inter,
        spacing_mm=spacing_mm,
        affine=affine,
        oriented=oriented,
        warnings=warnings,
        free_text=free_text,
    )


def _take_all(stream: io.BufferedIOBase, n: int) -> bytes:
    data = take(stream, n)
    if len(data) < n:
        raise BadFile(f"header shorter than {n} bytes (got {len(data)}); copy the file again")
    return data


def _size_and_order(raw: bytes) -> tuple[int, Literal["<", ">"]]:
    """The byte order follows from sizeof_hdr. (nibabel goes by dim[0], so that dim[0] = 9 turns
    into a complaint about the data type of a byte-swapped header.)"""
    for size in (348, 540):
        if raw[:4] == size.to_bytes(4, "little"):
            return size, "<"
        if raw[:4] == size.to_bytes(4, "big"):
            return size, ">"
    raise BadFile("not a NIfTI header (sizeof_hdr is neither 348 nor 540); convert the file")


def _is_analyze(header: Any) -> bool:
    return header["magic"].tobytes()[:3] not in (b"n+1", b"n+2", b"ni1", b"ni2")


def _texts(header: Any, raw: bytes, *, analyze: bool) -> int:
    """How many fields of free text say something."""
    if analyze:
        texts = [raw[at : at + length] for at, length in _ANALYZE_TEXT]
    else:
        names = (name for name in _FREE_TEXT if name in header.keys())  # noqa: SIM118
        texts = [header[name].tobytes() for name in names]
    return sum(bool(text.strip(b"\0 ")) for text in texts)


def _is_pair(header: Any) -> bool:
    magic = header["magic"].tobytes()
    if magic in (b"n+1\0", b"n+2\0"):
        return False
    if magic in (b"ni1\0", b"ni2\0"):
        return True
    shown = "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in magic)
    raise BadFile(f"magic '{shown}', want n+1, n+2, ni1 or ni2; convert the file to NIfTI")


def _dim(header: Any, limits: Limits) -> list[int]:
    """Voxels along each axis, trailing axes of one voxel beyond the third left out."""
    dim = [int(size) for size in header["dim"]]
    if not 1 <= dim[0] <= 7:
        raise BadFile(f"dim[0]={dim[0]} not in 1..7; export the series again")
    shape = dim[1 : dim[0] + 1]
    for axis, size in enumerate(shape, start=1):
        if size < 0:
            raise BadFile(f"dim[{axis}] = {size}; export the series again")
        if size == 0:
            raise BadFile(f"empty volume (dim[{axis}] = 0); export the series again")
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    text = " x ".join(map(str, shape))
    if len(shape) < 3 or 1 in shape[:3]:
        raise BadFile(f"needs 3D, this is {text}; give the whole series as one volume")
    if math.prod(shape) > limits.accept.max_voxels:
        raise BadFile(
            f"header promises {text} voxels ({4 * math.prod(shape):.3g} bytes), more than the "
            f"limit of {4 * limits.accept.max_voxels:.3g} bytes; crop or resample the volume, or "
            "raise data.accept.max_voxels"
        )
    return shape


def _volume(dim: list[int], limits: Limits) -> tuple[tuple[int, int, int], int, int]:
    """(shape of the volume to read, voxels of the file before it, voxels after it)."""
    shape, voxels, n = (dim[0], dim[1], dim[2]), math.prod(dim[:3]), math.prod(dim[3:])
    if n == 1:
        return shape, 0, 0
    wanted, text = limits.accept.volume, " x ".join(map(str, dim))
    if wanted is None:
        raise BadFile(
            f"{len(dim)}-dimensional ({text}); save one 3-D volume per file, or choose one with "
            "data.accept.volume"
        )
    if wanted >= n:
        raise BadFile(f"{text} has {n} volumes, data.accept.volume is {wanted}; choose a lower one")
    return shape, wanted * voxels, (n - 1 - wanted) * voxels


def _dtype(header: Any) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in _DTYPES:
        return np.dtype(_DTYPES[code])
    if code in _RGB:
        raise BadFile("RGB voxels; save the grey values")
    if code in _COMPLEX:
        raise BadFile("complex voxels; save the magnitude")
    raise BadFile(f"datatype {code} is not supported; save integers or floats of up to 64 bits")


def _spacing(header: Any, limits: Limits) -> tuple[float, float, float]:
    low, high = limits.accept.zoom_range_mm
    x, y, z = (float(size) for size in header["pixdim"][1:4])
    for axis, size in enumerate((x, y, z), start=1):
        if not low <= size <= high:  # NaN compares false
            raise BadFile(
                f"pixdim[{axis}] = {size:g} mm outside {low:g}..{high:g}; correct it, or set "
                "data.accept.zoom_range_mm"
            )
    return x, y, z


def _affine(
    header: Any, shape: tuple[int, int, int], limits: Limits, *, analyze: bool
) -> tuple[NDArray[np.float64], bool, tuple[str, ...]]:
    """(affine, whether the file gives one, warnings); sform wins over qform as in nibabel."""
    forms = {}
    if not analyze and header["sform_code"] > 0:
        forms["sform"] = np.asarray(header.get_sform(), np.float64)
    if not analyze and header["qform_code"] > 0:
        forms["qform"] = _qform(header)
    for name, affine in forms.items():
        if not np.isfinite(affine).all():
            raise BadFile(f"affine not finite ({name}); set the orientation again")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if abs(np.linalg.det(affine[:3, :3])) <= 1e-6 * lengths.prod():
            raise BadFile(f"singular {name} (det 0); set the orientation again")
    doubts = [] if not analyze else ["Analyze 7.5: orientation unknown, slices are as stored"]
    if not forms and not analyze:
        doubts.append("orientation unknown: neither sform nor qform")
    if len(forms) == 2 and limits.accept.orientation:
        forms = {limits.accept.orientation: forms[limits.accept.orientation]}
    if len(forms) == 2:
        gap = _gap_mm(forms["sform"], forms["qform"], shape)
        if gap > limits.max_disagreement_mm:
            doubts.append(f"sform and qform disagree by {gap:.3g} mm: sform is used")
    if doubts and limits.strict:
        choice = " with data.accept.orientation" if forms else " in the file"
        raise BadFile(f"{doubts[0]}; set one orientation{choice}")
    affine = next(iter(forms.values()), np.asarray(header.get_base_affine(), np.float64))
    return affine, bool(forms), tuple(doubts)


def _qform(header: Any) -> NDArray[np.float64]:
    qfac = float(header["pixdim"][0])
    if qfac == 0:  # the standard reads 0 as 1
        header["pixdim"][0] = 1
    try:
        return np.asarray(header.get_qform(), np.float64)
    except (ValueError, HeaderDataError):
        raise BadFile("qform is not a rotation; set the orientation again") from None


def _gap_mm(a: NDArray[np.float64], b: NDArray[np.float64], shape: tuple[int, int, int]) -> float:
    """Largest distance between the places that two affines give to a corner of the volume."""
    corners = [[*corner, 1] for corner in itertools.product(*((0, size - 1) for size in shape))]
    return float(np.linalg.norm(((a - b) @ np.array(corners, np.float64).T)[:3], axis=0).max())


def _scaling(header: Any, *, analyze: bool) -> tuple[float, float]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if analyze:  # funused2, which SPM 99 leaves empty
        inter = 0.0
    for name, value in (("scl_slope", slope), ("scl_inter", inter)):
        if not math.isfinite(value):
            raise BadFile(f"{name} = {value}; write the intensities without scaling")
    return (slope, inter) if slope != 0 else (1.0, 0.0)  # 0: the standard says unscaled


def _offset(header: Any, lowest: int) -> int:
    offset = float(header["vox_offset"])
    if offset == 0:
        return lowest
    if not (lowest <= offset <= lowest + _MAX_PREAMBLE and offset.is_integer()):
        raise BadFile(f"vox_offset = {offset:g}, want {lowest} or a little more; export it again")
    return int(offset)


def _extensions(preamble: bytes, order: str) -> int:
    """How many extension blocks follow the header; their content is not looked at."""
    count, at = 0, 4
    if not preamble or preamble[0] == 0:
        return 0
    while len(preamble) - at >= 8:
        size = int.from_bytes(preamble[at : at + 4], "little" if order == "<" else "big")
        if not 8 <= size <= len(preamble) - at:
            raise BadFile(f"extension block of {size} bytes runs into the voxels; strip extensions")
        count, at = count + 1, at + size
    return count
