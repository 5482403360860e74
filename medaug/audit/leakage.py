"""Copies between patients, as a scan of the slices has found them.

A split by patient is worth nothing where two patients are one: the same scan under two names, or an
image that was taken over from another set. Such pairs are named under their pseudonyms; what to do
about them is the user's to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from medaug.errors import IntegrityError
from medaug.storage.json_files import REMEDY, read_json

RECIPE = 2
"""Raise when the same slices give another report: older ones are then made again."""
FILE = "leakage.json"


@dataclass(frozen=True)
class Image:
    """A slice, or an image of its own."""

    patient: str
    """Pseudonym."""
    slice: int


@dataclass(frozen=True)
class Leak:
    """Two images of different patients that are one."""

    a: Image
    b: Image
    kind: Literal["exact", "near"]
    similarity: float
    folds: tuple[int, ...]
    """Folds in which the two play different roles, one of them perhaps in the sealed test set."""


@dataclass(frozen=True)
class Leakage:
    """What the scan of a slice store has found."""

    store: str
    rows: int
    scanned: int
    """How many of the rows were compared with each other."""
    sealed: int
    """How many of these belong to the sealed test set: their pixels were seen, nothing else."""
    leaks: tuple[Leak, ...]

    @property
    def folds(self) -> tuple[int, ...]:
        """Folds across whose parts something leaks."""
        return tuple(sorted({fold for leak in self.leaks for fold in leak.folds}))

    def summary(self) -> str:
        """One line for people."""
        seen = f"{self.scanned:,} images"
        if self.scanned < self.rows:
            seen = f"{self.scanned:,} of {self.rows:,} images"
        if self.sealed:
            seen += f", {self.sealed:,} of them sealed"
        if not self.leaks:
            return f"leakage scan: no copies between different patients ({seen})"
        n = len(self.leaks)
        folds = ", ".join(map(str, self.folds))
        where = f"across splits in fold{'s' * (len(self.folds) > 1)} {folds}"
        return (
            f"leakage scan: {n} near-cop{'y' if n == 1 else 'ies'} between different patients"
            f" ({seen}), {where if folds else 'none of them across a split'}"
        )

    def to_json(self) -> dict[str, Any]:
        return {"recipe": RECIPE, **asdict(self), "folds": list(self.folds)}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Leakage:
        leaks = tuple(
            Leak(
                Image(**leak["a"]),
                Image(**leak["b"]),
                leak["kind"],
                leak["similarity"],
                tuple(leak["folds"]),
            )
            for leak in body["leaks"]
        )
        return Leakage(body["store"], body["rows"], body["scanned"], body["sealed"], leaks)


def leakage_of(folder: Path) -> Leakage | None:
    """What the scan found in the slices of the run in ``folder``; None before any scan.

    Raises:
        IntegrityError: its file does not say it any more.
    """
    return _read(folder / FILE)


def read_leakage(path: Path) -> Leakage | None:
    """What was written to ``path``; None without a file, or where a new scan has to be made."""
    try:
        return _read(path)
    except IntegrityError:
        return None


def _read(path: Path) -> Leakage | None:
    if (body := read_json(path)) is None or body.get("recipe") != RECIPE:
        return None
    try:
        return Leakage.from_json(body)
    except (KeyError, TypeError):
        raise IntegrityError(f"{path}: holds no leakage report; {REMEDY}") from None
