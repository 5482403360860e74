"""The examinations of a folder of volumes, by the names of its files and folders."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from medaug.data.importers.folders import is_examination, says_nothing
from medaug.data.importers.tree import Tree, parts_of, place_of
from medaug.data.masks import is_mask_folder, is_mask_word, masked_stem, of_anatomy
from medaug.data.names import stem_of

SEQUENCES = (
    *("flair", "t2f", "t1", "t1w", "t1n", "t1c", "t1ce", "t1gd", "t1post", "t2", "t2w"),
    *("dwi", "adc", "swi", "pd", "pdw", "ct", "cta", "pet", "bold", "asl", "mra"),
)
_SEPARATORS = "_-. "
_CHANNEL = re.compile(r"000\d")
"""nnU-Net's."""


@dataclass
class Case:
    """One examination: its sequences and masks."""

    name: str
    place: str
    """The folders above the one that is called so, or above its files."""
    exam: str = ""
    """The folder that tells one person's examinations apart."""
    sequences: dict[str, str] = field(default_factory=dict)
    """Lower-case name -> file."""
    masks: list[str] = field(default_factory=list)
    mask_is_of: dict[str, str] = field(default_factory=dict)
    """Mask -> what its name says before the word for a mask: a sequence, perhaps."""
    own_folder: bool = False
    """Whether its folder holds nobody else's files."""

    def masks_of(self, read: Collection[str]) -> tuple[str, ...]:
        """The masks, but those that are called after a sequence that is not read."""
        others = {name for name in self.sequences if name not in read}
        return tuple(mask for mask in self.masks if self.mask_is_of.get(mask) not in others)

    @property
    def key(self) -> tuple[str, str]:
        return f"{self.place}/{self.exam}", self.name


def cases_of(tree: Tree, listed: Collection[str] = ()) -> list[Case]:
    """The examinations of a folder of volumes, by name. ``listed``: folders that a table names,
    where nothing else says whose a file is."""
    by_folder: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in tree.volumes:
        by_folder[parts_of(name)].append(name)
    repeated = _Repeated.of(by_folder)
    cases: dict[tuple[str, str], Case] = {}
    for folder, names in sorted(by_folder.items()):
        for name, (case, what) in _told(folder, names, repeated, listed).items():
            _put(cases.setdefault(case.key, case), what, name)
    kept = (case for case in cases.values() if case.sequences)
    return sorted(kept, key=lambda case: (case.name, case.place, case.exam))


@dataclass(frozen=True)
class _Repeated:
    """What stands in many folders alike, and so is nobody's name."""

    stems: Mapping[str, int]
    """Stem of a file -> number of folders that hold one."""
    parents: Mapping[str, int]
    """Name of a folder -> number of folders that hold one."""
    children: Mapping[tuple[str, ...], int]
    """Folder -> number of folders in it."""

    @staticmethod
    def of(by_folder: Mapping[tuple[str, ...], Sequence[str]]) -> _Repeated:
        stems: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        parents: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        children: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for folder, names in by_folder.items():
            for name in names:
                stems[stem_of(name)].add(folder)
            for depth, part in enumerate(folder):
                parents[part].add(folder[:depth])
                children[folder[:depth]].add(part)
        return _Repeated(
            {name: len(found) for name, found in stems.items()},
            {name: len(found) for name, found in parents.items()},
            {folder: len(found) for folder, found in children.items()},
        )

    def is_bare(self, names: Sequence[str]) -> bool:
        """Whether files are called like those of every other folder: ``T1``, ``brain``, ``seg``."""
        stems = [stem_of(name) for name in names]
        return all(
            _is_sequence(stem) or (self.stems[stem] > len(stems) and any(map(str.isalpha, stem)))
            for stem in stems
        )

    def is_exam(self, folder: tuple[str, ...]) -> bool:
        """Whether more folders hold one of this name than this one holds others: ``scanA``."""
        return self.parents[folder[-1]] > max(1, self.children[folder[:-1]])


def _told(
    folder: tuple[str, ...], names: list[str], repeated: _Repeated, listed: Collection[str]
) -> dict[str, tuple[Case, str]]:
    """File -> whose it is, and what is on it: by the folder that its name begins with, by the
    folder of files that are called alike everywhere, by a table; else each speaks for itself."""
    stems = {name: stem_of(name) for name in names}
    for at in reversed(range(len(folder))):
        who = _begun(folder[at], [*stems.values()], innermost=at == len(folder) - 1)
        if who is not None:
            return _below(folder, at, who, stems)
    sequence = bool(folder) and _is_sequence(folder[-1])
    if sequence and sum(not is_mask_word(stem) for stem in stems.values()) > 1:  # T1/P001
        place = "/".join(folder[:-1])
        return {n: (Case(stem, place), folder[-1]) for n, stem in stems.items()}
    if sequence or repeated.is_bare(names):
        depths = reversed(range(len(folder)))
        at = next((i for i in depths if not _is_nobody(folder[: i + 1], repeated)), -1)
        if at >= 0:
            return _below(folder, at, folder[at], stems)
    at = next((i for i in reversed(range(len(folder))) if folder[i] in listed), -1)
    if at >= 0:
        return _below(folder, at, folder[at], stems, own=False)
    first = [stem for stem in stems.values() if stem.endswith("_0000")]
    return {name: _alone(name, stem, channels=len(first) > 1) for name, stem in stems.items()}


def _below(
    folder: tuple[str, ...], at: int, who: str, stems: Mapping[str, str], *, own: bool = True
) -> dict[str, tuple[Case, str]]:
    """All files below the folder number ``at`` of a path are of one person."""
    between = folder[at + 1 :]
    exam = "/".join(part for part in between if not (_is_sequence(part) or says_nothing(part)))
    if not any(map(is_examination, between)) and any(s.startswith(who) for s in stems.values()):
        exam = ""  # RAW, PROCESSED: sequences of one examination
    told = {}
    for name, stem in stems.items():
        what, number = _without_number(_what(stem, who, between))
        one = "/".join(filter(None, (exam, number)))
        told[name] = (Case(who, "/".join(folder[:at]), one, own_folder=own), what)
    return told


def _without_number(what: str) -> tuple[str, str]:
    """(``t2w``, ``1000000``) of ``1000000_t2w``: an examination's own number."""
    match = re.fullmatch(r"(\d+)[_. -]+([A-Za-z]\w*)", what)
    known = match is not None and _is_sequence(match[2])
    return (match[2], match[1]) if match and known else (what, "")


def _what(stem: str, who: str, between: Sequence[str]) -> str:
    """The sequence, or a word for a mask: what a name says after the person's and the
    examination's, or the folder."""
    rest = _after(who, stem) or stem
    for part in between:
        rest = _after(part, rest) or rest
    if between and not (is_mask_word(rest) or _is_sequence(rest)):
        if is_mask_folder(between[-1]):
            return "seg"
        return next((part for part in reversed(between) if _is_sequence(part)), rest)
    return rest


def _put(case: Case, what: str, name: str) -> None:
    if of_anatomy(name) is not None:
        return
    if is_mask_word(what):
        case.masks.append(name)
        case.mask_is_of[name] = (masked_stem(what) or ("",))[0].casefold()
        return
    known = what.casefold()
    if known in case.sequences and (folder := parts_of(name)[-1:]):
        known = f"{folder[0].casefold()}_{known}"
    case.sequences.setdefault(known, name)


def _begun(folder: str, stems: Sequence[str], *, innermost: bool) -> str | None:
    """The name that a folder and all files in it begin with; None where there is none. The folder
    may say more (``P001_nifti``)."""
    shorter = re.split(r"(?=[_. -])", folder)
    tries = ["".join(shorter[:n]) for n in range(len(shorter), 0, -1)][: 3 if innermost else 1]
    for name in tries:
        numbered = any(map(str.isdigit, name))
        if says_nothing(folder) or not (numbered or (innermost and name == folder)):
            continue
        ends = [_after(name, stem) for stem in stems]
        if any(end is None for end in ends):
            continue
        firsts = {re.split(r"[_. -]", end or "")[0] for end in ends}
        if not numbered and len(firsts) > 1 and all(map(_counts, firsts)):
            continue  # HGG/HGG_1, HGG/HGG_2: a class and its people
        return name
    return None


def _counts(word: str) -> bool:
    return any(map(str.isdigit, word)) and not _is_sequence(word)


def _after(own: str, stem: str) -> str | None:
    """What follows the folder's name in a file's; None where the file is not named after it."""
    if not own or not stem.casefold().startswith(own.casefold()):
        return None
    rest = stem[len(own) :]
    if rest and rest[0] not in _SEPARATORS:
        return None
    return rest.lstrip(_SEPARATORS) or "image"


def _is_nobody(folder: tuple[str, ...], repeated: _Repeated) -> bool:
    name = folder[-1]
    known = says_nothing(name) or is_examination(name) or _is_sequence(name)
    return known or (len(folder) > 1 and repeated.is_exam(folder))


def _is_sequence(stem: str) -> bool:
    return stem.casefold() in SEQUENCES or is_mask_word(stem)


def _alone(name: str, stem: str, *, channels: bool) -> tuple[Case, str]:
    """Of a file that lies beside those of others; ``channels``: several of them end in nnU-Net's
    ``_0000`` (one alone may be a number, as ``study_0000``)."""
    place = place_of(name)
    if any(map(is_mask_folder, parts_of(name))):
        return Case(stem, place), "seg"
    mask = masked_stem(stem)
    if mask and mask[0]:
        return Case(mask[0], place), "seg"
    match = re.fullmatch(r"(.+)[ _.-]([A-Za-z0-9]+)", stem)
    if match and (match[2].casefold() in SEQUENCES or (channels and _CHANNEL.fullmatch(match[2]))):
        return Case(match[1], place), match[2]
    return Case(stem, place), "image"
