"""Where a scan lies: a file, a folder of slices, or a part of either.

Two kinds of scan have no file of their own. One series of a folder that holds several is
``folder#<SeriesInstanceUID>``; one image of a NumPy archive is ``set.npz#<array>:<row>``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from medaug.data.names import PICTURES, SLICES, ending_of

_SERIES = re.compile(r"(?P<place>.+)#(?P<part>[0-9.]{3,64})")
_ROW = re.compile(r"(?P<place>.+\.npz)#(?P<part>[A-Za-z0-9_]+:\d+)")


def split_address(path: Path) -> tuple[Path, str | None]:
    """(what lies on the disk, which part of it), None for the whole.

    A file whose own name looks like an address is that file.
    """
    match = _ROW.fullmatch(path.name) or _SERIES.fullmatch(path.name)
    if match is None or os.path.lexists(path):
        return path, None
    return path.with_name(match["place"]), match["part"]


def array_row(part: str) -> tuple[str, int]:
    """``train_images:12`` -> (``train_images``, 12)."""
    name, _, row = part.rpartition(":")
    return name, int(row)


def of_series(folder: str, uid: str) -> str:
    return f"{folder}#{uid}"


def of_row(archive: str, array: str, row: int) -> str:
    return f"{archive}#{array}:{row}"


def is_two_dimensional(path: Path) -> bool:
    """Whether the address is that of a 2-D image, which is one row, and no volume."""
    place, part = split_address(path)
    if part is not None and ":" in part:
        return True
    return ending_of(place.name) in PICTURES or (
        ending_of(place.name) in SLICES and not place.is_dir()
    )
