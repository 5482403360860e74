"""A DICOM file of several frames as a volume (Enhanced CT, MR and PET: PS3.3 C.7.6.16)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from medaug.data.dicom import (
    FRAME_TAGS,
    MAX_SLICES,
    check_raster,
    decoded,
    grey_values,
    read_file,
    volume_of,
)
from medaug.data.dicom_geometry import Placed, place
from medaug.data.files import BadFile
from medaug.data.nifti import Volume
from medaug.data.nifti_header import Limits

_GROUPS = {
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}
"""Functional group -> what is read of it: for each frame, or for all of them."""


def read_frames(path: Path, limits: Limits) -> Volume:
    """All frames as float32, each with its own slope and intercept, in the order of their places.

    Raises:
        BadFile: as :func:`medaug.data.dicom.read_series`, or the frames have no place in space, as
            those of a cine.
    """
    dataset, syntax = read_file(path, limits, FRAME_TAGS)
    n = int(dataset.get("NumberOfFrames") or 1)
    check_raster(dataset, syntax, 1, limits)
    if not 2 <= n <= MAX_SLICES:
        raise BadFile(f"holds {n} frames, want 2 to {MAX_SLICES} of one stack")
    frames = _frames(dataset, n)
    order, spacing_mm, affine = place([Placed.of(frame) for frame in frames], limits, "frame")
    shape = (int(dataset.Columns), int(dataset.Rows), n)
    x_XYZ = np.empty(shape, np.float32, order="F")
    for z, number in enumerate(order):
        stored_HW = decoded(dataset, syntax, number)
        rescale = frames[number] if "RescaleSlope" in frames[number] else dataset
        x_XYZ[:, :, z] = grey_values(stored_HW, dataset, rescale).T
    return volume_of(x_XYZ, spacing_mm, affine, dataset, syntax)


def _frames(dataset: Dataset, n: int) -> list[Dataset]:
    """What places each frame and scales its numbers.

    Raises:
        BadFile: it is not told, or not for every frame.
    """
    shared, each = (dataset.get(name) or [] for name in FRAME_TAGS)
    if not each:
        raise BadFile(
            f"holds {n} frames without a place in space, as a cine does; export the frame that is "
            "meant as a picture, or the slices of a stack one per file"
        )
    if len(each) != n:
        raise BadFile(f"holds {n} frames and places {len(each)}; export the series again")
    frames = []
    for own in each:
        frame = Dataset()
        frame.Rows, frame.Columns = dataset.Rows, dataset.Columns
        for group, names in _GROUPS.items():
            said: Any = own.get(group) or (shared[0].get(group) if shared else None)
            for name in names if said else ():
                if name in said[0]:
                    frame[name] = said[0][name]
        frames.append(frame)
    return frames
