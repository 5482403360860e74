"""NIfTI volumes from files that nobody vouches for.

:mod:`medaug.data.nifti_header` judges the header before a single voxel is touched. Memory and time
are bounded by whoever calls (:mod:`medaug.data.sandbox`).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from medaug.data.files import BadFile, decompressed, fill, skip, take
from medaug.data.nifti_header import DEFAULT_LIMITS, Header, Limits, read_header

MASK_LABELS = frozenset({0, 1, 2, 3, 4})
"""Label values of a BraTS mask; the tumour is every value but 0."""


@dataclass(frozen=True)
class Volume:
    """One 3-D image in memory."""

    x_XYZ: NDArray[np.float32]  # noqa: N815
    """Intensities in the file's voxel order, scl_slope and scl_inter applied."""
    spacing_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    """(4, 4), voxel indices to millimetres in RAS+ world coordinates."""
    oriented: bool
    """False where the file has neither sform nor qform: then the affine is only a guess."""
    warnings: tuple[str, ...]
    free_text: int
    """Number of non-empty free-text fields and extensions, all dropped."""

    @property
    def spacing_lps_mm(self) -> tuple[float, ...]:
        """Along Left, Posterior and Superior; as stored, where the orientation is unknown."""
        if not self.oriented:
            return self.spacing_mm
        world = orientations.io_orientation(self.affine)[:, 0]
        return tuple(self.spacing_mm[int(np.flatnonzero(world == axis)[0])] for axis in range(3))

    def to_lps(self, array_XYZ: NDArray[Any]) -> NDArray[Any]:
        """``array_XYZ`` with its axes permuted and flipped so that they run to Left, Posterior and
        Superior as nearly as they can. Nothing is resampled, and BraTS files come out unchanged;
        a volume of unknown orientation stays as it is stored."""
        if not self.oriented:
            return array_XYZ
        stored = orientations.io_orientation(self.affine)
        wanted = orientations.axcodes2ornt("LPS")
        change = orientations.ornt_transform(stored, wanted)
        return orientations.apply_orientation(array_XYZ, change)


def read_volume(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> Volume:
    """Read a ``.nii``, ``.nii.gz`` or ``.hdr``/``.img`` volume, of either NIfTI version and either
    byte order, as float32.

    Memory: the stored voxels plus four bytes each.

    Raises:
        BadFile: anything about the file is not as the standard or ``limits`` want it.
    """
    volume = _read(path, limits)
    low, high = float(volume.x_XYZ.min()), float(volume.x_XYZ.max())
    if low == high:
        raise BadFile(f"every voxel is {low:g} (zero variance); export the series again")
    return volume


def read_mask(path: Path, image: Volume, *, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Read the label map of ``image``: uint8, same shape, same affine, values in MASK_LABELS.

    With ``accept.resample_mask`` a map on another grid is brought to the image's.

    Raises:
        BadFile: as :func:`read_volume`, or the mask is not one of ``image``, or holds no tumour or
            nothing else.
    """
    mask = _read(path, limits)
    mask_XYZ = mask.x_XYZ
    if not same_grid(mask, image):
        if not limits.accept.resample_mask:
            different = (
                f"is {_by(mask_XYZ.shape)}, its image {_by(image.x_XYZ.shape)}"
                if mask_XYZ.shape != image.x_XYZ.shape
                else "has another affine than its image"
            )
            raise BadFile(
                f"{different}; bring it to the image's grid, or set data.accept.resample_mask"
            )
        mask_XYZ = _on_grid_of(image, mask)
    with np.errstate(invalid="ignore"):
        labels_XYZ = mask_XYZ.astype(np.uint8)
    found = set(np.flatnonzero(np.bincount(labels_XYZ.ravel(order="K"))).tolist())
    if not (labels_XYZ == mask_XYZ).all():
        raise BadFile(f"values are not labels 0..255; want {sorted(MASK_LABELS)}")
    if not found <= MASK_LABELS:
        shown = ", ".join(map(str, sorted(found)[:8]))
        raise BadFile(f"has labels {{{shown}}}; want a subset of {sorted(MASK_LABELS)}")
    if found == {0}:
        raise BadFile("is empty; take the patient out or draw the tumour")
    if 0 not in found:
        raise BadFile("covers every voxel; export the label map again")
    return labels_XYZ


def same_grid(mask: Volume, image: Volume) -> bool:
    """Whether two volumes have one shape and one affine, to a thousandth of a millimetre."""
    same_shape = mask.x_XYZ.shape == image.x_XYZ.shape
    return same_shape and bool(np.abs(mask.affine - image.affine).max() <= 1e-3)


def _on_grid_of(image: Volume, mask: Volume) -> NDArray[np.float32]:
    """The value of the mask's nearest voxel at each voxel of ``image``, 0 outside of the mask."""
    from scipy.ndimage import affine_transform  # half a second that hardly any file needs

    to_mask = np.linalg.inv(mask.affine) @ image.affine
    return affine_transform(
        mask.x_XYZ,
        to_mask[:3, :3],
        to_mask[:3, 3],
        image.x_XYZ.shape,
        order=0,
        mode="grid-constant",  # a corner that rounding puts outside by 1e-12 is still inside
    )


def nifti_files(path: Path) -> tuple[Path, ...]:
    """Every file that :func:`read_volume` reads: also the ``.img`` half of a ``.hdr``."""
    if path.suffix.lower() != ".hdr":
        return (path,)
    halves = [path.with_suffix(ending) for ending in (".img", ".IMG", ".Img")]
    return path, next((half for half in halves if half.exists()), halves[0])


def _read(path: Path, limits: Limits) -> Volume:
    with decompressed(path) as (stream, file_bytes):
        header = read_header(stream, limits)
        if not header.pair:
            raw = _read_voxels(stream, header, path, file_bytes, limits)
    if header.pair:
        if len(nifti_files(path)) < 2:
            raise BadFile("is half of a .hdr/.img pair; give the .hdr, with the .img beside it")
        image_path = nifti_files(path)[1]
        if not image_path.exists():
            raise BadFile("its .img half is missing; put it beside the .hdr")
        with decompressed(image_path) as (stream, file_bytes):
            take(stream, header.offset)
            raw = _read_voxels(stream, header, image_path, file_bytes, limits)
    x_XYZ, warnings = _to_float32(raw, header, limits.accept.nan)
    return Volume(
        x_XYZ=x_XYZ,
        spacing_mm=header.spacing_mm,
        affine=header.affine,
        oriented=header.oriented,
        warnings=header.warnings + warnings,
        free_text=header.free_text,
    )


def _read_voxels(
    stream: io.BufferedIOBase, header: Header, path: Path, file_bytes: int, limits: Limits
) -> NDArray[Any]:
    """The stored voxels (X, Y, Z), after the promise of the header is weighed against the file."""
    promised = header.offset + header.before + header.voxel_bytes + header.after
    if path.suffix.lower() == ".gz" and promised > limits.max_ratio * file_bytes:
        raise BadFile(
            f"header promises {promised} bytes, the file has {file_bytes} compressed: more than "
            f"{limits.max_ratio:g} to 1; export the series again"
        )
    if path.suffix.lower() != ".gz" and promised > file_bytes:
        raise BadFile(f"truncated (got {file_bytes} of {promised} bytes); copy the file again")
    got = header.offset + skip(stream, header.before)
    raw = np.empty(header.voxel_bytes, np.uint8)
    got += fill(stream, memoryview(raw.data))
    got += skip(stream, header.after)
    if got < promised:
        raise BadFile(f"truncated (got {got} of {promised} bytes); copy the file again")
    if take(stream, 1):  # reading on to the end also checks the CRC
        raise BadFile(f"has data after the {promised} bytes of its header; export it again")
    return raw.view(header.dtype).reshape(header.shape, order="F")


def _to_float32(
    raw_XYZ: NDArray[Any], header: Header, nan: str | None
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """slope * raw + inter, computed in float64 slice by slice, all finite in float32; warnings."""
    warnings: tuple[str, ...] = ()
    if raw_XYZ.dtype.kind == "f" and not (finite := np.isfinite(raw_XYZ)).all():
        bad = raw_XYZ.size - np.count_nonzero(finite)
        if nan is None or not finite.any():
            raise BadFile(
                f"{bad} voxels are NaN or infinite; mend them, or set data.accept.nan to zero or "
                "mean"
            )
        mended = raw_XYZ[finite].mean(dtype=np.float64) if nan == "mean" else 0.0
        raw_XYZ = np.where(finite, raw_XYZ, raw_XYZ.dtype.type(mended))
        warnings = (f"NaN or infinite voxels replaced by {nan}",)
    if raw_XYZ.dtype.kind in "iu" and raw_XYZ.dtype.itemsize == 8:
        extreme = max(int(raw_XYZ.max()), -int(raw_XYZ.min()))
        if extreme > 2**53:
            raise BadFile("integers beyond 2^53 are not representable; store the volume as float32")
    x_XYZ = np.empty(raw_XYZ.shape, np.float32, order="F")
    with np.errstate(over="ignore"):
        for z in range(raw_XYZ.shape[2]):
            x_XYZ[:, :, z] = raw_XYZ[:, :, z].astype(np.float64) * header.slope + header.inter
    if bad := x_XYZ.size - np.count_nonzero(np.isfinite(x_XYZ)):
        raise BadFile(
            f"{bad} voxels are not representable in float32 (scl_slope = {header.slope:g}); store "
            "the volume as float32"
        )
    return x_XYZ, warnings


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
