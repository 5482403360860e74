"""A row of the table of bad inputs, and the ways in which a user hands files to medaug."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medaug.data.cohort import Cohort, Reject, Scan
from medaug.data.files import BadFile
from medaug.data.nifti import Limits
from medaug.data.privacy import site_pseudonymiser
from medaug.data.reader import Cut, read_rows
from medaug.data.tally import Tally
from medaug.spec import DataSpec, StudySpec, load_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.spec.data import AcceptSpec

Make = Callable[[Path, pytest.MonkeyPatch], object]
"""Does what a user would, in an empty folder: raises, or returns what the user is told."""

CLASSES = ("LGG", "HGG")
GOOD_STUDY = "name: x\narms: {none: {}}\n"


@dataclass(frozen=True)
class Case:
    row: int
    """Of BADINPUTS.md."""
    name: str
    make: Make
    says: str
    """Regular expression found in the one line (with code 0: in what is told)."""
    code: int = 2


@dataclass(frozen=True)
class NotHere:
    """A part of a row that has no place in this project."""

    row: int
    why: str


def strictly(path: Path, mask: Path | None = None, **accept: Any) -> tuple[Any, list[np.ndarray]]:
    """Read one scan as ``ingest`` with ``on_bad: strict`` does, without its processes."""
    limits = Limits(strict=True, accept=AcceptSpec(**accept))
    try:
        return read_rows(path, mask, Cut(8, "all", 1, limits))
    except BadFile as bad:
        cohort = Cohort((Scan("Doe", path, mask, 0),), CLASSES)
        tally = Tally(DataSpec(on_bad="strict"), cohort, site_pseudonymiser())
        tally.reject(Reject(path, str(bad), "Doe"))
        raise AssertionError("strict mode goes on") from bad


def load(folder: Path, text: str | bytes, *overrides: str) -> StudySpec:
    path = folder / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_study(path, ARM_CONFIGS, overrides)
