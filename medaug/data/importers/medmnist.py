"""NumPy archives of small images: MedMNIST."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medaug.data.address import of_row
from medaug.data.files import BadFile, open_regular
from medaug.data.importers.base import Found, Look, Options
from medaug.data.importers.tree import Tree
from medaug.data.names import stem_of
from medaug.data.sandbox import Sandbox
from medaug.data.table import PUBLISHED, Row
from medaug.errors import UserError

_ARRAY = re.compile(r"(?P<part>train|val|test)_(?P<what>images|labels)")
_NAMES = {
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal, benign"),
}
"""https://github.com/MedMNIST/MedMNIST (info.py); the other sets keep their numbers."""
_MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class MedMnist:
    """``DIR/<set>.npz`` with ``train_images`` (N, H, W) or (N, H, W, 3), ``train_labels`` (N, 1),
    and the same of ``val`` and ``test``. Nothing in it names a patient."""

    name: str = "medmnist"

    def looks_like(self, tree: Tree) -> Look | None:
        archives = [name for name in _archives(tree) if _has_parts(tree.root / name)]
        return Look(0.9, f"{len(archives)} NumPy archive(s)") if archives else None

    def rows(self, tree: Tree, options: Options) -> Found:
        found = Found([])
        archives = _archives(tree)
        if len(archives) != 1:
            raise UserError(
                f"data.root: holds {len(archives)} .npz files; keep one set in a folder"
            )
        name = archives[0]
        with Sandbox(read_labels, workers=1) as sandbox:
            (outcome,) = sandbox.map([(tree.root / name,)])
        if outcome.reason is not None:
            raise UserError(f"{Path(name).name}: {outcome.reason}")
        words = _NAMES.get(re.sub(r"_\d+$", "", stem_of(name)))
        seen = set()
        for part, labels in sorted(outcome.facts["labels"].items(), key=_in_order):
            for row, label in enumerate(labels):
                said = words[label] if words and label < len(words) else str(label)
                seen.add(label)
                address = of_row(name, f"{part}_images", row)
                found.rows.append(Row((address,), said, f"{part}-{row}", part=part))
        found.classes = tuple(words[i] if words else str(i) for i in sorted(seen))
        found.alone = True
        found.notes.append(
            f"{Path(name).name}: nothing in it names a patient, so each of {len(found.rows)} "
            "images counts as one of its own; images of one person may be on both sides of a split"
        )
        return found


def _has_parts(path: Path) -> bool:
    """Whether an archive has arrays called like MedMNIST's, by its table of contents."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            return any(_ARRAY.fullmatch(stem_of(name)) for name in archive.namelist())
    except (BadFile, zipfile.BadZipFile, OSError, ValueError):
        return True  # a damaged one, which its reader says


def read_labels(path: Path) -> tuple[dict[str, Any], Sequence[np.ndarray]]:
    """The labels of each part, in a worker of the sandbox; nothing is unpickled."""
    labels: dict[str, list[int]] = {}
    with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
        for name in archive.files:
            match = _ARRAY.fullmatch(name)
            if match is None or match["what"] != "labels":
                continue
            array = archive[name]
            if array.nbytes > _MOST_BYTES:
                raise BadFile("its labels are larger than 64 MiB; is this the set?")
            if array.ndim == 2 and array.shape[1] > 1:
                raise BadFile(
                    "several labels an image; write scans.csv with one class for each of its images"
                )
            if array.dtype.kind not in "iub" or array.ndim not in (1, 2):
                raise BadFile("its labels are no whole numbers; export it again")
            labels[match["part"]] = [int(label) for label in array.ravel()]
    if not labels:
        raise BadFile("has no train_labels; want train_images and train_labels")
    return {"labels": labels}, ()


def _archives(tree: Tree) -> list[str]:
    return [name for name in tree.archives if "/" not in name]


def _in_order(item: tuple[str, list[int]]) -> int:
    return PUBLISHED.index(item[0])
