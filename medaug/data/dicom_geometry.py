"""From the places of single DICOM slices to one regular stack (PS3.3 C.7.6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medaug.data.dicom_told import Told, series_files, told
from medaug.data.files import BadFile
from medaug.data.nifti_header import Limits, along_lps

if TYPE_CHECKING:
    from pydicom import Dataset

_SAME_MM = 1e-3
_REGULAR = 0.05
"""How much the distance of two neighbours may differ from the usual one, as a share of it."""
_SHEAR = 0.02
"""How far a slice may lie beside the normal through the first, per millimetre along it."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Placed:
    """Where one slice lies in the patient, millimetres in LPS+ coordinates."""

    shape: tuple[int, int]
    """(Columns, Rows)"""
    origin: _Floats
    """(3,), the centre of the first pixel."""
    along_row: _Floats
    """(3,), unit vector from one column to the next."""
    along_column: _Floats
    """(3,), unit vector from one row to the next."""
    pixel_mm: tuple[float, float]
    """Distance of columns and of rows."""

    @classmethod
    def of(cls, dataset: Dataset) -> Placed:
        """Raises BadFile when an element that places the slice is missing or no number."""
        return cls._of(
            (int(dataset.Columns), int(dataset.Rows)),
            _floats(dataset, "ImageOrientationPatient", 6),
            _floats(dataset, "PixelSpacing", 2),
            _floats(dataset, "ImagePositionPatient", 3),
        )

    @classmethod
    def told(cls, header: Told) -> Placed:
        """By the bytes of a header. Raises BadFile as :meth:`of`."""
        values = (header.orientation, header.spacing_mm, header.position)
        if tuple(map(len, values)) != (6, 2, 3) or not (header.columns and header.rows):
            raise BadFile("its header does not say where it lies; export the series again")
        return cls._of((header.columns, header.rows), *map(np.array, values))

    @classmethod
    def _of(
        cls, shape: tuple[int, int], directions: _Floats, pixel_mm: _Floats, origin: _Floats
    ) -> Placed:
        row_mm, column_mm = pixel_mm.tolist()
        along_row, along_column = directions[:3], directions[3:]
        products = directions.reshape(2, 3) @ directions.reshape(2, 3).T
        if np.abs(products - np.eye(2)).max() > 1e-3:
            raise BadFile(
                "ImageOrientationPatient is no pair of orthogonal unit vectors; export it again"
            )
        return cls(
            shape=shape,
            origin=origin,
            along_row=along_row,
            along_column=along_column,
            pixel_mm=(column_mm, row_mm),
        )


def extent_of_series(
    path: Path, limits: Limits
) -> tuple[tuple[int, ...], tuple[float, float, float]] | None:
    """(voxels, their distance in mm) along Left, Posterior and Superior of a folder of slices, by
    their headers; None where they are no stack, which its reader says."""
    files = series_files(path)
    if len(files) < 2:
        return None
    try:
        slices = [Placed.told(told(file)) for file in files]
        _, spacing_mm, affine = place(slices, limits)
    except BadFile:
        return None
    return along_lps((*slices[0].shape, len(files)), spacing_mm, affine)


def place(
    slices: Sequence[Placed], limits: Limits, what: str = "file"
) -> tuple[list[int], tuple[float, float, float], _Floats]:
    """(order of the slices along their normal, spacing in mm of X, Y and Z, affine (4, 4) from
    voxel indices to RAS+ millimetres). ``what`` is a slice's own word in messages.

    Raises:
        BadFile: the slices differ in shape, spacing or orientation, one is missing or there twice,
            or they are sheared (gantry tilt).
    """
    first = slices[0]
    for number, other in enumerate(slices, start=1):
        if differs := _difference(first, other):
            raise BadFile(f"{what} {number} has another {differs} than {what} 1; keep one series")
    normal = np.cross(first.along_row, first.along_column)
    origins = np.array([part.origin for part in slices])
    order = np.argsort(origins @ normal, kind="stable").tolist()
    steps = np.diff(origins[order], axis=0)
    along = steps @ normal
    usual_mm = float(np.median(along))
    for index, gap_mm in enumerate(along.tolist()):
        where = f"between slices {index} and {index + 1} (of 0..{len(along)})"
        if gap_mm <= _SAME_MM:
            raise BadFile(f"two slices in one place {where}; keep one of them")
        if abs(gap_mm - usual_mm) > _REGULAR * usual_mm:
            raise BadFile(
                f"gap of {gap_mm:.4g} mm {where}, usually {usual_mm:.4g}; export the missing slice"
            )
    if np.abs(steps - along[:, None] * normal).max() > _SHEAR * usual_mm:
        raise BadFile("the stack is sheared (gantry tilt); resample it to a regular grid")
    spacing_mm = (*first.pixel_mm, usual_mm)
    low, high = limits.accept.zoom_range_mm
    if not all(low <= size <= high for size in spacing_mm):
        text = " x ".join(f"{size:g}" for size in spacing_mm)
        raise BadFile(
            f"voxels of {text} mm outside {low:g}..{high:g}; set data.accept.zoom_range_mm"
        )
    return order, spacing_mm, _affine(first, normal, origins[order], spacing_mm)


def _affine(
    first: Placed, normal: _Floats, origins: _Floats, spacing_mm: tuple[float, float, float]
) -> _Floats:
    lps = np.eye(4)
    lps[:3, 0] = first.along_row * spacing_mm[0]
    lps[:3, 1] = first.along_column * spacing_mm[1]
    lps[:3, 2] = normal * spacing_mm[2]
    lps[:3, 3] = origins[0]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _difference(first: Placed, other: Placed) -> str | None:
    if other.shape != first.shape:
        return "size"
    if np.abs(np.subtract(other.pixel_mm, first.pixel_mm)).max() > _SAME_MM:
        return "pixel spacing"
    turned = (other.along_row - first.along_row, other.along_column - first.along_column)
    return "orientation" if np.abs(turned).max() > 1e-3 else None


def _floats(dataset: Dataset, name: str, n: int) -> _Floats:
    value = dataset.get(name)
    if value is None or len(value) != n or not np.isfinite(np.array(value, float)).all():
        raise BadFile(f"{name} is missing or not {n} finite numbers; export the series again")
    return np.array(value, np.float64)
