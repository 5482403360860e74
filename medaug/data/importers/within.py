"""A folder of a known kind inside others, as downloads are wrapped: ``Task01/Task01/imagesTr``."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medaug.data.importers.base import Found, Importer, Look, Options
from medaug.data.importers.tree import Tree, folder_of
from medaug.data.names import ARCHIVES, ending_of
from medaug.errors import UserError

MARKERS = frozenset(
    (
        "dataset.json datalist.json dataset_0.json data_list.json participants.tsv "
        "dataset_description.json hemorrhage_diagnosis.csv labels.csv scans.csv"
    ).split()
)
"""Files that lie in the very folder that an importer knows; NumPy archives are so, too."""
ROOTED = frozenset(
    ("bids", "ct_ich", "head_ct", "image_list", "medmnist", "monai_datalist", "nnunet", "table")
)
"""Importers that look at names from the folder's root; the others look at any depth."""
_MOST = 64
"""Folders that are looked into."""
_SHARE = 0.5
"""Of all scans, what a folder has to hold to be the one that was meant."""


@dataclass(frozen=True)
class Within:
    """Another importer for the folder that ``folder`` below the root is. Tables that lie outside
    of it are read as if they lay in it."""

    inner: Importer
    folder: str

    @property
    def name(self) -> str:
        return self.inner.name

    def looks_like(self, tree: Tree) -> Look | None:
        return self.inner.looks_like(tree.below(self.folder))

    def rows(self, tree: Tree, options: Options) -> Found:
        try:
            found = self.inner.rows(tree.below(self.folder), options)
        except UserError as error:
            raise UserError(_UP.sub("", str(error))) from None
        return _moved(found, self.folder)


@dataclass(frozen=True)
class Several:
    """Several folders of one kind, of which a person has to name one."""

    inner: Importer
    folders: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.inner.name

    def looks_like(self, tree: Tree) -> Look | None:
        return self.inner.looks_like(tree.below(self.folders[0]))

    def rows(self, tree: Tree, options: Options) -> Found:
        named = ", ".join(self.folders[:5]) + ", …" * (len(self.folders) > 5)
        raise UserError(
            f"{tree.root}: holds {len(self.folders)} folders of the kind {self.name} ({named}); "
            "give one of them, or write scans.csv for all"
        )


def placed(importer: Importer, tree: Tree) -> tuple[Importer, Look] | None:
    """The importer for the folder that it knows: ``tree`` itself, or the one below that holds most
    of the scans; None where there is none. Where there are several, its rows say so."""
    if (look := importer.looks_like(tree)) is not None:
        return importer, look
    known: dict[str, Look] = {}
    for folder in _marked(tree) if importer.name in ROOTED else ():
        if any(lies_below(folder, other) for other in known):
            continue  # what a set keeps in a folder of its own
        if (look := importer.looks_like(tree.below(folder))) is not None:
            known[folder] = replace(look, reason=f"{folder}: {look.reason}")
    if not known or not _hold_most(tree, known):
        return None
    first = next(iter(known))
    if len(known) > 1:
        return Several(importer, tuple(known)), known[first]
    return Within(importer, first), known[first]


def lies_below(folder: str, other: str) -> bool:
    return folder.startswith(f"{other}/")


def _marked(tree: Tree) -> Iterator[str]:
    """Folders with a marker in them, the outermost first."""
    folders = {
        folder_of(name)
        for name in tree.files
        if name.rpartition("/")[2] in MARKERS or ending_of(name) in ARCHIVES
    }
    yield from sorted(folders - {""}, key=lambda folder: (folder.count("/"), folder))[:_MOST]


def _hold_most(tree: Tree, folders: Collection[str]) -> bool:
    kinds = (tree.pictures, tree.volumes, tree.dicom, tree.archives)
    scans = [name for kind in kinds for name in kind]
    inside = sum(any(lies_below(name, folder) for folder in folders) for name in scans)
    return inside >= _SHARE * len(scans)


_UP = re.compile(r"(\.\./)+")


def _moved(found: Found, folder: str) -> Found:
    """``found`` with the names that its files have outside of ``folder``."""

    def out(name: str) -> str:
        return posixpath.normpath(posixpath.join(folder, name))

    return replace(
        found,
        rows=[
            replace(row, files=tuple(map(out, row.files)), masks=tuple(map(out, row.masks)))
            for row in found.rows
        ],
        left_out={out(name): reason for name, reason in found.left_out.items()},
        tables=[out(name) for name in found.tables],
        used={out(name) for name in found.used},
        rejects=[replace(r, path=Path(out(r.path.as_posix()))) for r in found.rejects],
        lines_left={_UP.sub("", name): text for name, text in found.lines_left.items()},
        notes=[_UP.sub("", note) for note in found.notes],
    )
