"""Folders as people have them: what each of the inputs that were misread, and its neighbours, is.

Every builder writes a folder below ``root`` and says what is in it.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

LPS = np.diag([-1.0, -1.0, 2.0, 1.0])
Build = Callable[[Path], "Is"]


@dataclass(frozen=True)
class Is:
    """What a folder is; or, with ``refused``, what the refusal has to say."""

    scans: int = 0
    patients: int = 0
    classes: tuple[str, ...] = ()
    masks: int = 0
    pool: int = 0
    refused: str = ""
    says: tuple[str, ...] = ()
    """Expressions that lines of ``init`` match."""
    init_refuses: str = ""
    """What its refusal says, where names alone let nobody see that it cannot be used."""


def picture(path: Path, *seed: int | str, size: tuple[int, int] = (20, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise(str(path), *seed).integers(0, 255, size, np.uint8)
    Image.fromarray(pixels).save(path)


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((20, 20), np.uint8)
    pixels[5:12, 5:12] = 255
    Image.fromarray(pixels).save(path)


def volume(path: Path, *seed: int | str, labels: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    x = noise(str(path), *seed).integers(1, 1000, (12, 12, 4), dtype=np.int16)
    if labels:
        x = np.zeros_like(x)
        x[3:8, 3:8, 1:3] = 1
    nib.save(nib.Nifti1Image(x, LPS), path)


def noise(*seed: int | str) -> np.random.Generator:
    return np.random.default_rng(list("|".join(map(str, seed)).encode()))


def table(path: Path, header: str, rows: Iterable[Iterable[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(header.split(","))
        writer.writerows(rows)


def listed(root: Path, cells: Mapping[str, Callable[[int], object]], n: int = 12) -> None:
    """``scans.csv`` of ``n`` pictures, with further columns."""
    for i in range(n):
        picture(root / f"x/{i}.png")
    rows = [[f"x/{i}.png", *(of(i) for of in cells.values())] for i in range(n)]
    table(root / "scans.csv", ",".join(["file", *cells]), rows)


AB = ("benign", "malignant")


def ab(i: int) -> str:
    return AB[i % 2]
