"""What another tool has made, for the arm ``folder``: images in class folders or listed in a table,
read as the study's own; or one array of rows with their labels, read without unpickling anything.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medaug.data.address import is_two_dimensional
from medaug.data.cohort import Cohort, Reject, Scan
from medaug.data.files import BadFile, open_regular
from medaug.data.images import SUFFIXES
from medaug.data.layouts import read_cohort
from medaug.data.names import ending_of, is_hidden
from medaug.data.resize import fit_images
from medaug.errors import UserError
from medaug.spec.data import DataSpec
from medaug.spec.folder import FolderSpec
from medaug.spec.validation import nearest

GIVEN = "given"
"""The part of a cohort whose rows nobody scores and no split divides."""
ARRAYS = (".npy", ".npz", ".arrow", ".feather")
ROW_NAMES = ("x", "features", "images", "rows", "data")
LABEL_NAMES = ("label", "labels", "y", "class", "classes")
_READ = (*SUFFIXES, ".nii", ".nii.gz")
_SHOWN = re.compile(r"[\w .+-]{1,24}")
_DAMAGE = (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile)


def place_of(spec: FolderSpec, arm: str, place: Mapping[str, Any]) -> tuple[Path, Path | None]:
    """Where the rows for one fold, seed and training set lie, and their labels where these have a
    file of their own.

    Raises:
        UserError: nothing is there.
    """
    path, labels = spec.places(place)
    if (path / "fold0").exists():
        path /= f"fold{place['fold']}"
    if not path.exists():
        raise UserError(
            f"arms.{arm}.path: {path} is not there; make the rows of fold {place['fold']} first, "
            "or correct the path"
        )
    if path.suffix == ".npy" and labels is None:
        labels = path.with_name(f"{path.stem}_labels.npy")
    if labels is not None and not labels.is_file():
        raise UserError(f"arms.{arm}.labels: {labels} is not there; a .npy comes with its labels")
    return path, labels


def is_array(path: Path) -> bool:
    """Whether ``path`` is one array of rows, and no set of image files."""
    return path.suffix.lower() in ARRAYS and not path.is_dir()


def one_set_a_fold(spec: FolderSpec, place: Mapping[str, Any]) -> bool:
    """Whether every fold has rows of its own."""
    return "fold" in spec.varies or (spec.places(place)[0] / "fold0").exists()


def read_given(path: Path, arm: str, data: DataSpec) -> Cohort:
    """The image files at ``path`` with their classes; none of them is opened yet.

    Raises:
        UserError: a class is missing or unknown, or nothing is there to be read.
    """
    if path.is_dir():
        scans, rejects = _of_folders(path, arm, data)
    elif path.suffix.lower() == ".csv":
        scans, rejects = _of_table(path, arm, data)
    else:
        raise UserError(
            f"arms.{arm}.path: is neither a folder, a .csv nor one of {', '.join(ARRAYS)}; name one"
        )
    for label, name in enumerate(data.classes):
        if not any(scan.label == label for scan in scans):
            raise UserError(f"arms.{arm}.path: no image of class {name}; make some of every class")
    return Cohort(tuple(scans), data.classes, tuple(rejects), GIVEN)


def _of_folders(path: Path, arm: str, data: DataSpec) -> tuple[list[Scan], list[Reject]]:
    scans: list[Scan] = []
    rejects: list[Reject] = []
    for folder in sorted(path.iterdir()):
        if is_hidden(folder.name):
            continue
        if not folder.is_dir():
            rejects.append(Reject(folder, "lies in no class's folder; move it into one"))
            continue
        if folder.name not in data.label_of:
            shown = f"'{folder.name}'" if _SHOWN.fullmatch(folder.name) else "of this name"
            raise UserError(
                f"arms.{arm}.path: folder {shown} is no class of this study"
                f"{nearest(folder.name, data.label_of)}"
            )
        label = data.label_of[folder.name]
        for file in sorted(p for p in folder.rglob("*") if not p.is_dir()):
            if is_hidden(file.name):
                continue
            if ending_of(file.name) in _READ:
                scans.append(_scan(file, label, len(scans)))
            else:
                reason = f"is no image by its name; use {', '.join(_READ)}"
                rejects.append(Reject(file, reason, label=label))
    return scans, rejects


def _of_table(path: Path, arm: str, data: DataSpec) -> tuple[list[Scan], list[Reject]]:
    # Two generated images may well be the same: that is for the measures of quality to tell.
    accept = data.accept.model_copy(update={"copies": True, "similar_ids": True})
    update = {"layout": "table", "table": path, "root": None, "covariates": (), "accept": accept}
    try:
        cohort = read_cohort(data.model_copy(update=update))
    except UserError as error:
        raise UserError(f"arms.{arm}.path: {error}") from None
    scans = [
        _scan(scan.path, scan.label, number)
        for number, scan in enumerate(cohort.scans)
        if scan.label is not None
    ]
    return scans, list(cohort.rejects)


def _scan(file: Path, label: int, number: int) -> Scan:
    index = number if is_two_dimensional(file) else None
    return Scan(GIVEN, file, label=label, index=index)


def read_array(
    path: Path, labels: Path | None, classes: Sequence[str]
) -> tuple[dict[str, Any], list[NDArray[np.float32]]]:
    """``{"labels": [...]}`` and the rows (n, …) float32 of one array. 8 bits become [0, 1], as in
    an image file. A parser for the sandbox.

    Raises:
        BadFile: it holds no such rows, or not every class.
    """
    with open_regular(path) as file:
        content = file.read()
    try:
        if ending_of(path.name) == ".npz":
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                x, told = _named(archive, ROW_NAMES), _named(archive, LABEL_NAMES)
        elif ending_of(path.name) == ".npy":
            x, told = np.load(io.BytesIO(content), allow_pickle=False), _labels_in(labels)
        else:
            x, told = _of_arrow(content)
    except _DAMAGE as error:
        if isinstance(error, ValueError) and "pickle" in str(error):
            raise BadFile("holds Python objects; save plain numbers") from None
        raise BadFile(f"cannot be read ({type(error).__name__}); write it again") from None
    return {"labels": _as_indices(told, len(x), classes).tolist()}, [_as_rows(x)]


def _as_rows(x: NDArray[Any]) -> NDArray[np.float32]:
    if x.ndim < 2 or x.dtype.kind not in "fiu" or not len(x):
        raise BadFile(f"rows are {x.dtype} of shape {x.shape}; want numbers, one row a line")
    scale = np.float32(255 if x.dtype == np.uint8 else 1)
    rows = np.ascontiguousarray(x, dtype=np.float32) / scale
    if not np.isfinite(rows).all():
        raise BadFile("holds values that are no finite numbers; mend the tool that made them")
    return rows


def _as_indices(told: NDArray[Any], n: int, classes: Sequence[str]) -> NDArray[np.int64]:
    if told.shape != (n,):
        raise BadFile(f"{n} rows and labels of shape {told.shape}; write one label for each row")
    if told.dtype.kind == "U":
        index = {name: label for label, name in enumerate(classes)}
        if unknown := sorted(set(told.tolist()) - set(index)):
            shown = f"'{unknown[0]}'" if _SHOWN.fullmatch(unknown[0]) else "that is unknown"
            raise BadFile(f"has a class {shown}; write one of {', '.join(classes)}")
        told = np.array([index[name] for name in told.tolist()])
    if told.dtype.kind not in "iu":
        raise BadFile(f"labels are {told.dtype}; write class names, or numbers from 0")
    if told.min() < 0 or told.max() >= len(classes):
        raise BadFile(f"has a label outside of 0 to {len(classes) - 1}; correct it")
    if missing := sorted(set(range(len(classes))) - set(told.tolist())):
        raise BadFile(f"has no row of class {classes[missing[0]]}; make some of every class")
    return told.astype(np.int64)


def _named(archive: Any, names: Sequence[str]) -> NDArray[Any]:
    found = [name for name in names if name in archive.files]
    if len(found) != 1:
        raise BadFile(f"has {len(found)} of the arrays {', '.join(names)}; name one of them so")
    return np.asarray(archive[found[0]])


def _labels_in(path: Path | None) -> NDArray[Any]:
    assert path is not None, "a .npy comes with its labels"
    with open_regular(path) as file:
        content = file.read()
    if ending_of(path.name) == ".npy":
        return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
    words = np.array(content.decode("utf-8").split("\n"))
    words = words[: -1 if words[-1] == "" else None]
    words = np.array([word.strip() for word in words.tolist()])
    numbers = all(word.isascii() and word.isdecimal() for word in words.tolist())
    return words.astype(np.int64) if numbers else words


def _of_arrow(content: bytes) -> tuple[NDArray[Any], NDArray[Any]]:
    import pyarrow as pa

    try:
        try:
            table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        except pa.ArrowInvalid:
            table = pa.ipc.open_stream(pa.BufferReader(content)).read_all()
        table.validate(full=True)  # offsets that point outside of the file
        column = _column(table, ROW_NAMES).combine_chunks()
        told = np.array(_column(table, LABEL_NAMES).to_pylist())
        if isinstance(column, pa.FixedShapeTensorArray):
            return column.to_numpy_ndarray(), told
        return np.array(column.to_pylist()), told
    except pa.ArrowException as error:
        raise BadFile(f"no Arrow file ({type(error).__name__}); write it again") from None


def _column(table: Any, names: Sequence[str]) -> Any:
    found = [name for name in names if name in table.column_names]
    if len(found) != 1:
        raise BadFile(f"has {len(found)} of the columns {', '.join(names)}; name one of them so")
    return table.column(found[0])


def as_images(x: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """(n, H, W) or (n, C, H, W) -> (n, C, size, size), as image files are brought to one size."""
    flat = x.reshape(-1, *x.shape[-2:])
    fitted = np.concatenate([fit_images(flat[i : i + 64], size) for i in range(0, len(flat), 64)])
    return fitted.reshape(len(x), -1, size, size)


def looks_like_images(shape: Sequence[int], channels: int) -> bool:
    """Whether rows of ``shape``, (H, W) or (C, H, W), are pictures of so many channels."""
    if len(shape) == 2:
        return channels == 1
    return len(shape) == 3 and shape[0] == channels and min(shape[1:]) > 1
