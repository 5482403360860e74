"""The examinations of a folder of volumes, by the names of its files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from medaug.data.importers.folders import says_nothing
from medaug.data.importers.tree import Tree, folder_of
from medaug.data.masks import is_mask_word, masked_stem, outlines_an_organ
from medaug.data.names import stem_of

SEQUENCES = (
    *("flair", "t2f", "t1", "t1w", "t1n", "t1c", "t1ce", "t1gd", "t1post", "t2", "t2w"),
    *("dwi", "adc", "swi", "pd", "pdw", "ct", "cta", "pet", "bold", "asl", "mra"),
)


@dataclass
class Case:
    """One examination: its sequences and masks."""

    name: str
    place: str
    """Its folder, without its own name."""
    sequences: dict[str, str] = field(default_factory=dict)
    """Lower-case name -> file."""
    masks: list[str] = field(default_factory=list)
    own_folder: bool = False
    """Whether its folder holds nobody else's files."""

    @property
    def key(self) -> tuple[str, str]:
        return self.place, self.name


def cases_of(tree: Tree) -> list[Case]:
    """The examinations of a folder of volumes, by name."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for name in tree.volumes:
        by_folder[folder_of(name)].append(name)
    cases: list[Case] = []
    for folder, names in sorted(by_folder.items()):
        cases += _in_folder(folder, names)
    return sorted(cases, key=lambda case: (case.name, case.place))


def _in_folder(folder: str, names: list[str]) -> Iterable[Case]:
    place, _, own = folder.rpartition("/")
    ends = {name: _after(own, stem_of(name)) for name in names}
    bare = [_is_sequence(stem_of(name)) for name in names]
    if own and not says_nothing(own) and (all(e is not None for e in ends.values()) or all(bare)):
        case = Case(own, place, own_folder=True)
        for name in names:
            _put(case, ends[name] or stem_of(name), name)
        return [case] if case.sequences else []
    by_case: dict[str, Case] = {}
    for name in names:  # each file speaks for itself
        stem = stem_of(name)
        if outlines_an_organ(stem):
            continue
        mask = masked_stem(stem)
        who, what = (mask[0], "seg") if mask and mask[0] else _split(stem)
        _put(by_case.setdefault(who, Case(who, folder)), what, name)
    return [case for case in by_case.values() if case.sequences]


def _put(case: Case, what: str, name: str) -> None:
    if outlines_an_organ(stem_of(name)):
        return
    if is_mask_word(what):
        case.masks.append(name)
    else:
        case.sequences.setdefault(what.casefold(), name)


def _after(own: str, stem: str) -> str | None:
    """What follows the folder's name in a file's; None where the file is not named after it."""
    if not own or not stem.casefold().startswith(own.casefold()):
        return None
    rest = stem[len(own) :]
    if rest and rest[0] not in "_-. ":
        return None
    return rest.lstrip("_-. ") or "image"


def _is_sequence(stem: str) -> bool:
    return stem.casefold() in SEQUENCES or is_mask_word(stem)


def _split(stem: str) -> tuple[str, str]:
    """(case, sequence) of a file that lies beside those of others."""
    match = re.fullmatch(r"(.+)[ _.-]([A-Za-z0-9]+)", stem)
    if match and match[2].casefold() in SEQUENCES:
        return match[1], match[2]
    return stem, "image"
