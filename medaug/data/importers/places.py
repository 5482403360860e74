"""One name in several places: one person, or two sites that number their people alike."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from medaug.data.address import split_address
from medaug.data.importers.folders import part_of, tells_no_place
from medaug.data.table import PUBLISHED, Row

_MOST = 4
_LEAKS = "the published split leaks"
_MIXED = "of several classes"


def about_places(rows: Sequence[Row], said: Iterable[str] = ()) -> list[str]:
    """What the paths of rows let one see of people who are taken for one: notes, but for what
    ``said`` has told already."""
    said = list(said)
    classes = {row.label for row in rows if row.label}
    by_person: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.patient or row.group:
            by_person[row.unit].append(row)
    several = {who: own for who, own in by_person.items() if len(own) > 1}
    notes = [*_in_places(several, classes)] or [*_at_sites(several)]
    leaking = sum(len({r.part for r in own} & {*PUBLISHED}) > 1 for own in several.values())
    if leaking and not any(_LEAKS in text for text in said):
        notes.append(
            f"{leaking} of {len(by_person)} patients are in more than one of the publisher's parts "
            f"(train, val, test): {_LEAKS}, or each part numbers its own people, which --patients "
            "(or a column patient) can say"
        )
    mixed = sum(len({r.label for r in own if r.label}) > 1 for own in several.values())
    if mixed and not any(_MIXED in text for text in said):
        notes.append(f"{mixed} patients have scans {_MIXED}: each counts in the last of them")
    return notes


def _in_places(several: dict[str, list[Row]], classes: set[str]) -> Iterator[str]:
    apart: dict[str, list[str]] = {}
    for who, own in several.items():
        told = {place for row in own if (place := _place(row, who, classes)) is not None}
        if len(told) > 1:
            apart[who] = sorted(told)
    if not apart:
        return
    who, places = next(iter(apart.items()))
    first, second = places[:2]
    yield (
        f"{len(apart)} names of patients stand in several places (in {_shown(first)} and "
        f"{_shown(second)}, for one) and count as one person each; if every place numbers its own "
        f"people, tell them apart with {told_apart([p for p in places if p], who)}"
    )


def _at_sites(several: dict[str, list[Row]]) -> Iterator[str]:
    sites_of = (sorted({row.site for row in own if row.site}) for own in several.values())
    apart = [sites for sites in sites_of if len(sites) > 1]
    if apart:
        yield (
            f"{len(apart)} patients are at several sites ({' and '.join(apart[0][:2])}, for one) "
            "and count as one person each; if every site numbers its own people, write the site "
            "before the patient's id"
        )


def told_apart(places: Sequence[str], who: str) -> str:
    """The option that takes people of one name in several places for different ones."""
    outer = {place.split("/")[0] for place in places}
    inner = {place.rpartition("/")[2] for place in places}
    named = sorted(outer if len(outer) == len({*places}) else inner)
    where = "|".join(map(re.escape, named)) if 1 < len(named) <= _MOST else "[^/]+"
    shape = re.sub(r"\d+", r"\\d+", re.escape(who)).replace(r"\-", "-").replace(r"\ ", " ")
    return f"--patients '({where}).*?({shape})'"


def _shown(place: str) -> str:
    return place or "the folder itself"


def _place(row: Row, who: str, classes: set[str]) -> str | None:
    """The folders above the one that is called like the patient, but for those that say a class, a
    part or how it was taken; None where nothing is called so."""
    parts = split_address(Path(row.files[0]))[0].parts
    name = who.casefold()
    at = next((i for i, part in enumerate(parts) if _begins(part.casefold(), name)), None)
    if at is None:
        return None
    kept = [p for p in parts[:at] if p not in classes and not part_of(p) and not tells_no_place(p)]
    return "/".join(kept)


def _begins(part: str, name: str) -> bool:
    return part.startswith(name) and not part[len(name) : len(name) + 1].isalnum()
