"""Where a scan lies: a file, a folder of slices, or a part of either.

Three kinds of scan are more, or less, than a file. One series of a folder that holds several is
``folder#<SeriesInstanceUID>``; the frames of a DICOM file as a volume are ``file#frames``; one
image of a NumPy archive is ``set.npz#<array>:<row>``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from medaug.data.names import PICTURES, VOLUMES, ending_of

_SERIES = re.compile(r"(?P<place>.+)#(?P<part>[0-9.]{3,64})")
FRAMES = "frames"
_FRAMES = re.compile(rf"(?P<place>.+)#(?P<part>{FRAMES})")
_ROW = re.compile(r"(?P<place>.+\.npz)#(?P<part>[A-Za-z0-9_]+:\d+)")


def split_address(path: Path) -> tuple[Path, str | None]:
    """(what lies on the disk, which part of it), None for the whole.

    A file whose own name looks like an address is that file.
    """
    matches = (kind.fullmatch(path.name) for kind in (_ROW, _FRAMES, _SERIES))
    match = next(filter(None, matches), None)
    if match is None or os.path.lexists(path):
        return path, None
    return path.with_name(match["place"]), match["part"]


def array_row(part: str) -> tuple[str, int]:
    """``train_images:12`` -> (``train_images``, 12)."""
    name, _, row = part.rpartition(":")
    return name, int(row)


def of_series(folder: str, uid: str) -> str:
    return f"{folder}#{uid}"


def of_frames(file: str) -> str:
    return f"{file}#{FRAMES}"


def of_row(archive: str, array: str, row: int) -> str:
    return f"{archive}#{array}:{row}"


def is_two_dimensional(path: Path) -> bool:
    """Whether the address is that of a 2-D image, which is one row, and no volume.

    A file that is no volume by its name is one: DICOM may have any ending, or none.
    """
    place, part = split_address(path)
    if part is not None:
        return ":" in part
    ending = ending_of(place.name)
    return ending in PICTURES or (ending not in VOLUMES and not place.is_dir())
