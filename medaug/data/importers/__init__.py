"""Importers: one object for each kind of folder, each of which lists a folder's scans as rows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medaug.data.formats import UNREAD
from medaug.data.importers.base import Found, Importer, Look, Options, account
from medaug.data.importers.bids import Bids
from medaug.data.importers.brats import Brats
from medaug.data.importers.class_folders import ClassFolders
from medaug.data.importers.csv_images import CsvImages
from medaug.data.importers.dicom_series import DicomSeries
from medaug.data.importers.folders import says_nothing
from medaug.data.importers.medmnist import MedMnist
from medaug.data.importers.monai import MonaiList
from medaug.data.importers.naming import file_aliases, sheets_of
from medaug.data.importers.near import nearly_named
from medaug.data.importers.nnunet import NnUnet
from medaug.data.importers.published import CtIch, HeadCt, ImageList
from medaug.data.importers.table import OwnTable
from medaug.data.importers.tree import HIDDEN, Tree, parts_of
from medaug.data.importers.within import placed
from medaug.data.names import ARCHIVES, SPREADSHEETS, ending_of, stem_of
from medaug.errors import UserError
from medaug.spec.plugins import IMPORTERS as GROUP
from medaug.spec.plugins import Extended

__all__ = [
    "IMPORTERS",
    "Found",
    "Importer",
    "Look",
    "Options",
    "Tree",
    "account",
    "hints",
    "recognise",
]

OWN: Mapping[str, Importer] = {
    "bids": Bids(),
    "brats": Brats(),
    "class_folders": ClassFolders(),
    "csv_images": CsvImages(),
    "ct_ich": CtIch(),
    "dicom_series": DicomSeries(),
    "head_ct": HeadCt(),
    "image_list": ImageList(),
    "medmnist": MedMnist(),
    "monai_datalist": MonaiList(),
    "nnunet": NnUnet(),
    "table": OwnTable(),
}


def _importer(name: str, found: Any) -> Importer:
    """Of another package: an importer, or the class of one."""
    importer = found() if isinstance(found, type) else found
    if not isinstance(importer, Importer) or importer.name != name:
        raise TypeError(f"wants an importer (looks_like, rows) whose name is '{name}'")
    return importer


IMPORTERS: Mapping[str, Importer] = Extended(OWN, GROUP, _importer)
"""By name, those of installed packages included."""


def recognise(tree: Tree) -> tuple[Importer, Look]:
    """The importer that is surest of the folder, or of the one folder in it that is of its kind.

    Raises:
        UserError: none knows it; says what to supply.
    """
    looks = [found for i in IMPORTERS.values() if (found := placed(i, tree)) is not None]
    if not looks:
        raise UserError(
            f"{tree.root}: no known layout among its {tree.total} files; use class folders of "
            "patients (BraTS, DICOM) or of images, BIDS, nnU-Net, a MONAI data list, images with a "
            f"table, or scans.csv with the columns file,class[,patient][,mask]{hints(tree)}"
        )
    return max(looks, key=lambda pair: pair[1].confidence)


_LISTS = frozenset({".json", ".txt", ".xml"})
_ABOUT = re.compile(r"read[ _-]?me|licen[cs]e|changes|requirements", re.I)


def hints(tree: Tree) -> str:
    """What in the folder is of a kind that nobody here reads, and what would help."""
    told = []
    scans = [*tree.pictures, *tree.volumes]
    for kinds, advice in (
        (SPREADSHEETS, "save it as CSV"),
        (_LISTS if not tree.tables else (), "if it says classes, write them as CSV"),
        (ARCHIVES, "unpack it, or write its images as PNG or NIfTI with a table"),
        *_unread(tree),
    ):
        found = [name for name in tree.files if ending_of(name) in kinds]
        found = [name for name in found if not _ABOUT.match(name.rpartition("/")[2])]
        if found:
            more = f" and {len(found) - 1} like it" if len(found) > 1 else ""
            told.append(f"{found[0]}{more}: {advice}")
    odd = Counter(reason for reason in tree.noise.values() if reason != HIDDEN)
    if odd and not scans:
        reason, n = odd.most_common(1)[0]
        told.append(f"{n} files: {reason}")
    told += _classes_in_names({*scans} - tree.mask_files) if not tree.tables else []
    folders = {part for name in tree.pictures for part in parts_of(name) if says_nothing(part)}
    if folders and not tree.tables:
        told.append(f"folders called {', '.join(sorted(folders)[:5])} are no classes")
    problems: dict[str, str] = {}
    sheets = sheets_of(tree, file_aliases(scans), problems) if scans else []
    told += [problems[name] for name in sorted(problems)[:1]]
    near = None if sheets else nearly_named(tree, {stem_of(name) for name in scans})
    if near is not None:
        told.append(near)
    elif tree.tables and not sheets and not problems:
        told.append(f"{tree.tables[0]} has no column that names the files")
    return "".join(f"; {hint}" for hint in told)


def _classes_in_names(scans: Iterable[str]) -> list[str]:
    """What the ends of names seem to say: ``MCUCXR_0001_0.png``, ``CHNCXR_0400_1.png``."""
    ends = [re.fullmatch(r".*\d[_-](\d|[a-z]+)", stem_of(name), re.I) for name in scans]
    said = Counter(match[1] for match in ends if match)
    if not 2 <= len(said) <= 4 or said.total() < 0.9 * len(ends) or min(said.values()) < 4:
        return []
    return [
        f"file names end in {' or '.join(f'_{end}' for end in sorted(said))}: if that is the "
        "class, write it into a table (file,class)"
    ]


def _unread(tree: Tree) -> list[tuple[frozenset[str], str]]:
    """(endings, what such files are and what to do), for each kind that is in the folder."""
    endings: dict[str, set[str]] = defaultdict(set)
    for ending in {ending_of(name) for name in tree.files}:
        if ending in UNREAD:
            endings[UNREAD[ending]].add(ending)
    return [(frozenset(found), what) for what, found in sorted(endings.items())]


def import_folder(root: Path, options: Options, name: str | None = None) -> Found:
    """The rows of ``root`` by the importer called ``name``, or by the one that is surest."""
    tree = Tree.of(root)
    importer = IMPORTERS[name] if name else recognise(tree)[0]
    return account(tree, importer.rows(tree, options))
