"""Who is on a scan, as far as names say it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

_TIME = re.compile(
    r"(?P<who>.*?\d.*?)[ _.-]+(?:"
    r"(?:t|tp|time|timepoint|ses|session|visit|v|fu|followup|follow-up|exam|scan|day|week|month|"
    r"year|m|mo|wk)[ _-]?\d+[a-z]?|\d+[ _-]?(?:days?|weeks?|months?|mo|years?|yrs?)|"
    r"bl|baseline|screening|followup|follow-up|pre|post|pre-?op|post-?op|"
    r"left|right|l|r|od|os|lt|rt|(?:slice|slc|frame|tile|patch)[ _-]?\d+|"
    r"(?:19|20)\d\d-?\d\d-?\d\d)",
    re.I,
)
_BRATS_2023 = re.compile(r"(?P<who>BraTS-[A-Za-z]+-\d{4,6})-\d{3}", re.I)
_CHANGED = (
    r"(?:rot(?:ate|ated|ation)?|flip(?:ped)?|[hv]flip|mirror(?:ed)?|aug(?:mented|mentation)?|"
    r"crop(?:ped)?|zoom(?:ed)?|shift(?:ed)?|translat(?:e|ed|ion)|shear(?:ed)?|scaled?|blur(?:red)?|"
    r"noisy?|gauss(?:ian)?|bright(?:ness|er)?|dark(?:er)?|contrast|gamma|jitter(?:ed)?|elastic|"
    r"distort(?:ed|ion)?|clahe|equali[sz]ed?|sharpen(?:ed)?|transposed?|horizontal|vertical|"
    r"downsampled|upsampled|resized?|thumb(?:nail)?|small|copy|duplicate|dup)"
)
_CHANGE = rf"{_CHANGED}(?:[ _.-]?-?\d+(?:\.\d+)?(?:deg|px)?)?"
_COPY = (
    re.compile(rf"(?P<who>.+?)(?:[ _.-]+{_CHANGE})+(?: ?\(\d+\))?", re.I),
    re.compile(rf"(?:{_CHANGE}[ _.-]+)+(?:of[ _.-]+)?(?P<who>.*\d.*)", re.I),
    re.compile(r"(?P<who>.+)\.rf\.[0-9a-z]{8,}", re.I),
)
"""``img_3_rot90``, ``aug_0_img3``, ``img3 - Copy``, Roboflow's ``img3_png.rf.0a1b…``."""
_COUNTER = re.compile(r"(?P<who>.*\d.*)[ _-]\d{1,3}|(?P<glued>.*\d)(?:[a-d]|v\d)", re.I)


def one_person_each(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Name of a scan or folder -> patient, and notes about it.

    Time points, sides and numbers of slices (``H00_t1``, ``p7-ses-2``, ``p7_left``,
    ``p7_slice_12``, ``BraTS-GLI-00005-101``) are one person where that joins names, and so are
    changed copies of a picture (``p7_rot90``); other names stay what they are. A bare counter
    (``p7_1``, ``p7_2``) is asked about.
    """
    every = list(dict.fromkeys(names))
    copy_of, notes = _copies(every)
    names = list(dict.fromkeys(copy_of.values()))
    patient_of = {name: name for name in names}
    joined: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if match := _BRATS_2023.fullmatch(name) or _TIME.fullmatch(name):
            joined[match["who"]].append(name)
    merged = 0
    for who, several in joined.items():
        if len(several) > 1 or who in patient_of:
            merged += len(several)
            patient_of |= dict.fromkeys(several, who)
        elif _BRATS_2023.fullmatch(several[0]):
            patient_of[several[0]] = who
    if merged:
        people = len(set(patient_of.values()))
        notes.append(
            f"{merged} names end in a time point, a side or the number of a slice and are taken "
            f"for the same people: {people} patients of {len(names)} names; if they are not, "
            "give the table a column patient"
        )
    counted = Counter(
        m["who"] or m["glued"]
        for name in set(patient_of.values())
        if (m := _COUNTER.fullmatch(name))
    )
    several_of = {who: n for who, n in counted.items() if n > 1}
    if len(several_of) > 1:
        notes.append(
            f"{sum(several_of.values())} names are {len(several_of)} names with a counter or a "
            "letter behind them: if it tells one person's scans apart, run init again with "
            r"--patients '(.+)[ _-]\d+' (or what fits your names), or scores leak"
        )
    return {name: patient_of[copy_of[name]] for name in every}, notes


def _copies(names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Name -> the name of what it was made of: names that say that they are changed copies, where
    the original or another copy of it is there."""
    made_of: dict[str, list[str]] = defaultdict(list)
    for name in names:
        match = next((m for kind in _COPY if (m := kind.fullmatch(name))), None)
        if match is not None:
            made_of[match["who"]].append(name)
    copy_of = {name: name for name in names}
    for who, several in made_of.items():
        if len(several) > 1 or who in copy_of:
            copy_of |= dict.fromkeys(several, who)
    n = sum(name != original for name, original in copy_of.items())
    if not n:
        return copy_of, []
    return copy_of, [
        f"{n} names say that they are changed copies of another picture (rotated, flipped, resized "
        "…) and are taken for the same people; leave them out, if they were made for training: "
        "scores would count one picture several times"
    ]
