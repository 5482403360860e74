"""Slices that stand in for a cohort's: as many patients and shapes, and nothing of anybody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medaug.data.cohort import Scan, unit_of
from medaug.data.splits import draw_patients, make_splits
from medaug.errors import UserError
from medaug.seeding import numpy_generator
from medaug.spec import StudySpec
from medaug.store import Provenance, StoreSchema, StoreWriter

Patients = Sequence[tuple[int, int]]
"""(class, slices) of each patient."""


def rows_of(patients: Patients) -> int:
    return sum(n for _, n in patients)


def fewer(patients: Patients, most_rows: int, study: StudySpec) -> list[tuple[int, int]]:
    """All of ``patients``, or a class-stratified part with fewer slices each, of about
    ``most_rows`` rows; never so few that the study's split cannot be made."""
    if rows_of(patients) <= most_rows:
        return list(patients)
    label_of = {f"{i:06d}": label for i, (label, _) in enumerate(patients)}
    wanted = min(len(patients), max(4 * study.split.folds, 8))
    while True:
        drawn = draw_patients(label_of, wanted, seed=0)
        share = most_rows / sum(patients[int(name)][1] for name in drawn)
        small = [
            (
                label_of[name],
                min(patients[int(name)][1], max(1, round(share * patients[int(name)][1]))),
            )
            for name in sorted(drawn)
        ]
        try:
            make_splits(*_columns(small, study), study.split)
            return small
        except UserError:
            if wanted >= len(patients):
                raise
            wanted = min(len(patients), 2 * wanted)


def write_stand_in(study: StudySpec, patients: Patients, masks: bool, path: Path) -> None:
    """A slice store of discs in noise for ``patients``, split as the study wants."""
    size, classes = study.data.image_size, study.data.classes
    units, labels = _columns(patients, study)
    splits = make_splits(units, labels, study.split, classes)
    channels = len(study.data.sequences)
    schema = StoreSchema((channels, size, size), "float32", (size, size) if masks else None)
    row, column = np.mgrid[:size, :size] - (size - 1) / 2
    extra: dict[str, dict[str, object]] = {"moments": {}, "parts": {}, "ingest": {}, "data": {}}
    with StoreWriter(
        path,
        schema,
        provenance=Provenance("slices", "stand-in", (), (), synthetic=False),
        classes=classes,
        splits=splits,
        extra=extra,
    ) as writer:
        for number, (label, n) in enumerate(patients):
            random = numpy_generator("stand-in", number)
            x_NHW = 60 + 10 * random.standard_normal((n, size, size), np.float32)
            y, x, radius = size * random.uniform([-0.2, -0.2, 0.1], [0.2, 0.2, 0.25])
            disc = np.hypot(row - y, column - x) < radius
            x_NHW += disc * np.float32(100 + 20 * label)
            name = _name(number)
            writer.write(
                np.repeat(x_NHW[:, None], channels, 1),
                label=label,
                patient=name,
                volume=f"{name}-0",
                slice_index=np.arange(n),
                tumour_pixels=np.full(n, disc.sum()),
                mask=np.repeat(disc[None], n, 0).astype(np.uint8) if masks else None,
            )
            for i in range(n):
                unit = unit_of(Scan(name, Path(), index=i), study.split.unit)
                pixels = x_NHW[i] if study.split.unit == "image" else x_NHW
                moments = (pixels.size, pixels.sum(), np.square(pixels).sum())
                one = [float(value) for value in moments]
                extra["moments"][unit] = one if channels == 1 else [one] * channels
                extra["parts"][unit] = ["train"]


def _name(number: int) -> str:
    return f"p-{number:012x}"


def _columns(patients: Patients, study: StudySpec) -> tuple[list[str], list[int]]:
    """What the split divides, one entry per row, and its class."""
    rows = [
        (unit_of(Scan(_name(number), Path(), index=i), study.split.unit), label)
        for number, (label, n) in enumerate(patients)
        for i in range(n)
    ]
    return [unit for unit, _ in rows], [label for _, label in rows]
