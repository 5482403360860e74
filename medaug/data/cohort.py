"""What a folder layout is read into: scans, their classes, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medaug.errors import UserError
from medaug.spec.data import DataSpec


@dataclass(frozen=True)
class Scan:
    """One volume or one 2-D image on disk, with its labels; nothing of it has been read yet."""

    patient: str
    """Raw id, or the group of near-duplicates where there are no patients; never leaves data/."""
    path: Path
    mask: Path | None = None
    label: int | None = None
    """Index into :attr:`Cohort.classes`; None where the layout names no class."""
    index: int | None = None
    """Position of a 2-D image in its patient's series; None for a volume."""
    part: str | None = None
    """``train``, ``val`` or ``test`` where the publisher's folders say so (as_published)."""
    more: tuple[Path, ...] = ()
    """Further sequences of the same scan, channels 1, 2 …; ``path`` is channel 0."""
    more_masks: tuple[Path, ...] = ()
    """Further masks of the scan: its mask is their union."""
    covariates: tuple[tuple[str, str], ...] = ()
    """(column, cell) of the columns that ``data.covariates`` names."""
    line: int | None = None
    """Of the table that lists the scan."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """One address (see :mod:`medaug.data.address`) per channel."""
        return (self.path, *self.more)

    @property
    def masks(self) -> tuple[Path, ...]:
        return (self.mask, *self.more_masks) if self.mask else ()


@dataclass(frozen=True)
class Reject:
    """A file that is not used, and why."""

    path: Path
    reason: str
    """One line without any name from the disk: logs repeat it, beside the patient's pseudonym."""
    patient: str | None = None
    """Raw id, where the layout knows it; without it, messages give a pseudonym of the path."""
    label: int | None = None
    """Of a scan: the class that loses it."""
    unlabelled: bool = False
    """Nothing is wrong with the file but that no table says its class or patient."""


@dataclass(frozen=True)
class Cohort:
    """Every usable scan of a folder, in an order that depends on names only."""

    scans: tuple[Scan, ...]
    classes: tuple[str, ...]
    rejects: tuple[Reject, ...] = ()
    part: str = "study"
    """``study``; ``pool``, whose scans need no class; or ``external``. The last two have no split:
    nobody of them is trained on and scored."""
    channels: int | None = None
    """Of each image, once it has been looked at (:func:`medaug.data.colour.surveyed`)."""
    notes: tuple[str, ...] = ()
    """Lines for the user: what the layout lets one see of leaks, doubts and missing parts."""

    @property
    def in_colour(self) -> bool:
        """Whether the channels are the colours of single pictures."""
        return self.channels == 3 and len(self.scans[0].paths) == 1


def folder_of(spec: DataSpec) -> Path:
    """The folder that a layout reads.

    Raises:
        UserError: none is given, or it is no folder.
    """
    if spec.root is None:
        raise UserError(
            f"data.root: layout {spec.layout} reads a folder; give --data DIR or data.root"
        )
    if not spec.root.is_dir():
        raise UserError("data.root: is no folder; give the one that holds the scans (--data DIR)")
    return spec.root


def absent(spec: DataSpec, text: str) -> str:
    """``text``, a note on labels without a scan.

    Raises:
        UserError: the study does not accept that.
    """
    if not spec.accept.missing:
        raise UserError(f"{text}; remove the lines, bring the scans, or set data.accept.missing")
    return text


Unit = Literal["patient", "image"]
"""What a split divides."""


def unit_of(scan: Scan, unit: Unit) -> str:
    """The scan's patient; or the 2-D image itself, as ``patient/index``."""
    return scan.patient if unit == "patient" else f"{scan.patient}/{scan.index}"


def units_and_labels(scans: Iterable[Scan], unit: Unit = "patient") -> tuple[list[str], list[int]]:
    """Two columns with one entry per scan; every scan has a label."""
    units, labels = [], []
    for scan in scans:
        assert scan.label is not None
        units.append(unit_of(scan, unit))
        labels.append(scan.label)
    return units, labels
