"""Which files are masks, by the names that people give them. A mask is never an image."""

from __future__ import annotations

import re
from collections.abc import Collection

from medaug.data.names import ending_of, stem_of, words_of

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
_TISSUE = re.compile(
    r"(?:.*[_.-])?(?:fseg|pveseg|pve[_-]?\d|mixeltype|aseg|aparc\w*|wmparc|probseg|tissues?|"
    r"tissue[_-]?seg\w*|parc(?:ellation)?s?|superpixels?|"
    r"(?:gm|wm|csf|gr[ae]y[_-]?matter|white[_-]?matter|lungs?|heart|liver)[_.-]?"
    r"(?:masks?|segs?|segmentations?|prob|probseg|pve|map|label))(?:[_-]\d)?",
    re.I,
)
_TISSUE_FOLDER = re.compile(
    r"(?:fsl|fast|spm\d*|freesurfer|fs|fastsurfer|cat12|tissues?|anat|anatomy)[ _-]?"
    r"(?:segs?|segmentations?|labels?)",
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
TISSUE = "a segmentation of tissues, anatomy or superpixels, no tumour's mask"


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


def of_anatomy(file: str) -> str | None:
    """What a file outlines, where its name or a folder's says that it is the brain, the head, a
    field of view, tissues (FSL's ``fseg``, FreeSurfer's ``aseg``) or an organ; None elsewhere."""
    *folders, name = file.split("/")
    if _ORGAN.fullmatch(stem_of(name)) is not None:
        return ORGAN
    tissue = _TISSUE.fullmatch(stem_of(name)) or any(map(_TISSUE_FOLDER.fullmatch, folders))
    return TISSUE if tissue else None


def is_mask_folder(name: str) -> bool:
    return _plain(name) in FOLDERS | PERHAPS_FOLDERS or _says_masks(name)


def lies_in_masks(file: str, top: int, images: Collection[str] = ()) -> bool:
    """Whether a folder above ``file`` is one of masks, and none in it one of images. ``images``:
    names of folders that hold images, whatever they are called. The first ``top`` folders hold
    every file, and so are masks' only where their whole name says it."""
    parts = file.split("/")[:-1]
    for depth in reversed(range(len(parts))):
        part = parts[depth]
        if part.casefold() in _OF_IMAGES:
            return False
        if part not in images and is_mask_folder(part):
            return depth >= top or not _says_masks(part)
    return False


_OF_IMAGES = frozenset("images image img imgs imagestr imagests inputs".split())


def _says_masks(name: str) -> bool:
    """Whether a word of a folder's name says it: ``leftMask``, ``Disc_Cup_Masks``, ``IMD002_roi``,
    ``Part1_GroundTruth``."""
    words = words_of(name)
    if len(words) < 2 or not {"with", "without", "no", "non", "face"}.isdisjoint(words):
        return False
    numbered = any(map(str.isdecimal, words[:-1]))
    return (
        words[-1] in ("mask", "masks")
        or words[0] in ("masks", "annotation", "annotations")
        or words[-2:] == ["ground", "truth"]
        or (numbered and words[-1] in ("roi", "rois", "lesion", "lesions"))
    )


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
