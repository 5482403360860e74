"""From the files of one scan to its rows: what a worker of the sandbox does."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medaug.data.address import FRAMES, array_row, is_two_dimensional, split_address
from medaug.data.dicom_told import is_dicom, series_files, told
from medaug.data.files import BadFile, open_regular
from medaug.data.images import (
    Picture,
    is_grey_by_header,
    is_image,
    read_image_mask,
    read_picture,
)
from medaug.data.names import SLICES, ending_of
from medaug.data.nifti import Limits, Volume, nifti_files, read_mask, read_volume, same_grid
from medaug.data.planes import (
    pixel_mm,
    plane_notes,
    plane_of,
    slices_of_plane,
    squared,
    squared_mask,
)
from medaug.data.resize import fit_images, fit_masks

_VOLUME_SUFFIXES = (".nii", ".nii.gz", ".hdr")


@dataclass(frozen=True)
class Cut:
    """How scans become rows."""

    image_size: int
    policy: Literal["all", "tumour_only"]
    """``all`` keeps every stored slice, blank ones too; ``tumour_only`` those with tumour pixels
    after resizing."""
    step: int
    limits: Limits
    channels: int | None = None
    """Of one picture: 1 is its grey, 3 its colours; None: 3 where it is in colour."""


@dataclass(frozen=True)
class _Pixels:
    """A scan at its own size: each of its files (n, C, H, W), tumour (0 or 1) (n, H, W)."""

    files: tuple[NDArray[np.float32], ...]
    tumour_nHW: NDArray[np.uint8] | None  # noqa: N815
    warnings: tuple[str, ...] = ()
    free_text: int = 0


def read_rows(
    path: Path | tuple[Path, ...], mask: Path | tuple[Path, ...] | None, cut: Cut
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Facts about a volume or image, its slices (n, C, S, S) float32 and, with a mask, theirs
    (n, S, S) uint8, 0 or 1; of several masks, their union.

    Slices of volumes are axial, from inferior to superior. Their rows run to Posterior and their
    columns to the patient's Left, as a radiologist sees them; for BraTS files that is the raster
    as it is stored. Where slices lie in another plane and far apart, these are taken; pixels that
    are not square are resampled (:mod:`medaug.data.planes`). Several files are the channels of one
    scan, in their order. One picture has one channel, or its three colours.

    Raises:
        BadFile: the scan cannot be used.
    """
    paths, masks = _several(path), _several(mask)
    if not masks and cut.policy == "tumour_only":
        raise BadFile("has no mask, which slice_policy tumour_only needs; use slice_policy all")
    read = _read_image if is_two_dimensional(paths[0]) else _read_volume
    pixels = read(paths, masks, cut)
    index = np.arange(0, len(pixels.files[0]), cut.step)
    fitted = [_fit(x_nCHW[index], cut.image_size) for x_nCHW in pixels.files]
    arrays: list[NDArray[Any]] = [fitted[0] if len(fitted) == 1 else np.concatenate(fitted, 1)]
    if pixels.tumour_nHW is not None:
        arrays.append(fit_masks(pixels.tumour_nHW[index], cut.image_size))
        if cut.policy == "tumour_only":
            keep = arrays[1].any(axis=(1, 2))
            index, arrays = index[keep], [array[keep] for array in arrays]
    if not len(index):
        raise BadFile("no slice shows the tumour at this size and step; lower data.slice_step")
    facts = {
        "slice_index": index.tolist(),
        "moments": _moments(arrays[0]),
        "warnings": pixels.warnings,
        "free_text": pixels.free_text,
    }
    return facts, arrays


def _fit(x_nCHW: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """All channels of a file are padded with one value: the darkest colour has no tint."""
    n, channels = x_nCHW.shape[:2]
    flat = fit_images(x_nCHW.reshape(n * channels, *x_nCHW.shape[2:]), size)
    return flat.reshape(n, channels, size, size)


def files_of(path: Path) -> tuple[Path, ...]:
    """Every file that is read of the scan at ``path``."""
    if _is_series(path):
        return series_files(path)
    return nifti_files(split_address(path)[0])


def _is_series(path: Path) -> bool:
    """A DICOM series is the folder of its slices; a folder named like a file is nothing."""
    place, _ = split_address(path)
    return place.is_dir() and not place.is_symlink() and not place.name.endswith(_VOLUME_SUFFIXES)


def _several(path: Path | tuple[Path, ...] | None) -> tuple[Path, ...]:
    if path is None:
        return ()
    return (path,) if isinstance(path, Path) else path


def _read_image(paths: tuple[Path, ...], masks: tuple[Path, ...], cut: Cut) -> _Pixels:
    pictures = [_picture_at(path, cut.limits) for path in paths]
    several = len(pictures) > 1
    shape = pictures[0].raster.shape[:2]
    for number, picture in enumerate(pictures[1:], start=2):
        if picture.raster.shape[:2] != shape:
            raise BadFile(f"sequence {number} has another size than the first; register them")
    tumour = [read_image_mask(mask, shape) for mask in masks]
    files, notes = [], list[str]()
    for picture in pictures:
        n = 1 if several else cut.channels or (3 if picture.has_colour else 1)
        files.append(picture.channels(n)[None])
        notes += picture.notes
        if picture.has_colour and n == 1:
            notes.append("is in colour: read as grey (luma, ITU-R 601)")
        if not picture.has_colour and n == 3:
            notes.append("is grey among images in colour: its grey is all three channels")
    return _Pixels(tuple(files), np.maximum.reduce(tumour)[None] if tumour else None, tuple(notes))


def _picture_at(path: Path, limits: Limits) -> Picture:
    place, part = split_address(path)
    if part is not None:
        return read_array_row(place, *array_row(part))
    if is_image(path) or not (ending_of(path.name) in SLICES or is_dicom(path)):
        try:
            return read_picture(path)
        except BadFile:
            if not is_dicom(path):  # as a picture named .jpg may be PNG
                raise
    from medaug.data.dicom import read_dicom_picture  # loads pydicom, as for volumes

    return read_dicom_picture(path, limits=limits)


def in_colour(path: Path, limits: Limits) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Whether the 2-D image at ``path`` has a pixel that is not grey; in a worker of the sandbox.
    Of most grey images the header tells it.

    Raises:
        BadFile: it cannot be read.
    """
    place, part = split_address(path)
    if part is None and not is_image(path) and is_dicom(path):
        told_by_header = told(path).samples == 1
    else:
        told_by_header = part is None and is_grey_by_header(place)
    return {"colour": not told_by_header and _picture_at(path, limits).has_colour}, []


def read_array_row(archive: Path, name: str, row: int) -> Picture:
    """One image of a NumPy archive, of 8 bits. Nothing is unpickled.

    Raises:
        BadFile: there is no such image of 8 bits.
    """
    images = _array(archive, name, os.stat(archive).st_mtime_ns)
    if not row < len(images):
        raise BadFile("no such image in the archive; import it again")
    pixels = images[row]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise BadFile("an archive's images are (H, W) or (H, W, 3) of 8 bits; convert them")
    return Picture(pixels)


@lru_cache(maxsize=2)
def _array(archive: Path, name: str, _mtime_ns: int) -> NDArray[Any]:
    """An array of an archive, unpacked once for all of its images."""
    with open_regular(archive) as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return np.asarray(arrays[name])
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile):
            raise BadFile("no such array in the archive, or it is damaged; copy it again") from None


def _read_volume(paths: tuple[Path, ...], masks: tuple[Path, ...], cut: Cut) -> _Pixels:
    first, *others = (_volume_at(path, cut.limits) for path in paths)
    for number, volume in enumerate(others, start=2):
        if not same_grid(volume, first):
            raise BadFile(
                f"sequence {number} of {len(paths)} is on another grid than the first; register "
                "and resample them to one"
            )
    plane = plane_of(first.spacing_lps_mm)
    pixel = pixel_mm(first.spacing_lps_mm, plane)
    tumour_nHW = None
    for mask in masks:
        try:
            labels_XYZ = read_mask(mask, first, limits=cut.limits)
        except BadFile as error:
            raise BadFile(f"mask: {error}") from None
        one_nHW = (_slices(first, labels_XYZ, plane) > 0).astype(np.uint8)
        one_nHW = squared_mask(one_nHW, pixel)
        tumour_nHW = one_nHW if tumour_nHW is None else np.maximum(tumour_nHW, one_nHW)
    volumes = (first, *others)
    return _Pixels(
        tuple(squared(_slices(first, volume.x_XYZ, plane), pixel)[:, None] for volume in volumes),
        tumour_nHW,
        (
            *dict.fromkeys(text for volume in volumes for text in volume.warnings),
            *plane_notes(first.spacing_lps_mm),
        ),
        sum(volume.free_text for volume in volumes),
    )


def _volume_at(path: Path, limits: Limits) -> Volume:
    if not (_is_series(path) or split_address(path)[1] == FRAMES):
        return read_volume(path, limits=limits)
    from medaug.data.dicom import read_series  # loads pydicom, which other workers do without

    return read_series(path, limits=limits)


def _slices(volume: Volume, array_XYZ: NDArray[Any], plane: int) -> NDArray[Any]:
    """(X, Y, Z) as stored -> (n, H, W), axial or in the plane of :func:`plane_of`."""
    return slices_of_plane(volume.to_lps(array_XYZ), plane)


def _moments(x_nCHW: NDArray[np.float32]) -> list[Any]:
    """Count, sum and sum of squares, float64; of several channels, such a list for each."""
    each = []
    for x_nHW in x_nCHW.swapaxes(0, 1):
        squares = sum(float(np.square(x, dtype=np.float64).sum()) for x in x_nHW)
        each.append([float(x_nHW.size), float(x_nHW.sum(dtype=np.float64)), squares])
    return each[0] if len(each) == 1 else each
