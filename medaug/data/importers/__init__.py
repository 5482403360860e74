"""Importers: one object for each kind of folder, each of which lists a folder's scans as rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medaug.data.importers.base import Found, Importer, Look, Options, account
from medaug.data.importers.bids import Bids
from medaug.data.importers.brats import Brats
from medaug.data.importers.class_folders import ClassFolders
from medaug.data.importers.csv_images import CsvImages
from medaug.data.importers.dicom_series import DicomSeries
from medaug.data.importers.lists import MonaiList, NnUnet
from medaug.data.importers.medmnist import MedMnist
from medaug.data.importers.published import CtIch, HeadCt, ImageList
from medaug.data.importers.table import OwnTable
from medaug.data.importers.tree import Tree
from medaug.errors import UserError

__all__ = ["IMPORTERS", "Found", "Importer", "Look", "Options", "Tree", "account", "recognise"]

IMPORTERS: Mapping[str, Importer] = {
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


def recognise(tree: Tree) -> tuple[Importer, Look]:
    """The importer that is surest of the folder.

    Raises:
        UserError: none knows it; says what to supply.
    """
    looks = [(look, i) for i in IMPORTERS.values() if (look := i.looks_like(tree)) is not None]
    if not looks:
        raise UserError(
            f"{tree.root}: no known layout among its {tree.total} files; use class folders of "
            "patients (BraTS, DICOM) or of images, BIDS, nnU-Net, a MONAI data list, images with a "
            "table, or scans.csv with the columns file,class[,patient][,mask]"
        )
    look, importer = max(looks, key=lambda pair: pair[0].confidence)
    return importer, look


def import_folder(root: Path, options: Options, name: str | None = None) -> Found:
    """The rows of ``root`` by the importer called ``name``, or by the one that is surest."""
    tree = Tree.of(root)
    importer = IMPORTERS[name] if name else recognise(tree)[0]
    return account(tree, importer.rows(tree, options))
