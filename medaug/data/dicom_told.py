"""What the header of a DICOM file says, by its bytes: enough to sort files before any is parsed.

The element headers of the outermost level are walked (PS3.5 chapter 7); of the elements in
:data:`_READ` the value is kept. Of the two that name a person only a keyed digest is, by which
equal ones are known within one process: no name or id is ever text.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from medaug.data.address import split_address
from medaug.data.canonical import is_blank, tidy
from medaug.data.dicom_elements import begins, elements
from medaug.data.files import BadFile, open_regular
from medaug.data.names import ARCHIVES, PICTURES, SLICES, TABLES, VOLUMES, ending_of

_SYNTAX, _IMAGE_TYPE, _SOP_CLASS, _MODALITY = 0x00020010, 0x00080008, 0x00080016, 0x00080060
_NAME, _ID, _SERIES = 0x00100010, 0x00100020, 0x0020000E
_POSITION, _ORIENTATION = 0x00200032, 0x00200037
_SAMPLES, _FRAMES, _ROWS, _COLUMNS, _SPACING = (0x00280000 | n for n in (2, 8, 0x10, 0x11, 0x30))
_READ = frozenset(
    (
        *(_IMAGE_TYPE, _SOP_CLASS, _MODALITY, _NAME, _ID, _SERIES, _POSITION, _ORIENTATION),
        *(_SAMPLES, _FRAMES, _ROWS, _COLUMNS, _SPACING),
    )
)
_NO_SLICES = PICTURES | VOLUMES | TABLES | ARCHIVES
_LONGEST = 1 << 10
_LAST = 0x00290000
_KEY = secrets.token_bytes(16)
_OBJECTS = {
    "1.2.840.10008.5.1.4.1.1.66": "a DICOM segmentation or the like, which is not read; masks are "
    "NIfTI files",
    "1.2.840.10008.5.1.4.1.1.88": "a DICOM report or key object selection, no image",
    "1.2.840.10008.5.1.4.1.1.11": "a DICOM presentation state, no image",
    "1.2.840.10008.5.1.4.1.1.481": "a DICOM object of radiotherapy, no image; masks are "
    "NIfTI files",
    "1.2.840.10008.5.1.4.1.1.104": "a document in DICOM, no image",
    "1.2.840.10008.5.1.4.1.1.9": "a waveform in DICOM, no image",
    "1.2.840.10008.1.3.10": "a DICOMDIR, which is not followed",
}
"""SOP classes (PS3.4 B.5) whose objects are no images, by what they begin with -> what they are."""
_RT_IMAGE = "1.2.840.10008.5.1.4.1.1.481.1"
_OF_MODALITY = {
    **dict.fromkeys(("SEG", "REG", "FID", "RWV"), _OBJECTS["1.2.840.10008.5.1.4.1.1.66"]),
    **dict.fromkeys(("SR", "KO"), _OBJECTS["1.2.840.10008.5.1.4.1.1.88"]),
    "PR": _OBJECTS["1.2.840.10008.5.1.4.1.1.11"],
    **dict.fromkeys(
        ("RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD"), _OBJECTS["1.2.840.10008.5.1.4.1.1.481"]
    ),
    "DOC": _OBJECTS["1.2.840.10008.5.1.4.1.1.104"],
}
_SCOUT = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVEY"})
_ANYBODY = ("anon", "removed", "deidentified", "deid", "redacted", "xxx", "unknown", "test")


@dataclass(frozen=True)
class Told:
    """What a file's header says; nothing where it does not say it."""

    series: str = ""
    modality: str = ""
    sop_class: str = ""
    image_type: tuple[str, ...] = ()
    frames: int = 1
    samples: int | None = None
    rows: int | None = None
    columns: int | None = None
    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    """Of rows, of columns."""
    patient: str = ""
    """Digest of the PatientID; empty where that names nobody."""
    patient_as_written: str = ""
    """Likewise, also of an id that an anonymiser may have given to several people."""
    name: str = ""
    """Digest of the PatientName, likewise."""

    @property
    def is_scout(self) -> bool:
        """Whether it is a localiser (ImageType value 3 and after: PS3.3 C.8.2.1.1.1)."""
        return not _SCOUT.isdisjoint(self.image_type)

    @property
    def no_image(self) -> str | None:
        """What it is, where that is no image."""
        if self.sop_class != _RT_IMAGE:
            for begin, what in _OBJECTS.items():
                if self.sop_class == begin or self.sop_class.startswith(f"{begin}."):
                    return what
        return _OF_MODALITY.get(self.modality)


def told(path: Path) -> Told:
    """What the header of ``path`` says; an empty one where it cannot be read."""
    try:
        about = os.lstat(path)
    except OSError:
        return Told()
    return _told(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=1 << 17)
def _told(path: Path, _size: int, _mtime_ns: int) -> Told:
    try:
        with open_regular(path) as file:
            return _of(file)
    except BadFile:
        return Told()


def is_dicom(path: Path) -> bool:
    """By its content: the mark after 128 bytes, or, as older programs write it, a first element
    of group 8."""
    try:
        with open_regular(path) as file:
            return begins(file.read(132)) is not None
    except BadFile:
        return False


def _of(file: BinaryIO) -> Told:
    values: dict[int, bytes] = {}
    order = "little"
    for tag, length, order in elements(file):  # noqa: B007
        if tag >= _LAST:
            break
        if tag in _READ and tag not in values and length <= _LONGEST:
            values[tag] = file.read(length)
            file.seek(-len(values[tag]), 1)

    def text(tag: int) -> str:
        return values.get(tag, b"").decode("ascii", "replace").strip("\0 ")

    def number(tag: int) -> int | None:
        raw = values.get(tag, b"")
        return int.from_bytes(raw, "big" if order == ">" else "little") if len(raw) == 2 else None

    n_frames = text(_FRAMES)
    return Told(
        series=text(_SERIES),
        modality=text(_MODALITY).upper(),
        sop_class=text(_SOP_CLASS),
        image_type=tuple(filter(None, text(_IMAGE_TYPE).upper().split("\\"))),
        frames=max(1, int(n_frames)) if n_frames.isdecimal() and len(n_frames) <= 12 else 1,
        samples=number(_SAMPLES),
        rows=number(_ROWS),
        columns=number(_COLUMNS),
        position=_floats(text(_POSITION)),
        orientation=_floats(text(_ORIENTATION)),
        spacing_mm=_floats(text(_SPACING)),
        patient=_digest(values.get(_ID, b"")),
        patient_as_written=_digest(values.get(_ID, b""), written=True),
        name=_digest(values.get(_NAME, b"").replace(b"^", b" ")),
    )


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split("\\")) if text else ()
    except ValueError:
        return ()


def _digest(raw: bytes, *, written: bool = False) -> str:
    """Equal for ids that differ by case or spaces; empty for what names nobody, but for ``anon 12``
    where it is ``written`` in a table."""
    said = tidy(raw.decode("latin-1").strip("\0 ")).casefold()
    plain = "".join(filter(str.isalnum, said))
    anybody = not written and plain.startswith(_ANYBODY)
    if is_blank(said) or not plain.strip("0") or anybody:
        return ""
    return hashlib.blake2b(said.encode(), key=_KEY, digest_size=12).hexdigest()


def digest_of(patient: str) -> str:
    """What :attr:`Told.patient_as_written` is for a file whose PatientID is ``patient``."""
    return _digest(patient.encode("utf-8", "replace"), written=True)


def images_of(files: Sequence[Path]) -> tuple[Path, ...]:
    """Of the DICOM files of a folder, or of one series, those that are its slices: no segmentation,
    report or other object, and no localiser beside other images."""
    images = [file for file in files if told(file).no_image is None]
    slices = [file for file in images if not told(file).is_scout]
    return tuple(slices or images)


def series_files(path: Path) -> tuple[Path, ...]:
    """The slices in a folder by name: DICOM files called ``*.dcm`` or ``*.ima``, whatever they
    hold, and others that are DICOM by content, but for what :func:`images_of` leaves out. Of
    ``folder#UID`` those of that series."""
    folder, uid = split_address(path)
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    files = [folder / name for name in sorted(names) if _is_slice(folder / name)]
    return images_of([f for f in files if told(f).series == uid] if uid else files)


def slices_of(path: Path) -> int:
    """How many slices the series at ``path`` has: files, or the frames of a single one."""
    files = series_files(path)
    return told(files[0]).frames if len(files) == 1 else len(files)


def _is_slice(path: Path) -> bool:
    ending = ending_of(path.name)
    if ending in SLICES:
        return True
    if ending in _NO_SLICES or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    return is_dicom(path)
