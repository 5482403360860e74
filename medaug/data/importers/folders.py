"""What folder names say: a part of the publisher's, a class, a patient, or nothing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from medaug.data.canonical import is_blank
from medaug.data.masks import is_mask_folder
from medaug.data.names import DRAWN, PART_WORDS, PREDICTIONS, words_of

_ABOUT_PARTS = frozenset(
    (
        "data dataset set images image imgs input inputs folder split part task stage group "
        "groundtruth gt isic brats bra ts miccai challenge final release chest xray ct mri "
        "scans slices png jpg v "
    ).split()
)
_NEUTRAL = frozenset(
    (
        "image images img imgs pic pics picture pictures photo photos png jpg jpeg tif tiff bmp "
        "webp dicom dcm nifti nii niigz data dataset datasets database raw input inputs slice "
        "slices scan scans volume volumes all allimages imagesall sample samples original "
        "originals preprocessed processed resized cropped archive download downloads unzipped "
        "files frames imagestr imagests source src derivatives anat brain patientsct "
    ).split()
)
_NEUTRAL_LIKE = re.compile(
    r".*[_ -]?(images?|imgs?|data|files)?[_ -]?part[_ -]?\d+|images?[_ -]\d+|fold[_ -]?\d+|"
    r"split[_ -]?\d+|batch[_ -]?\d+|.*[_ -](images?|imgs?|data|dataset|slices)|"
    r".*image[_ -]?sets?|v\d+(\.\d+)*|"
    r"(part|set|subset|dataset|chunk|shard|disk|disc|tranche|cohort|session|release|wave|site|"
    r"cent(?:er|re)|hospital|clinic|scanner|device)[_ -]?(\d+|[a-z])",
    re.I,
)
_NEUTRAL_WORDS = frozenset(
    (
        "images image img imgs pictures photos jpeg jpg png tif tiff bmp dicom dcm nifti data "
        "dataset datasets database set sets master main raw resized cropped processed "
        "preprocessed original originals labeled labelled new final copy all my full version "
        "folder files collection archive cxr v scans slices frames"
    ).split()
)
_PERSON = re.compile(r"(patient|subject|participant|person|case|sub|pat|subj)[ _-]?\d+", re.I)
_EXAM = (
    r"(?:study|series|exam|examination|visit|ses|scan|acq|acquisition|view|run|time|timepoint|tp|"
    r"day|week|month|year|slice|frame|volume|vol)[ _-]?\d+"
)
_OF_AN_EXAM = re.compile(rf"{_EXAM}[ _-]+(?P<said>[^\W\d_].*)", re.I)
_NO_CLASSES = re.compile(
    rf"{_PERSON.pattern}|(19|20)\d\d([_.-]?\d\d[_.-]?\d\d.*)?|"
    rf"\d\d[_.-]\d\d[_.-](19|20)\d\d.*|\d+(\.\d+){{4,}}|[0-9a-f]{{16,}}|"
    rf"{_EXAM}",
    re.I,
)
"""Folders that are all called so are people, years, days, DICOM's or other programs' identifiers,
or examinations."""
_EXAMINATION = re.compile(
    rf"{_EXAM}|(19|20)\d\d([_.-]?\d\d[_.-]?\d\d.*)?|baseline|screening|follow-?up[ _-]?\d*|"
    r"pre-?op|post-?op|(session|fu|m|v|mo)[ _-]?\d+",
    re.I,
)
_SITE = re.compile(
    r"(site|cent(?:er|re)|hospital|clinic|institut(?:e|ion)|cohort|scanner|device|set|dataset|batch)"
    r"[ _-]?(\d+|[a-z])",
    re.I,
)
_CLASS_WORDS = frozenset(
    (
        "normal normals abnormal healthy benign malignant control controls negative positive lgg "
        "hgg tumor tumour tumors cancer carcinoma glioma glioblastoma meningioma pituitary "
        "metastasis pneumonia covid covid19 covid-19 hemorrhage haemorrhage stroke ad mci cn hc "
        "diseased disease lesion yes no"
    ).split()
)
"""Words by which a folder is known for one of a class."""
_FEWEST_NUMBERED = 5
_NUMBERED = re.compile(r"[_-]\d{3,}$")
_POOL = re.compile(r"(un[ _-]?label?led|pool|no[ _-]?labels?)([ _-]?(images?|data))?", re.I)
_NO_CLASS = re.compile(r"unknown|na|n_a|none|unlabel?led|misc|miscellaneous|others?_unknown", re.I)
_VIEWS = frozenset(
    "left right axial coronal sagittal cc mlo ap pa lateral frontal l r od os pre post".split()
)
_MAGNIFICATION = re.compile(r"\d+\s*x", re.I)


def part_of(name: str) -> str | None:
    """``train``, ``val``, ``test``, ``external`` or ``pool``, where the name of a folder says so:
    ``train``, ``TrainingData``, ``MICCAI_BraTS2020_ValidationData``, ``stage_2_test_images``."""
    if _POOL.fullmatch(name):
        return "pool"
    if _NUMBERED.search(name):
        return None  # BraTS20_Training_001 is somebody
    words = words_of(name)
    parts = {PART_WORDS[word] for word in words if word in PART_WORDS}
    if len(parts) != 1 or {"positive", "negative", "pos", "neg"} & set(words):
        return None
    rest = [w for w in words if w not in PART_WORDS and w not in _ABOUT_PARTS and not w.isdecimal()]
    return parts.pop() if len(rest) <= 2 else None


def says_nothing(name: str) -> bool:
    """Whether a folder's name can be no class: images, data, part_1, masks, pred, train …"""
    plain = re.sub(r"[\s_.-]+", "", name).casefold()
    return (
        plain in _NEUTRAL
        or plain in PREDICTIONS | DRAWN
        or _NEUTRAL_LIKE.fullmatch(name) is not None
        or is_mask_folder(name)
        or part_of(name) is not None
        or _of_neutral_words(name)
    )


def _of_neutral_words(name: str) -> bool:
    """``JPEGImages``, ``dataset2-master``, ``Images-processed``, ``CXR_png``."""
    words = [word for word in words_of(name) if not word.isdecimal()]
    return len(words) > 1 and _NEUTRAL_WORDS.issuperset(words)


def class_said(folder: str) -> str:
    """The class that a folder is called by: ``positive`` of MURA's ``study2_positive``."""
    match = _OF_AN_EXAM.fullmatch(folder)
    return match["said"] if match else folder


def tells_no_place(name: str) -> bool:
    """Whether a folder says how a scan was taken or kept, and not where: a view, a magnification,
    an examination, a part of an archive."""
    return (
        name.casefold() in _VIEWS
        or _MAGNIFICATION.fullmatch(name) is not None
        or (_EXAMINATION.fullmatch(name) is not None and not _SITE.fullmatch(name))
        or (says_nothing(name) and not _SITE.fullmatch(name))
    )


def is_examination(name: str) -> bool:
    """Whether a folder is called like one of several examinations of a person."""
    return _EXAMINATION.fullmatch(name) is not None


def names_no_class(name: str) -> bool:
    return _NO_CLASS.fullmatch(name) is not None or is_blank(name)


def telling(parts: Sequence[str], known: Collection[str] = ()) -> tuple[str, ...]:
    """The folders of a path that may be a class or a patient; ``known`` names are classes."""
    told = [part for part in parts if part in known or not says_nothing(part)]
    # An archive unpacked twice lies in a folder of its own name.
    return tuple(part for part, before in zip(told, ["", *told], strict=False) if part != before)


def part_in(parts: Iterable[str]) -> str | None:
    """What the folders of a path say of the part; the innermost counts."""
    said = [part for name in parts if (part := part_of(name)) is not None]
    return said[-1] if said else None


def part_in_title(title: str) -> str | None:
    """What the name of a table says of the part whose scans it lists, however much else it says."""
    parts = {PART_WORDS[word] for word in words_of(title) if word in PART_WORDS}
    return parts.pop() if len(parts) == 1 else None


def person_in(parts: Iterable[str]) -> str | None:
    """The outermost folder of a path that is called like a person: ``patient00012``."""
    return next((part for part in parts if _PERSON.fullmatch(part)), None)


def class_level(paths: Collection[tuple[str, ...]], known: Collection[str] = ()) -> int | None:
    """Which of the telling folders of each path is the class; None where none can be.

    The outermost that tells scans apart, unless it looks like patients (names with numbers) and
    the one below repeats the same few words in each: ``8863/0/x.png`` against ``benign/40X/x.png``.
    """
    depth = max((len(path) for path in paths), default=0)
    viewed = False
    if known:
        hits: list[int] = [sum(len(p) > i and p[i] in known for p in paths) for i in range(depth)]
        return max(range(depth), key=lambda i: (hits[i], -i)) if any(hits) else None
    for level in range(depth):
        names = {path[level] for path in paths if len(path) > level}
        if len(names) < 2:
            continue
        if level + 1 < depth and _are_patients(names) and _repeats(paths, level):
            continue
        told = {name.casefold() for name in names}
        if told <= _VIEWS:
            viewed = True
            continue
        if (below := _said_below(paths, level)) is not None:
            return below
        nobodys = all(map(_NO_CLASSES.fullmatch, told)) or _numbered(told)
        return None if nobodys else level
    return 0 if depth and not viewed else None


def _said_below(paths: Collection[tuple[str, ...]], level: int) -> int | None:
    """A level whose names are words for classes and stand again in several folders of ``level``,
    whose own are none: ``Utrecht/benign``, ``Amsterdam/benign``."""
    if _words_of_classes({path[level] for path in paths if len(path) > level}):
        return None
    for at in range(level + 1, max(map(len, paths))):
        above: dict[str, set[str]] = defaultdict(set)
        for path in paths:
            if len(path) > at:
                above[path[at]].add(path[level])
        if len(above) > 1 and _words_of_classes(above) and max(map(len, above.values())) > 1:
            return at
    return None


def _words_of_classes(names: Collection[str]) -> bool:
    return any(not _CLASS_WORDS.isdisjoint(re.findall(r"[a-z0-9]+", n.casefold())) for n in names)


def _numbered(names: Collection[str]) -> bool:
    """Whether names differ by a number of three digits or more alone: ``000_S_1000``, ``p10023``.
    Such a number counts people or scans, no classes."""
    digits = [re.findall(r"\d+", name) for name in names]
    return (
        len(names) >= _FEWEST_NUMBERED
        and len({re.sub(r"\d+", "#", name) for name in names}) == 1
        and any(len(set(n)) > 1 and max(map(len, n)) >= 3 for n in zip(*digits, strict=True))
    )


def are_patients(folders: Collection[str]) -> bool:
    """Whether the folders below classes look like people: every name has a number."""
    return len(folders) > 1 and all(
        any(map(str.isdigit, name)) and not _MAGNIFICATION.fullmatch(name) for name in folders
    )


def _are_patients(names: Collection[str]) -> bool:
    if not are_patients(names):
        return False
    small = {int(name) for name in names if name.isdecimal()}
    return small != set(range(len(names)))  # 0, 1, 2 are classes


def _repeats(paths: Collection[tuple[str, ...]], level: int) -> bool:
    below: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        if len(path) > level + 1:
            below[path[level]].add(path[level + 1])
    every = set().union(*below.values()) if below else set()
    return (
        2 <= len(every) <= 20
        and not {name.casefold() for name in every} <= _VIEWS
        and not any(map(_MAGNIFICATION.fullmatch, every))
        and sum(map(len, below.values())) > len(every)
    )
