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

from medaug.data.address import array_row, is_two_dimensional, split_address
from medaug.data.files import BadFile, open_regular, series_files
from medaug.data.images import read_image_mask, read_picture
from medaug.data.nifti import Limits, Volume, nifti_files, read_mask, read_volume
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


@dataclass(frozen=True)
class _Pixels:
    """A scan at its own size: x and tumour (0 or 1) are (n, H, W)."""

    x_nHW: NDArray[np.float32]  # noqa: N815
    tumour_nHW: NDArray[np.uint8] | None  # noqa: N815
    warnings: tuple[str, ...] = ()
    free_text: int = 0


def read_rows(
    path: Path | tuple[Path, ...], mask: Path | tuple[Path, ...] | None, cut: Cut
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Facts about a volume or image, its slices (n, S, S) float32 and, with a mask, theirs (uint8,
    0 or 1); of several masks, their union.

    Slices of volumes are axial, from inferior to superior. Their rows run to Posterior and their
    columns to the patient's Left, as a radiologist sees them; for BraTS files that is the raster
    as it is stored.

    Raises:
        BadFile: the scan cannot be used.
    """
    paths, masks = _several(path), _several(mask)
    if not masks and cut.policy == "tumour_only":
        raise BadFile("has no mask, which slice_policy tumour_only needs; use slice_policy all")
    if len(paths) > 1:
        raise BadFile(
            f"lists {len(paths)} sequences and a study reads one; keep one file in each line"
        )
    read = _read_image if is_two_dimensional(paths[0]) else _read_volume
    pixels = read(paths[0], masks, cut)
    index = np.arange(0, len(pixels.x_nHW), cut.step)
    arrays: list[NDArray[Any]] = [fit_images(pixels.x_nHW[index], cut.image_size)]
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


def _read_image(path: Path, masks: tuple[Path, ...], cut: Cut) -> _Pixels:
    place, part = split_address(path)
    if part is not None:
        return _Pixels(read_array_row(place, *array_row(part))[None], None)
    picture = read_picture(path)
    x_HW = picture.channels(1)[0]
    notes = picture.notes
    if picture.has_colour:
        notes = (*notes, "is in colour: read as grey (luma, ITU-R 601)")
    tumour = [read_image_mask(mask, x_HW.shape) for mask in masks]
    return _Pixels(x_HW[None], np.maximum.reduce(tumour)[None] if tumour else None, notes)


def read_array_row(archive: Path, name: str, row: int) -> NDArray[np.float32]:
    """One image of a NumPy archive, (H, W) in [0, 1]; colour by its luma. Nothing is unpickled.

    Raises:
        BadFile: there is no such image of 8 bits.
    """
    images = _array(archive, name, os.stat(archive).st_mtime_ns)
    if not row < len(images):
        raise BadFile("no such image in the archive; import it again")
    pixels = images[row]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise BadFile("an archive's images are (H, W) or (H, W, 3) of 8 bits; convert them")
    if pixels.ndim == 3:
        pixels = pixels @ np.array([0.299, 0.587, 0.114])
    return pixels.astype(np.float32) / np.float32(255)


@lru_cache(maxsize=2)
def _array(archive: Path, name: str, _mtime_ns: int) -> NDArray[Any]:
    """An array of an archive, unpacked once for all of its images."""
    with open_regular(archive) as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return np.asarray(arrays[name])
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile):
            raise BadFile("no such array in the archive, or it is damaged; copy it again") from None


def _read_volume(path: Path, masks: tuple[Path, ...], cut: Cut) -> _Pixels:
    volume = _volume_at(path, cut.limits)
    tumour_nHW = None
    for mask in masks:
        try:
            labels_XYZ = read_mask(mask, volume, limits=cut.limits)
        except BadFile as error:
            raise BadFile(f"mask: {error}") from None
        one_nHW = (_axial(volume, labels_XYZ) > 0).astype(np.uint8)
        tumour_nHW = one_nHW if tumour_nHW is None else np.maximum(tumour_nHW, one_nHW)
    x_nHW = _axial(volume, volume.x_XYZ)
    return _Pixels(x_nHW, tumour_nHW, volume.warnings, volume.free_text)


def _volume_at(path: Path, limits: Limits) -> Volume:
    if not _is_series(path):
        return read_volume(path, limits=limits)
    from medaug.data.dicom import read_series  # loads pydicom, which other workers do without

    return read_series(path, limits=limits)


def _axial(volume: Volume, array_XYZ: NDArray[Any]) -> NDArray[Any]:
    """(X, Y, Z) as stored -> (Z, Y, X) with X to Left, Y to Posterior, Z to Superior."""
    return volume.to_lps(array_XYZ).transpose(2, 1, 0)


def _moments(x_nHW: NDArray[np.float32]) -> list[float]:
    """Count, sum and sum of squares, float64."""
    squares = sum(float(np.square(x, dtype=np.float64).sum()) for x in x_nHW)
    return [float(x_nHW.size), float(x_nHW.sum(dtype=np.float64)), squares]
