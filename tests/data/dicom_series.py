"""Small DICOM series, written as scanners do, that tests can spoil."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

Change = Callable[[Dataset, int], object]
"""What a test does to slice n before it is written."""

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def voxels(seed: int = 0, shape: tuple[int, int, int] = (8, 9, 4)) -> np.ndarray:
    """(X, Y, Z) uint16 of 12 bits."""
    return np.random.default_rng(seed).integers(0, 4096, shape, dtype=np.uint16)


def write_series(
    folder: Path,
    x_XYZ: np.ndarray,
    *,
    orientation: tuple[float, ...] = AXIAL,
    spacing_mm: tuple[float, float, float] = (0.5, 0.75, 2.0),
    origin_mm: tuple[float, float, float] = (10.0, -20.0, 30.0),
    slope: float = 1.0,
    intercept: float = 0.0,
    syntax: str = ExplicitVRLittleEndian,
    change: Change = lambda dataset, index: None,
    **elements: object,
) -> None:
    """Write slice z of ``x_XYZ`` at origin + z * normal; file names are no help to order them."""
    folder.mkdir(parents=True, exist_ok=True)
    series, normal = generate_uid(), np.cross(orientation[:3], orientation[3:])
    for z in range(x_XYZ.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset = Dataset()
        dataset.file_meta, dataset.preamble = meta, bytes(128)
        place = np.array(origin_mm) + z * spacing_mm[2] * normal
        about = {
            "SOPClassUID": MRImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "SeriesInstanceUID": series,
            "Modality": "MR",
            "BodyPartExamined": "BRAIN",
            "RecognizableVisualFeatures": "NO",
            "Rows": x_XYZ.shape[1],
            "Columns": x_XYZ.shape[0],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 12,
            "HighBit": 11,
            "PixelRepresentation": 0,
            "PixelSpacing": [spacing_mm[1], spacing_mm[0]],  # rows first
            "ImageOrientationPatient": [round(float(c), 6) for c in orientation],
            "ImagePositionPatient": [round(float(c), 6) for c in place],
            "RescaleSlope": slope,
            "RescaleIntercept": intercept,
            "PixelData": np.ascontiguousarray(x_XYZ[:, :, z].T).tobytes(),
        }
        for name, value in (about | elements).items():
            setattr(dataset, name, value)
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        if UID(syntax).is_compressed:
            dataset.compress(syntax)
        meta.TransferSyntaxUID = syntax
        change(dataset, z)
        dataset.save_as(folder / f"IM{(3 * z) % x_XYZ.shape[2]:04d}.dcm", enforce_file_format=True)


def write_frames(path: Path, x_XYZ: np.ndarray, *, change: Change = lambda d, n: None) -> None:
    """One Enhanced MR file whose frame z lies at origin + z * normal, stored from the last to the
    first; every other frame has a slope of its own."""
    n = x_XYZ.shape[2]
    folder = path.parent / "one"
    write_series(folder, x_XYZ[:, :, :1])
    dataset = dcmread(next(folder.glob("*.dcm")))
    shutil.rmtree(folder)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, name)
    for name in ("RescaleSlope", "RescaleIntercept"):
        delattr(dataset, name)
    dataset.NumberOfFrames = n
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, orientation.ImageOrientationPatient = [0.75, 0.5], list(AXIAL)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    pixels = []
    for z in reversed(range(n)):
        place, numbers, frame = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [10.0, -20.0, 30.0 + 2.0 * z]
        numbers.RescaleSlope, numbers.RescaleIntercept = (2 if z % 2 else 1), 0
        frame.PlanePositionSequence = [place]
        frame.PixelValueTransformationSequence = [numbers]
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
        stored = x_XYZ[:, :, z] // (2 if z % 2 else 1)
        pixels.append(np.ascontiguousarray(stored.T).tobytes())
    dataset.PixelData = b"".join(pixels)
    change(dataset, 0)
    dataset.save_as(path, enforce_file_format=True)


def nested(depth: int) -> Dataset:
    """A data set of ``depth`` sequences of undefined length, one in the other."""
    inner = Dataset()
    for _ in range(depth):
        outer = Dataset()
        outer.ReferencedImageSequence = [inner]
        outer["ReferencedImageSequence"].is_undefined_length = True
        inner.is_undefined_length_sequence_item = True
        inner = outer
    return inner
