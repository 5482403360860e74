"""From the files of one scan to its rows: what a worker of the sandbox does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medaug.data.address import is_two_dimensional, split_address
from medaug.data.files import BadFile, series_files
from medaug.data.images import read_image, read_image_mask
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


def read_rows(path: Path, mask: Path | None, cut: Cut) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Facts about a volume or image, its slices (n, S, S) float32 and, with a mask, theirs (uint8,
    0 or 1).

    Slices of volumes are axial, from inferior to superior. Their rows run to Posterior and their
    columns to the patient's Left, as a radiologist sees them; for BraTS files that is the raster
    as it is stored.

    Raises:
        BadFile: the scan cannot be used.
    """
    if mask is None and cut.policy == "tumour_only":
        raise BadFile("has no mask, which slice_policy tumour_only needs; use slice_policy all")
    pixels = (_read_image if is_two_dimensional(path) else _read_volume)(path, mask, cut)
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


def _read_image(path: Path, mask: Path | None, cut: Cut) -> _Pixels:
    x_HW = read_image(path)
    return _Pixels(x_HW[None], read_image_mask(mask, x_HW.shape)[None] if mask else None)


def _read_volume(path: Path, mask: Path | None, cut: Cut) -> _Pixels:
    volume = _volume_at(path, cut.limits)
    tumour_nHW = None
    if mask is not None:
        try:
            labels_XYZ = read_mask(mask, volume, limits=cut.limits)
        except BadFile as error:
            raise BadFile(f"mask: {error}") from None
        tumour_nHW = (_axial(volume, labels_XYZ) > 0).astype(np.uint8)
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
