"""Looking at scans before a study exists, with the readers that the study will use."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medaug.data.address import FRAMES, is_two_dimensional, split_address
from medaug.data.cohort import Cohort, Scan
from medaug.data.dicom_geometry import extent_of_series
from medaug.data.dicom_told import is_dicom, series_files, slices_of, told
from medaug.data.files import BadFile, check_format, decompressed, open_regular
from medaug.data.names import ending_of
from medaug.data.nifti import Limits
from medaug.data.nifti_header import read_header
from medaug.data.planes import plane_notes, plane_of
from medaug.data.reader import Cut, read_rows
from medaug.data.sandbox import Sandbox

THUMBNAIL = 96
"""Side in pixels of what is kept of a scan: its middle slice."""
BINS = 32
BUDGET_S = 40.0
"""``init`` reads pixels for so long, of every kind first; of what is left it reads headers."""
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Sight:
    """What one scan is. Nothing of it names anybody."""

    scan: Scan
    reason: str | None
    """Why the study cannot use it."""
    pixels: bool
    """Whether its pixels were read, or its header only."""
    form: str = ""
    """File format and kind of pixels: ``PNG RGB``, ``NIfTI``, ``DICOM``."""
    size: tuple[int, ...] = ()
    """Width, height and, of volumes, slices: along Left, Posterior and Superior."""
    spacing_mm: tuple[float, ...] = ()
    slices: int = 1
    """Rows that the study will store."""
    sequences: int = 1
    """Files of the scan: more than one are its channels."""
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    histogram: tuple[int, ...] = ()
    """Of the middle slice, :data:`BINS` equal steps from its lowest to its highest value."""
    masked: float | None = None
    """Share of the pixels within the mask."""
    warnings: tuple[str, ...] = ()
    image: NDArray[np.float32] | None = field(default=None, repr=False)
    """Middle slice, (H, W) or (C, H, W)."""
    mask: NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def in_colour(self) -> bool:
        """Whether it is one picture of three colours."""
        return self.image is not None and self.image.ndim == 3 and self.sequences == 1


def look_at(
    cohort: Cohort,
    cut: Cut,
    *,
    workers: int,
    budget_s: float | None = None,
    progress: Progress | None = None,
) -> list[Sight]:
    """Read every scan of ``cohort``, in its order; after ``budget_s`` seconds headers only.

    Scans of each kind (class, ending) come first, so that the budget does not leave one out.
    """
    order = _kinds_first(cohort.scans)
    sights: dict[int, Sight] = {}
    ends = None if budget_s is None else time.monotonic() + budget_s

    def tasks() -> Iterable[tuple[Any, ...]]:
        for number in order:
            scan = cohort.scans[number]
            deep = ends is None or time.monotonic() < ends
            yield (scan.paths, scan.masks, cut, deep)

    with Sandbox(look_into, workers=workers) as sandbox:
        outcomes = zip(order, sandbox.map(tasks()), strict=True)
        for done, (number, outcome) in enumerate(outcomes, start=1):
            sights[number] = _sight(cohort.scans[number], outcome)
            if progress is not None:
                progress(done, len(order), "")
    return [sights[number] for number in range(len(order))]


def look_into(
    paths: Sequence[Path], masks: Sequence[Path], cut: Cut, deep: bool
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Facts about a scan, and with ``deep`` its middle slice and mask; in a worker of the sandbox.

    Raises:
        BadFile: the study could not use it.
    """
    facts = _header(paths[0], cut.limits)
    facts["pixels"] = deep
    facts["sequences"] = len(paths)
    if not deep:
        facts["slices"] = -(-facts["slices"] // cut.step)
        return facts, []
    read, arrays = read_rows(tuple(paths), tuple(masks), cut)
    x = arrays[0]
    middle = len(x) // 2
    if len(arrays) > 1 and arrays[1].any():
        middle = int(arrays[1].reshape(len(x), -1).sum(axis=1).argmax())
    low, high = float(x[middle].min()), float(x[middle].max())
    count, total, _ = np.reshape(read["moments"], (-1, 3)).sum(axis=0).tolist()
    span = (low, low + 1 if np.isclose(low, high) else high)  # resizing rounds what is constant
    facts |= {
        "slices": len(x),
        "low": float(x.min()),
        "high": float(x.max()),
        "mean": total / count,
        "warnings": list(read["warnings"]),
        "histogram": np.histogram(x[middle], BINS, span)[0].tolist(),
    }
    shown = x[middle] if x.shape[1] > 1 else x[middle, 0]
    kept = [np.ascontiguousarray(shown, np.float32)]
    if len(arrays) > 1:
        facts["masked"] = float(arrays[1].mean())
        kept.append(np.ascontiguousarray(arrays[1][middle]))
    return facts, kept


def _sight(scan: Scan, outcome: Any) -> Sight:
    if outcome.reason is not None:
        return Sight(scan, outcome.reason, pixels=True)
    facts = dict(outcome.facts)
    for name in ("size", "spacing_mm", "histogram", "warnings"):
        facts[name] = tuple(facts.get(name, ()))
    image = outcome.arrays[0] if outcome.arrays else None
    mask = outcome.arrays[1] if len(outcome.arrays) > 1 else None
    return Sight(scan, None, image=image, mask=mask, **facts)


def _kinds_first(scans: Sequence[Scan]) -> list[int]:
    """Every number of ``scans``: one of each kind, then evenly over the rest."""
    kinds: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number, scan in enumerate(scans):
        kinds[scan.label, ending_of(scan.path.name), scan.mask is None].append(number)
    first = [numbers[0] for numbers in kinds.values()]
    taken = set(first)
    rest = [number for number in range(len(scans)) if number not in taken]
    step = max(1, int(len(rest) ** 0.5))
    return first + [number for start in range(step) for number in rest[start::step]]


def _header(path: Path, limits: Limits) -> dict[str, Any]:
    place, part = split_address(path)
    if part is not None and ":" in part:
        return {"form": "NumPy", "size": [], "slices": 1}
    if place.is_dir():
        return _series(path, limits)
    if part == FRAMES:
        form = f"DICOM {told(place).modality}".strip()
        return {"form": form, "size": [], "slices": told(place).frames}
    if is_two_dimensional(path):
        return _picture(path)
    with decompressed(path) as (stream, _):
        header = read_header(stream, limits)
    size, spacing_mm = header.extent()
    slices = size[plane_of(spacing_mm)]
    about = {"size": list(size), "spacing_mm": list(spacing_mm), "slices": slices}
    form = "Analyze 7.5" if header.analyze else "NIfTI"
    return {"form": form, "warnings": list(plane_notes(spacing_mm)), **about}


def _series(path: Path, limits: Limits) -> dict[str, Any]:
    """Of a folder of slices; what is no stack is the reader's to say."""
    files = series_files(path)
    modality = told(files[0]).modality if files else ""
    facts: dict[str, Any] = {"form": f"DICOM {modality}".strip(), "size": []}
    if (extent := extent_of_series(path, limits)) is None:
        return {**facts, "slices": slices_of(path)}
    size, spacing_mm = extent
    return {
        **facts,
        "size": list(size),
        "spacing_mm": list(spacing_mm),
        "slices": size[plane_of(spacing_mm)],
        "warnings": list(plane_notes(spacing_mm)),
    }


def _picture(path: Path) -> dict[str, Any]:
    """From the header of an image; what it cannot be is the reader's to say."""
    check_format(path)
    with open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(file) as image:
                form, size = f"{image.format} {image.mode}", list(image.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            if is_dicom(path):
                said = told(path)
                size = [said.columns, said.rows] if said.columns and said.rows else []
                form = f"DICOM {said.modality}".strip()
                return {"form": form, "size": size, "slices": 1}
            raise BadFile("no image that can be opened; convert it to PNG") from None
    return {"form": form, "size": size, "slices": 1}
