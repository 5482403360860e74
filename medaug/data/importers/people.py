"""Who is on a scan, as far as names say it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

_TIME = re.compile(
    r"(?P<who>.*?\d.*?)[ _.-]+(?:"
    r"(?:t|tp|time|timepoint|ses|session|visit|v|fu|followup|follow-up|exam|scan|day|week|month|"
    r"year|m|mo|wk)[ _-]?\d+[a-z]?|\d+[ _-]?(?:days?|weeks?|months?|mo|years?|yrs?)|"
    r"bl|baseline|screening|followup|follow-up|pre|post|pre-?op|post-?op|"
    r"left|right|l|r|od|os|lt|rt|(?:19|20)\d\d-?\d\d-?\d\d)",
    re.I,
)
_BRATS_2023 = re.compile(r"(?P<who>BraTS-[A-Za-z]+-\d{4,6})-\d{3}", re.I)
_COUNTER = re.compile(r"(?P<who>.*\d.*)[ _-]\d{1,3}|(?P<glued>.*\d)(?:[a-d]|v\d)", re.I)


def one_person_each(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Name of a scan or folder -> patient, and notes about it.

    Time points and sides (``H00_t1``, ``p7-ses-2``, ``p7_left``, ``BraTS-GLI-00005-101``) are one
    person where that joins names; other names stay what they are. A bare counter (``p7_1``,
    ``p7_2``) is asked about.
    """
    names = list(dict.fromkeys(names))
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
    notes = []
    if merged:
        people = len(set(patient_of.values()))
        notes.append(
            f"{merged} names end in a time point or a side and are taken for the same people: "
            f"{people} patients of {len(names)} names; if they are not, give the table a column "
            "patient"
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
    return patient_of, notes
