"""What is in a cohort, from names and headers alone: no voxel is read, nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from medaug.data.address import FRAMES, is_two_dimensional, split_address
from medaug.data.cohort import Cohort, Scan, units_and_labels
from medaug.data.files import BadFile, decompressed, frames_of, slices_of
from medaug.data.nifti_header import Limits, read_header
from medaug.data.planes import plane_notes, plane_of
from medaug.data.splits import patient_labels
from medaug.spec.data import DataSpec

ODD_SPACING = 1.5
"""A spacing this many times the cohort's median, or less than its inverse, is reported."""


@dataclass(frozen=True)
class Survey:
    """Patients, slices, classes and doubts of a cohort; no name of a patient is in it."""

    patients: dict[str, int]
    """Per class; a patient with several counts in the highest."""
    slices_of: tuple[tuple[int, int], ...]
    """(class, slices that a study would store) of each patient, in the order of the cohort."""
    slices: dict[str, int]
    with_mask: int
    """Scans that have one."""
    scans: int
    spacing_mm: tuple[float, float, float] | None
    """Median over the volumes; None for images, which have none."""
    odd_spacing: int
    """Volumes that differ from it by more than :data:`ODD_SPACING`."""
    unreadable: tuple[str, ...]
    """Reason and number of scans whose header is refused."""


def survey(
    cohort: Cohort, spec: DataSpec, progress: Callable[[int, int, str], None] | None = None
) -> Survey:
    """Count what ``cohort`` holds. Scans without a class or with a bad header are not counted as
    slices. With ``slice_policy: tumour_only`` the slices are an upper bound."""
    limits = Limits(strict=spec.on_bad == "strict", accept=spec.accept)
    slices_of: dict[str, int] = {}
    spacings: list[tuple[float, float, float]] = []
    reasons = Counter[str]()
    kept: list[Scan] = []
    per_class = Counter[str]()
    for number, scan in enumerate(cohort.scans, start=1):
        if progress is not None:
            progress(number, len(cohort.scans), "")
        if scan.label is None:
            reasons["has no class"] += 1
            continue
        try:
            n, spacing = _slices(scan, limits)
        except BadFile as error:
            reasons[str(error)] += 1
            continue
        n = -(-n // spec.slice_step)
        kept.append(scan)
        slices_of[scan.patient] = slices_of.get(scan.patient, 0) + n
        per_class[cohort.classes[scan.label]] += n
        if spacing is not None:
            spacings.append(spacing)
    label_of = patient_labels(*units_and_labels(kept))
    median = np.median(spacings, axis=0) if spacings else None
    return Survey(
        patients={
            name: sum(label == i for label in label_of.values())
            for i, name in enumerate(cohort.classes)
        },
        slices_of=tuple((label_of[patient], n) for patient, n in slices_of.items()),
        slices={name: per_class[name] for name in cohort.classes},
        with_mask=sum(scan.mask is not None for scan in kept),
        scans=len(kept),
        spacing_mm=None if median is None else tuple(float(mm) for mm in median),  # type: ignore[arg-type]
        odd_spacing=0 if median is None else _odd(spacings, median),
        unreadable=tuple(f"{reason} ({n})" for reason, n in sorted(reasons.items())),
    )


def _slices(scan: Scan, limits: Limits) -> tuple[int, tuple[float, float, float] | None]:
    """Slices of a scan, and its spacing along Left, Posterior and Superior."""
    if is_two_dimensional(scan.path):
        return 1, None
    place, part = split_address(scan.path)
    if place.is_dir():  # a DICOM series
        return slices_of(scan.path), None
    if part == FRAMES:
        return frames_of(place), None
    with decompressed(scan.path) as (stream, _):
        header = read_header(stream, limits)
    size, spacing_mm = header.extent()
    return size[plane_of(spacing_mm)], spacing_mm


def cut_by_planes(scans: Iterable[Scan], spec: DataSpec) -> bool:
    """Whether :mod:`medaug.data.planes` has a say in the rows of any scan: a volume whose axial
    pixels are not square, or a DICOM series, of which no header is read here."""
    limits = Limits(strict=spec.on_bad == "strict", accept=spec.accept)
    return any(_has_other_rows(scan, limits) for scan in scans)


def _has_other_rows(scan: Scan, limits: Limits) -> bool:
    if is_two_dimensional(scan.path):
        return False
    place, part = split_address(scan.path)
    if place.is_dir() or part == FRAMES:
        return True
    try:
        spacing_mm = _slices(scan, limits)[1]
    except BadFile:
        return False
    return spacing_mm is not None and bool(plane_notes(spacing_mm))


def _odd(spacings: Iterable[tuple[float, float, float]], median: np.ndarray) -> int:
    ratio = np.array(list(spacings)) / median
    return int(((ratio > ODD_SPACING) | (ratio < 1 / ODD_SPACING)).any(axis=1).sum())
