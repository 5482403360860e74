"""What a file's name says of its kind."""

from __future__ import annotations

import re

from medaug.data.formats import PACKED, UNREAD_PICTURES, UNREAD_VOLUMES

PICTURES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .tif .tiff .bmp .dib .webp .gif .ppm .pgm .jp2 .j2k".split()
) | frozenset(UNREAD_PICTURES)
"""Endings of 2-D images, also of those that no reader here takes: it then says why."""
VOLUMES = frozenset({".nii", ".nii.gz", ".hdr"}) | frozenset(UNREAD_VOLUMES)
SLICES = frozenset([".dcm", ".ima", ".dicom", ".dic"])
TABLES = frozenset([".csv", ".tsv"])
ARCHIVES = frozenset({".npz"})
SPREADSHEETS = frozenset([".xlsx", ".xls", ".ods", ".numbers"])
SYSTEM = frozenset(["thumbs.db", "desktop.ini", "ehthumbs.db", "icon"])
SYSTEM_FOLDERS = frozenset(
    {"__macosx", "$recycle.bin", "@eadir", "lost+found", "#recycle", "@recycle", "#snapshot"}
    | {"system volume information", "__pycache__"}
)
PREDICTIONS = frozenset("pred preds prediction predictions output outputs result results".split())
"""Folders of what a program made; as those of a whole set they may hold its images."""
DRAWN = frozenset(
    (
        "pred preds prediction predictions overlay overlays heatmap heatmaps gradcam visualization "
        "visualizations visualisation visualisations thumbnail thumbnails preview previews"
    ).split()
)
"""Folders whose images were made of others."""
PART_WORDS = {
    **dict.fromkeys(("train", "training", "traindata", "trainingdata", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "valset", "devset"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "heldout", "holdout"), "test"),
    **dict.fromkeys(("eval", "evaluation"), "test"),
    "external": "external",
}
"""What publishers call their parts."""
JOIN = ";"
"""Between the files of one scan in a table: no name may hold it."""


def ending_of(name: str) -> str:
    """``.nii.gz`` of ``a.nii.gz``, ``.png`` of ``b.PNG``: lower case, empty where there is none."""
    stem, dot, last = name.rpartition("/")[2].lstrip(".").lower().rpartition(".")
    if not (stem and dot and last):
        return ""
    before, dot, kind = stem.rpartition(".")
    return f".{kind}.{last}" if last in PACKED and before and dot else f".{last}"


def stem_of(name: str) -> str:
    """The name without its folder and ending."""
    base = name.rpartition("/")[2]
    return base[: len(base) - len(ending_of(base))] or base


def is_hidden(name: str) -> bool:
    """Whether a file or folder is the system's, not the user's."""
    low = name.casefold()
    return name.startswith(".") or low in SYSTEM or low in SYSTEM_FOLDERS


_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def words_of(name: str) -> list[str]:
    """``left``, ``mask`` of ``leftMask``; ``cxr``, ``png`` of ``CXR_png``."""
    return [word.casefold() for word in _WORDS.findall(name)]
