"""Which files are masks, by the names that people give them. A mask is never an image."""

from __future__ import annotations

import re
from collections.abc import Collection

from medaug.data.names import ending_of, stem_of

FOLDERS = frozenset(
    (
        "mask masks seg segs segmentation segmentations label labels labelstr labelsts gt gts "
        "groundtruth groundtruths annotation annotations tumormask "
        "tumourmask tumormasks tumourmasks maskimages truth contours "
    ).split()
)
"""Folders that hold masks, in lower case without separators; ``labels`` may also hold tables."""
PERHAPS_FOLDERS = frozenset(("lesion", "lesions", "roi", "rois"))
"""Folders that hold masks where these are called like images; else they may be classes."""

_SURE = (
    r"(?:tumou?r|lesion)?(?:masks?|segs?|segmentations?|segm)|gt|ground[_-]?truth|annotations?|"
    r"truth|dseg"
)
_PERHAPS = r"tumou?rs?|labels?|labelmap|lesions?|rois?|contours?|hge[_-]seg|anno|ot|manual"
_ORGAN = re.compile(
    r".*?(?<![a-z])(brain|skull|bet|hd[_-]?bet|parenchyma|head|face|body|background|fov|retina)"
    r"(?:[ _.-]?parenchyma)?[ _.-]?(?:mask|seg|segmentation|label)",
    re.I,
)
_GLUED = re.compile(r"(?P<stem>.+?)(?:masks?|segs?|segmentation)", re.I)
_END = re.compile(
    rf"(?P<stem>.*?)[ _.-]+((?:hge[_-])?(?:{_SURE})|(?P<weak>{_PERHAPS}))(?:[ _-]?\d+)?", re.I
)
_START = re.compile(rf"(?:(?:{_SURE})|(?P<weak>{_PERHAPS}))[ _.-]+(?P<stem>.+)", re.I)
_BARE = re.compile(rf"(?:{_SURE})(?:[ _-]?\d+)?", re.I)
_BARE_PERHAPS = re.compile(_PERHAPS, re.I)
ORGAN = "a mask of the whole brain, head or field of view, not of a tumour"


def masked_stem(stem: str) -> tuple[str, bool] | None:
    """(stem of the image that a mask called ``stem`` belongs to, whether the name alone is proof);
    None for a name that is no mask's. ``tumor``, ``label`` … are proof only beside that image."""
    if _BARE.fullmatch(stem):
        return "", True
    for pattern in (_END, _START):
        if match := pattern.fullmatch(stem):
            further = masked_stem(match["stem"])  # x_segmentation_mask
            sure = match["weak"] is None
            return (further[0], sure or further[1]) if further else (match["stem"], sure)
    return None


def glued_stem(stem: str) -> str | None:
    """``x0`` of ``x0mask``: proof only beside that image; None where no such word ends the name."""
    match = _GLUED.fullmatch(stem)
    return match["stem"] if match else None


def is_mask_word(word: str) -> bool:
    """Whether what follows a patient's name in a file's says that it is a mask."""
    return masked_stem(word) is not None or _BARE_PERHAPS.fullmatch(word) is not None


def outlines_an_organ(stem: str) -> bool:
    """Whether a mask's name says that it outlines the brain, head or field of view."""
    return _ORGAN.fullmatch(stem) is not None


def is_mask_folder(name: str) -> bool:
    return _plain(name) in FOLDERS | PERHAPS_FOLDERS


def may_be_class(name: str) -> bool:
    """Whether a folder of masks may as well be one of images of their own."""
    return _plain(name) in PERHAPS_FOLDERS


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "", name).casefold()


def names_a_mask(file: str, images: Collection[str]) -> bool:
    """Whether ``file`` is named as the mask of another of ``images``."""
    folder, _, name = file.rpartition("/")
    found = masked_stem(stem_of(name))
    if found is None or not found[0]:
        return False
    wanted = f"{folder}/{found[0]}" if folder else found[0]
    return any(f"{wanted}{ending}" in images for ending in {ending_of(name), ".png", ".jpg"})
