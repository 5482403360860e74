"""Folder layouts: which files are whose scans, and of which class. Nothing guesses a class."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medaug.data.cohort import Cohort, Reject, Scan, absent, folder_of
from medaug.data.image_layouts import IMAGE_LAYOUTS
from medaug.data.labels import PATIENT_ID, Table, read_table, unlabelled
from medaug.data.monai_datalist import monai_datalist
from medaug.data.nnunet import nnunet
from medaug.data.privacy import pseudonym
from medaug.data.table import scan_table
from medaug.errors import UserError
from medaug.spec.study import DataSpec

Progress = Callable[[int, int, str], None]
"""(done, total, what): called after each unit of work."""
Layout = Callable[[DataSpec, Progress | None], Cohort]

NAME_MAPPING = "name_mapping.csv"
_ID_COLUMN = re.compile(r"(BraTS_?\d{2,4}_?(subject_?)?ID)|((subject|patient)(_?ID)?)|ID", re.I)
"""Columns of subject ids: BraTS_2020_subject_ID, BraTS18ID, subject_ID, patient_id …"""
_SUFFIXES = (".nii.gz", ".nii", ".hdr")


def read_cohort(spec: DataSpec, progress: Progress | None = None) -> Cohort:
    """The scans of ``spec.root`` as its layout names them; no image is opened yet.

    Raises:
        UserError: there is no such layout or folder, its labels contradict each other, or a scan
            has none and ``spec.accept.missing`` is not set.
    """
    if spec.layout not in LAYOUTS:
        raise UserError(f"data.layout: '{spec.layout}'; use one of {', '.join(sorted(LAYOUTS))}")
    cohort = LAYOUTS[spec.layout](spec, progress)
    bare = [reject for reject in cohort.rejects if reject.unlabelled]
    if bare and not spec.accept.missing:
        names = {reject.patient or str(reject.path) for reject in bare}
        # A near miss explains more than the first of many.
        reason = next((r.reason for r in bare if "nearly" in r.reason), bare[0].reason)
        raise UserError(
            f"data.root: {len(bare)} scans without a label ({_first_five(names)}), one {reason}; "
            "or set data.accept.missing to leave them out"
        )
    return cohort


def brats(spec: DataSpec, progress: Progress | None = None) -> Cohort:
    """``DIR/<class>/<patient>/<patient>_<channel>.nii.gz`` with ``<patient>_seg.nii.gz``, or
    ``DIR/<patient>/…`` with the classes in ``DIR/name_mapping.csv`` (column ``Grade``).

    Other folders than those of ``spec.classes`` are skipped with a note. A folder without the
    channel is rejected.
    """
    root = folder_of(spec)
    if not re.fullmatch(r"[A-Za-z0-9]+", spec.channel):
        raise UserError(f"data.channel: '{spec.channel}'; use the end of a file name, like flair")
    folders, rejects, notes = _patients(root, spec)
    scans = []
    for folder, label in folders:
        image = _file(folder, spec.channel)
        if image is None:
            path = folder / f"{folder.name}_{spec.channel}.nii.gz"
            reason = f"no {spec.channel} image; put <patient>_{spec.channel}.nii.gz into the folder"
            rejects.append(Reject(path, reason, folder.name))
        else:
            scans.append(Scan(folder.name, image, _file(folder, "seg"), label))
    scans.sort(key=lambda scan: scan.patient)
    return Cohort(tuple(scans), spec.classes, tuple(rejects), tuple(notes))


def dicom_series(spec: DataSpec, progress: Progress | None = None) -> Cohort:
    """``DIR/<class>/<patient>/*.dcm``, one series per patient, or ``DIR/<patient>/*.dcm`` with the
    classes in ``DIR/name_mapping.csv``; a mask is ``<patient>_seg.nii.gz`` in the same folder.

    Only files named ``*.dcm`` in that very folder are read, a DICOMDIR never is.
    """
    folders, rejects, notes = _patients(folder_of(spec), spec)
    scans = [Scan(folder.name, folder, _file(folder, "seg"), label) for folder, label in folders]
    scans.sort(key=lambda scan: scan.patient)
    return Cohort(tuple(scans), spec.classes, tuple(rejects), tuple(notes))


def phantom(spec: DataSpec, progress: Progress | None = None) -> Cohort:
    """A simulated cohort, written once to ``~/.cache/medaug`` and then read as :func:`brats`."""
    from medaug.data.phantom import CLASSES, RENDERER, write_cohort  # loads SciPy

    if spec.classes != CLASSES:
        raise UserError(f"data.classes: a phantom cohort has {', '.join(CLASSES)}")
    out = _cache() / f"phantom{RENDERER}-{spec.phantom.signature()}-{spec.image_size}"
    write_cohort(spec.phantom, spec.image_size, out, progress)
    return brats(spec.model_copy(update={"root": out, "channel": "flair"}))


LAYOUTS: Mapping[str, Layout] = {
    "brats": brats,
    "dicom_series": dicom_series,
    "monai_datalist": monai_datalist,
    "nnunet": nnunet,
    "phantom": phantom,
    "table": scan_table,
    **IMAGE_LAYOUTS,
}

_Found = tuple[list[tuple[Path, int]], list[Reject], list[str]]
"""(patient folder, class index) pairs, what was left out, notes."""


def _patients(root: Path, spec: DataSpec) -> _Found:
    """Patient folders in class folders, or with their classes in a table."""
    if any(_is_folder(root / name) for name in spec.classes):
        return _by_class_folder(root, spec.classes)
    if (root / NAME_MAPPING).exists():
        return _by_name_mapping(root, spec)
    raise UserError(
        f"data.root: holds neither a folder {' or '.join(spec.classes)} nor {NAME_MAPPING}; "
        "check data.root and data.classes"
    )


def _by_class_folder(root: Path, classes: Sequence[str]) -> _Found:
    folders: list[tuple[Path, int]] = []
    rejects: list[Reject] = []
    class_of: dict[str, str] = {}
    for label, name in enumerate(classes):
        if not _is_folder(root / name):
            continue
        for folder in _patient_folders(root / name, rejects):
            if (other := class_of.setdefault(folder.name, name)) != name:
                raise UserError(
                    f"data.root: patient {pseudonym(folder.name)} is in {other} and in {name}; "
                    "a patient has one class"
                )
            folders.append((folder, label))
    # Other folders may be named after patients, so their names are not repeated.
    others = [folder for folder in _folders(root) if folder.name not in classes]
    notes = []
    if others:
        inside = sum(1 for folder in others for _ in _folders(folder))
        notes.append(
            f"{len(others)} folder(s) beside {', '.join(classes)} skipped, with {inside} "
            "folder(s) inside: their class is not in data.classes"
        )
    return folders, rejects, notes


def _by_name_mapping(root: Path, spec: DataSpec) -> _Found:
    rejects: list[Reject] = []
    folders = {folder.name: folder for folder in _patient_folders(root, rejects)}
    table = read_table(root / NAME_MAPPING, ["Grade"])
    id_column = _id_column(table, folders)
    # BraTS writes NA where a patient was not part of that year's challenge.
    rows = tuple((line, row) for line, row in table.rows if row[id_column] not in ("", "NA"))
    labels = replace(table, rows=rows).labels(id_column, "Grade", spec.label_of)
    notes = [f"{NAME_MAPPING}: ids are those of column {id_column}", *labels.notes]
    bare = unlabelled(folders, labels)
    for patient, reason in bare.items():
        rejects.append(Reject(folders.pop(patient), reason, patient, unlabelled=True))
    missing = labels.by_id.keys() - folders.keys()
    if missing and (spec.accept.missing or not bare):  # else the folders may explain the lines
        text = f"{NAME_MAPPING}: {len(missing)} patients have no folder ({_first_five(missing)})"
        notes.append(absent(spec, text))
    return [(folder, labels.by_id[name]) for name, folder in folders.items()], rejects, notes


def _first_five(names: Collection[str]) -> str:
    return ", ".join(map(pseudonym, sorted(names)[:5])) + ", …" * (len(names) > 5)


def _id_column(table: Table, folders: Collection[str]) -> str:
    """The subject-id column that knows most of the folders."""
    known = {
        column: sum(row[column] in folders for _, row in table.rows)
        for column in table.columns
        if _ID_COLUMN.fullmatch(column)
    }
    if not known:
        raise UserError(
            f"{table.name}:1: no column of ids (have {{{', '.join(table.columns)}}}); name it "
            "subject_ID"
        )
    best = max(known, key=lambda column: known[column])
    if not known[best]:
        raise UserError(
            f"{table.name}: none of the {len(folders)} patient folders is in column "
            f"{' or '.join(known)}; ids are compared exactly, as text"
        )
    return best


def _patient_folders(parent: Path, rejects: list[Reject]) -> Iterator[Path]:
    """Folders whose names can be patient ids; the others go to ``rejects``."""
    for entry in sorted(os.scandir(parent), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.is_file(follow_symlinks=False):
            continue
        path = Path(entry.path)
        if not entry.is_dir(follow_symlinks=False):
            reason = (
                "a link or special file where a patient's folder should be; put the folder here"
            )
            rejects.append(Reject(path, reason, entry.name))
        elif not PATIENT_ID.fullmatch(entry.name):
            reason = "the folder's name is no patient id; use 1 to 64 of A-Z a-z 0-9 . _ - only"
            rejects.append(Reject(path, reason, entry.name))
        else:
            yield path


def _folders(parent: Path) -> Iterator[Path]:
    with os.scandir(parent) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield Path(entry.path)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _file(folder: Path, what: str) -> Path | None:
    """``<patient>_<what>`` in the first format that is there, whatever kind of file it is."""
    names = (folder / f"{folder.name}_{what}{suffix}" for suffix in _SUFFIXES)
    return next((path for path in names if os.path.lexists(path)), None)


def _cache() -> Path:
    """Where generated cohorts live; the temporary folder when there is no writable home."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "medaug"
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        cache = Path(tempfile.gettempdir(), f"medaug-{os.getuid()}")
        cache.mkdir(exist_ok=True, mode=0o700)
    return cache
