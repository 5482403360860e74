"""What ``init`` and ``check`` find in a cohort: the numbers that ``run`` will have as well."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medaug.data.cohort import Cohort, Scan, units_and_labels
from medaug.data.look import THUMBNAIL, Sight, look_at
from medaug.data.nifti import Limits
from medaug.data.planes import plane_of
from medaug.data.reader import Cut
from medaug.data.slices import reader_processes, usable
from medaug.data.splits import patient_labels
from medaug.data.tally import lost_classes
from medaug.errors import UserError
from medaug.spec.data import DataSpec
from medaug.spec.study import SplitSpec

ODD_SPACING = 1.5
"""A spacing this many times the cohort's median, or less than its inverse, is reported."""
THIN = 3
"""One side of an axial slice this many times the other."""
TINY = 24
"""Pixels a side below which an image is too small to show much."""
SHORTCUT = 0.75
"""Balanced accuracy of one plain property of the files above which it is reported: a network will
find it."""


@dataclass(frozen=True)
class Inspection:
    """Scans as they were looked at, and the sums over them."""

    classes: tuple[str, ...]
    sights: tuple[Sight, ...]
    """Of scans that the study can use."""
    rejected: tuple[tuple[Scan, str], ...]
    """Scans that it cannot, and why."""

    @property
    def patients(self) -> dict[str, int]:
        """Per class; a patient with several counts in the highest."""
        label_of = patient_labels(*units_and_labels(sight.scan for sight in self.sights))
        return {c: list(label_of.values()).count(i) for i, c in enumerate(self.classes)}

    @property
    def slices(self) -> dict[str, int]:
        n = Counter[int]()
        for sight in self.sights:
            assert sight.scan.label is not None
            n[sight.scan.label] += sight.slices
        return {c: n[i] for i, c in enumerate(self.classes)}

    @property
    def unread(self) -> int:
        """Scans of which only the header was read."""
        return sum(not sight.pixels for sight in self.sights)

    @property
    def with_mask(self) -> int:
        return sum(sight.scan.mask is not None for sight in self.sights)

    @property
    def volumes(self) -> bool:
        return any(sight.scan.index is None for sight in self.sights)


def inspect(
    cohort: Cohort,
    spec: DataSpec,
    *,
    budget_s: float | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Inspection:
    """Look at every scan that a study of ``spec`` would read.

    Raises:
        UserError: a class loses too many of its scans; says the reason.
    """
    before = cohort
    cohort = usable(cohort, spec.model_copy(update={"max_patients": None}), SplitSpec())
    left = [r for r in cohort.rejects if r not in before.rejects]
    limits = Limits(strict=spec.on_bad == "strict", accept=spec.accept)
    one = 1 if spec.colour == "grey" else None
    cut = Cut(THUMBNAIL, spec.slice_policy, spec.slice_step, limits, one)
    sights = look_at(cohort, cut, workers=reader_processes(), budget_s=budget_s, progress=progress)
    bad = [(s.scan, s.reason) for s in sights if s.reason is not None]
    by_path = {scan.path: scan for scan in before.scans}
    bad += [(by_path[r.path], r.reason) for r in left if r.path in by_path]
    good = [s for s in sights if s.reason is None]
    lost = lost_classes(
        ((scan.label, reason) for scan, reason in bad),
        (s.scan.label for s in good),
        cohort.classes,
        spec.accept.lost,
    )
    if lost is not None:
        raise UserError(f"data: {lost}; mend these files, or set data.accept.lost to go on without")
    return Inspection(cohort.classes, tuple(good), tuple(bad))


def report(found: Inspection) -> list[str]:
    """What was found, for a terminal; free of patients' names."""
    n_patients = len({sight.scan.patient for sight in found.sights})
    lines = [f"{len(found.sights)} scans of {n_patients} patients"]
    slices = found.slices
    lines += [f"class {c}: {n} patients, {slices[c]} slices" for c, n in found.patients.items()]
    if found.with_mask:
        without = len(found.sights) - found.with_mask
        lines.append(f"masks: {found.with_mask} scans have one, {without} have none")
    else:
        lines.append("masks: none, so the image itself is the feature")
    per_patient = Counter(Counter(s.scan.patient for s in found.sights).values())
    if max(per_patient) > 1:
        most = max(per_patient)
        lines.append(f"scans per patient: {min(per_patient)} to {most}")
    lines += _kinds(found.sights)
    lines += _channels(found.sights)
    if found.unread:
        lines.append(
            f"pixels of {len(found.sights) - found.unread} of {len(found.sights)} scans were read, "
            "headers of all; medaug check reads the rest"
        )
    return [*lines, *oddities(found)]


def oddities(found: Inspection) -> list[str]:
    """What is odd, each once and with a number."""
    sights = found.sights
    read = [s for s in sights if s.pixels]
    checks = {
        f"scans are smaller than {TINY} pixels a side": sum(
            bool(s.size) and min(s.size[:2]) < TINY for s in sights
        ),
        "scans show nothing: every pixel is equal": sum(
            bool(np.isclose(s.low, s.high)) for s in read
        ),
        "scans have voxels far beyond the others' (more than 100 times the median range)": _extreme(
            read
        ),
        "volumes are thin in the plane of their slices, so that most of a slice is padding": sum(
            _is_thin(s) for s in sights
        ),
        "masks are empty": sum(s.masked == 0 for s in read if s.scan.mask is not None),
        "masks cover nine tenths of the scan or more": sum((s.masked or 0) > 0.9 for s in read),
    }
    lines = [f"odd: {n} {what}" for what, n in checks.items() if n]
    warned = Counter(text for s in sights for text in s.warnings)
    lines += [f"note: {text} ({n} scans)" for text, n in warned.most_common()]
    return [*lines, *_spacing(sights), *_shortcuts(found)]


def _plane(sight: Sight) -> str:
    return next((text for text in sight.warnings if text.startswith("slices are ")), "axial")


def _is_thin(sight: Sight) -> bool:
    """One side of its slices is :data:`THIN` times the other, in millimetres."""
    if len(sight.size) != 3 or len(sight.spacing_mm) != 3:
        return False
    plane = plane_of(sight.spacing_mm)
    sides = [
        n * mm
        for k, (n, mm) in enumerate(zip(sight.size, sight.spacing_mm, strict=True))
        if k != plane
    ]
    return max(sides) > THIN * min(sides)


def _kinds(sights: Sequence[Sight]) -> list[str]:
    forms = Counter(s.form for s in sights)
    sizes = Counter("x".join(map(str, s.size[:2])) for s in sights if s.size)
    text = "files: " + ", ".join(f"{n} {form}" for form, n in forms.most_common(6))
    if not sizes:
        return [text]
    shown = ", ".join(f"{size} ({n})" for size, n in sizes.most_common(3))
    more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    return [text, f"pixels: {shown}{more}"]


def _channels(sights: Sequence[Sight]) -> list[str]:
    """Where an image has more than one."""
    sequences = max((s.sequences for s in sights), default=1)
    if sequences > 1:
        return [f"channels: {sequences} sequences of every scan"]
    if coloured := sum(s.in_colour for s in sights):
        known = sum(s.image is not None for s in sights)
        return [
            f"colour: {coloured} of {known} images are in colour, so all have three channels; "
            "data.colour: grey makes one of them"
        ]
    return []


def _spacing(sights: Sequence[Sight]) -> list[str]:
    spacings = np.array([s.spacing_mm for s in sights if len(s.spacing_mm) == 3])
    if not len(spacings):
        return []
    median = np.median(spacings, axis=0)
    ratio = spacings / median
    odd = int(((ratio > ODD_SPACING) | (ratio < 1 / ODD_SPACING)).any(axis=1).sum())
    x, y, z = median.tolist()
    more = f"; {odd} volumes differ {ODD_SPACING:g}-fold or more" if odd else ""
    return [f"spacing: {x:.3g} x {y:.3g} mm, {z:.3g} mm between slices (median){more}"]


def _extreme(read: Sequence[Sight]) -> int:
    ranges = np.array([s.high - s.low for s in read])
    if not len(ranges) or not (median := float(np.median(ranges))):
        return 0
    return int((ranges > 100 * median).sum())


def _shortcuts(found: Inspection) -> list[str]:
    """Plain properties of the files that tell the classes apart."""
    sights = [s for s in found.sights if s.scan.label is not None]
    kinds: dict[str, Callable[[Sight], object]] = {
        "the file format": lambda s: s.form,
        "the size of the image": lambda s: s.size[:2],
        "the shape of the image (wide, high or square)": lambda s: (
            bool(s.size) and (s.size[0] > s.size[1]) - (s.size[0] < s.size[1])
        ),
        "the number of slices": lambda s: s.slices,
        "the plane of the slices": _plane,
        "the spacing": lambda s: tuple(round(mm, 2) for mm in s.spacing_mm),
    }
    lines = []
    for what, value_of in kinds.items():
        values = [(value_of(s), s.scan.label or 0) for s in sights]
        n_values = len({value for value, _ in values})
        if 1 < n_values <= max(2, len(values) // 8):
            accuracy = _balanced(values, len(found.classes))
            if accuracy >= SHORTCUT:
                lines.append(
                    f"odd: {what} alone tells the classes apart (balanced accuracy "
                    f"{accuracy:.2f}): a network will find it"
                )
    return lines


def _balanced(values: Sequence[tuple[object, int]], n_classes: int) -> float:
    """Balanced accuracy of naming, for each value, the class that is most over-represented."""
    counts: dict[object, Counter[int]] = defaultdict(Counter)
    totals = Counter(label for _, label in values)
    for value, label in values:
        counts[value][label] += 1
    right: Mapping[int, int] = Counter()
    for per_class in counts.values():
        best = max(per_class, key=lambda c: per_class[c] / totals[c])
        right[best] += per_class[best]  # type: ignore[index]
    present = [c for c in range(n_classes) if totals[c]]
    if len(present) < 2:
        return 0.0
    return sum(right[c] / totals[c] for c in present) / len(present)
