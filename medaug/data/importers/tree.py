"""A folder as importers see it: every name below it, no file opened but to learn its kind."""

from __future__ import annotations

import itertools
import os
import posixpath
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from medaug.data.dicom_told import is_dicom, told
from medaug.data.files import BadFile, check_name
from medaug.data.masks import (
    glued_stem,
    is_mask_folder,
    lies_in_masks,
    masked_stem,
    may_be_class,
    of_anatomy,
)
from medaug.data.names import (
    ARCHIVES,
    DRAWN,
    JOIN,
    PICTURES,
    SLICES,
    SYSTEM_FOLDERS,
    TABLES,
    VOLUMES,
    ending_of,
    is_hidden,
    stem_of,
)

HIDDEN = "hidden or of the operating system"
LINK = "a symbolic link; put the file itself there"
ANNEX = "a link of git-annex; fetch the file (datalad get), and unlock it (git annex unlock)"
JOINED = f"its path holds '{JOIN}', which joins the files of a scan in a table; rename it"
SPECIAL = "not a regular file; put the file itself there"
_HEADERS = {
    ".img": (".hdr",),
    **dict.fromkeys((".raw", ".zraw", ".raw.gz"), (".mhd", ".nhdr")),
    **dict.fromkeys((".brik", ".brik.gz"), (".head",)),
    ".rec": (".par",),
}
"""Ending of voxels -> those of what may describe them."""
_OF_IMAGES = frozenset(("image images img imgs imagestr imagests input inputs jpg png").split())
_KNOWN_TEXT = frozenset(
    ".txt .md .pdf .json .html .xml .xlsx .xls .doc .docx .yaml .yml .py .zip".split()
)


@dataclass(frozen=True)
class Tree:
    """Names relative to ``root``, with ``/``, in order."""

    root: Path
    files: tuple[str, ...]
    """Regular files that may be somebody's scan, mask or table."""
    noise: Mapping[str, str]
    """Everything else, and why it is nothing: hidden, links, impossible names."""

    @staticmethod
    def of(root: Path) -> Tree:
        """Walk ``root``; links are counted, not followed."""
        files: list[str] = []
        noise: dict[str, str] = {}
        _walk(root, "", False, files, noise)
        return Tree(root, tuple(sorted(files)), dict(sorted(noise.items())))

    @property
    def total(self) -> int:
        return len(self.files) + len(self.noise)

    def below(self, folder: str) -> Tree:
        """``folder`` as a tree of its own, with the tables outside of it under names like
        ``../labels.csv``."""
        if folder not in self._below:
            start = f"{folder}/"
            own = [name.removeprefix(start) for name in self.files if name.startswith(start)]
            own += [
                posixpath.relpath(name, folder)
                for name in self.files
                if not name.startswith(start) and ending_of(name) in TABLES
            ]
            noise = {n.removeprefix(start): w for n, w in self.noise.items() if n.startswith(start)}
            self._below[folder] = Tree(self.root / folder, tuple(sorted(own)), noise)
        return self._below[folder]

    @cached_property
    def _below(self) -> dict[str, Tree]:
        return {}

    def path(self, name: str) -> Path:
        """Where ``name`` lies, also if it lies outside."""
        return Path(os.path.normpath(self.root / name))

    def __contains__(self, name: str) -> bool:
        return name in self._set

    @cached_property
    def _set(self) -> frozenset[str]:
        return frozenset(self.files)

    @cached_property
    def pictures(self) -> tuple[str, ...]:
        alone = (n for n in self.files if ending_of(n) == ".img" and n not in self.header_of)
        lost = {name for name in alone if not is_dicom(self.root / name)}
        return tuple(sorted({*self._with(PICTURES), *lost}))

    @cached_property
    def header_of(self) -> Mapping[str, str]:
        """File of voxels -> the file beside it that describes them: ``.img`` -> ``.hdr``."""
        kinds = {header for headers in _HEADERS.values() for header in headers}
        headers = {
            (folder_of(name), stem_of(name).casefold(), ending_of(name)): name
            for name in self.files
            if ending_of(name) in kinds
        }
        if not headers:
            return {}
        found = {}
        for name in self.files:
            keys = (
                (folder_of(name), stem_of(name).casefold(), header)
                for header in _HEADERS.get(ending_of(name), ())
            )
            if (header := next((headers[k] for k in keys if k in headers), None)) is not None:
                found[name] = header
        return found

    @cached_property
    def volumes(self) -> tuple[str, ...]:
        return self._with(VOLUMES)

    @cached_property
    def tables(self) -> tuple[str, ...]:
        return self._with(TABLES)

    @cached_property
    def archives(self) -> tuple[str, ...]:
        return self._with(ARCHIVES)

    @cached_property
    def dicom(self) -> tuple[str, ...]:
        """DICOM files but those of :attr:`dicom_objects`."""
        return tuple(name for name in self._dicom if name not in self.dicom_objects)

    @cached_property
    def dicom_objects(self) -> Mapping[str, str]:
        """DICOM files that hold no image, and what they are."""
        said = {name: told(self.root / name).no_image for name in self._dicom}
        return {name: what for name, what in said.items() if what is not None}

    @cached_property
    def _dicom(self) -> tuple[str, ...]:
        """Files that are DICOM by their ending, or without one by their content."""
        known = PICTURES | VOLUMES | TABLES | ARCHIVES | _KNOWN_TEXT
        found = []
        for name in self.files:
            ending = ending_of(name)
            if PurePosixPath(name).name.upper() == "DICOMDIR":
                continue
            if ending in SLICES or (ending not in known and is_dicom(self.root / name)):
                found.append(name)
        return tuple(found)

    @cached_property
    def masks(self) -> Mapping[str, tuple[str, ...]]:
        """Picture or volume -> its masks; a key ``""`` holds those that belong to none."""
        return _paired((*self.pictures, *self.volumes), self.image_folders)

    @cached_property
    def image_folders(self) -> frozenset[str]:
        """Names of folders that are called like masks and hold images of their own: ``lesion``
        beside ``healthy``, where no file in it is called like an image elsewhere."""
        doubtful = [name for name in self.files if any(map(may_be_class, parts_of(name)))]
        if not doubtful:
            return frozenset()
        pictures = (*self.pictures, *self.volumes, *self.dicom)
        masks = {m for found in _paired(pictures).items() if found[0] for m in found[1]}
        inside: dict[str, list[bool]] = defaultdict(list)
        for name in {*doubtful} & {*pictures}:
            folder = next(part for part in parts_of(name) if may_be_class(part))
            inside[folder].append(name in masks)
        return frozenset(folder for folder, are_masks in inside.items() if not any(are_masks))

    @cached_property
    def mask_files(self) -> frozenset[str]:
        return frozenset(mask for masks in self.masks.values() for mask in masks)

    def _with(self, endings: frozenset[str]) -> tuple[str, ...]:
        found = [name for name in self.files if ending_of(name) in endings]
        kept = [name for name in found if not lies_in(name, DRAWN)]
        return tuple(kept or found)


def folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def parts_of(name: str) -> tuple[str, ...]:
    """The folders above a file."""
    return tuple(name.split("/")[:-1])


def lies_in(name: str, folders: Collection[str]) -> bool:
    """Whether a folder above the file is called so, in small letters."""
    return any(part.casefold() in folders for part in parts_of(name))


def _walk(folder: Path, prefix: str, hidden: bool, files: list[str], noise: dict[str, str]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                below = hidden or entry.name.casefold() in SYSTEM_FOLDERS or entry.name[0] == "."
                _walk(Path(entry.path), f"{name}/", below, files, noise)
            elif hidden or is_hidden(entry.name):
                noise[name] = HIDDEN
            elif entry.is_symlink():
                annexed = ".git/annex/" in os.readlink(entry.path)
                noise[name] = ANNEX if annexed else LINK
            elif not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                fifo = stat.S_ISFIFO(entry.stat(follow_symlinks=False).st_mode)
                noise[name] = f"{'a FIFO' if fifo else 'a device or socket'}, {SPECIAL}"
            elif JOIN in name:
                noise[name] = JOINED
            else:
                try:
                    check_name(Path(name))
                    files.append(name)
                except BadFile as error:
                    noise[name] = str(error)


def _paired(names: tuple[str, ...], images: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """Masks by the image they belong to: beside it under a name of their own (``x_mask.png``), or
    in a folder of masks under its name (``masks/x.png`` for ``images/x.jpg`` or ``x.jpg``).
    ``images``: names of folders that hold none."""
    by_key: dict[tuple[str, str], str] = {}
    by_stem: dict[str, list[str]] = defaultdict(list)
    doubtful: list[tuple[str, tuple[str, ...], bool, bool]] = []
    masks: dict[str, list[str]] = defaultdict(list)
    top = len(_shared(names))
    for name in names:
        own = stem_of(name).casefold()
        in_folder = lies_in_masks(name, top, images)
        found = masked_stem(own)
        if of_anatomy(name) is not None:
            masks[""].append(name)
        elif in_folder or found is not None:
            stem, sure = found or (own, False)
            doubtful.append((name, (stem or own, own), in_folder or sure, in_folder))
        else:
            by_key[place_of(name), own] = name
            by_stem[own].append(name)
            if (glued := glued_stem(own)) is not None:
                doubtful.append((name, (glued,), False, False))
    for name, stems, sure, in_folder in doubtful:
        image = next((by_key[k] for k in _keys(name, stems) if k in by_key), None)
        alone = by_stem.get(stems[0], [])
        elsewhere = len(alone) == 1 and not stems[0].isdecimal()  # as HAM10000's are
        if image is None and elsewhere and (in_folder or len(set(stems)) == 2):
            image = alone[0]
        if image is not None:
            masks[image].append(name)
        elif sure:
            masks[""].append(name)
    return {image: tuple(found) for image, found in masks.items()}


def _shared(names: Iterable[str]) -> tuple[str, ...]:
    """The outermost folders, as far as all files lie in them."""
    paths = [parts_of(name) for name in names]
    low, high = min(paths, default=()), max(paths, default=())
    same = (a == b for a, b in zip(low, high, strict=False))
    return low[: sum(itertools.takewhile(bool, same))]


def _keys(name: str, stems: Iterable[str]) -> Iterator[tuple[str, str]]:
    for stem in stems:
        yield place_of(name), stem
        yield folder_of(name), stem


def place_of(name: str) -> str:
    """The folders of a file but those that say whether it is an image or a mask."""
    kept = (
        part
        for part in parts_of(name)
        if not is_mask_folder(part) and part.casefold() not in _OF_IMAGES
    )
    return "/".join(kept)
