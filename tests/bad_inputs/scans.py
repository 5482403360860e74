"""Rows 1 to 51: volumes, DICOM series and images."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from medaug.data.files import BadFile, open_regular
from tests.bad_inputs.case import Case, Make, strictly
from tests.bad_inputs.volumes import (
    AFFINE,
    CORPUS,
    MAGIC,
    MASK,
    NAMES,
    NOT_FILES,
    QFORM_CODE,
    SFORM_CODE,
    VOX_OFFSET,
    X,
    filled,
    nifti,
    patch,
    place,
    zip_,
)
from tests.data.dicom_series import nested, voxels, write_frames, write_series
from tests.data.test_images import bad_files


def volume(image: bytes, mask: bytes | None = None, **accept: Any) -> Make:
    def make(folder: Path, _: object) -> object:
        paths = place(folder, "Doe", image, mask or b"")
        facts, arrays = strictly(paths[0], paths[1] if mask else None, **accept)
        return f"{facts['warnings']} {facts['free_text']} free texts, sum {arrays[0].sum():.0f}"

    return make


def free_text() -> bytes:
    image = nib.Nifti1Image(X, AFFINE, dtype=X.dtype)
    image.header["descrip"] = b"DOE^JOHN"
    image.header.extensions.append(nib.nifti1.Nifti1Extension(2, b"DOE^JOHN"))
    return zip_(image.to_bytes())


def swapped() -> bytes:
    image = nib.Nifti1Image(X, AFFINE, dtype=X.dtype)
    header = image.header.as_byteswapped()
    return zip_(nib.Nifti1Image(X, AFFINE, header, dtype=X.dtype).to_bytes())


def lone_header(folder: Path, _: object) -> object:
    (folder / "Doe_flair.hdr").write_bytes(
        patch((MAGIC, "4s", b"ni1\0"), (VOX_OFFSET, "f", 0))[:352]
    )
    return strictly(folder / "Doe_flair.hdr")


SHIFTED = AFFINE + np.eye(4, k=3) * 0.01
TWO_FORMS = zip_(patch((QFORM_CODE, "h", 1), (268, "f", 50)))
FOUR_D = zip_(nifti(np.stack([X, X + 1, X], 3)))
TOTAL = X.sum()

VOLUMES = [
    *(
        Case(int(name[:2]), name[3:], volume(image, mask), reason)
        for name, (image, mask, reason) in CORPUS.items()
    ),
    Case(14, "a volume is chosen", volume(FOUR_D, volume=1), f"sum {TOTAL + X.size}", 0),
    Case(14, "no such volume", volume(FOUR_D, volume=3), "has 3 volumes, data.accept.volume is 3"),
    Case(14, "says how to choose", volume(FOUR_D), r"data\.accept\.volume"),
    Case(19, "says how to go on", volume(zip_(nifti(filled(np.nan)))), r"data\.accept\.nan"),
    Case(19, "zeros", volume(zip_(nifti(filled(np.nan, "f4"))), nan="zero"), "replaced by zero", 0),
    Case(24, "a wider range", volume(zip_(patch((80, "f", 30))), zoom_range_mm=(0.01, 50)), "sum", 0),
    Case(27, "two orientations", volume(TWO_FORMS), r"disagree by 50 mm.*data\.accept\.orientation"),
    Case(27, "one is chosen", volume(TWO_FORMS, orientation="sform"), f"sum {TOTAL}", 0),
    Case(28, "no orientation", volume(zip_(patch((SFORM_CODE, "h", 0)))), "orientation unknown"),
    Case(34, "half a pair", lone_header, r"its \.img half is missing"),
    Case(36, "says how to go on", volume(zip_(nifti()), zip_(nifti(MASK, SHIFTED))), "resample_mask"),
    Case(36, "resampled", volume(zip_(nifti()), zip_(nifti(MASK, SHIFTED)), resample_mask=True), "sum", 0),
    Case(39, "big-endian", volume(swapped()), f"sum {TOTAL}", 0),
    Case(40, "free text is counted", volume(free_text()), r"\(\) 2 free texts", 0),
]  # fmt: skip


def series(change: Callable[[Dataset, int], object] = lambda d, i: None, **options: Any) -> Make:
    accept = options.pop("accept", {})

    def make(folder: Path, _: object) -> object:
        write_series(folder / "Doe", voxels(), change=change, **options)
        return f"{strictly(folder / 'Doe', **accept)[1][0].shape}"

    return make


def frames(**elements: Any) -> Make:
    """One file of several frames in a folder of its own."""

    def make(folder: Path, _: object) -> object:
        (folder / "Doe").mkdir()
        put = partial(_put, elements)
        write_frames(folder / "Doe" / "x.dcm", voxels(), change=put)
        return strictly(folder / "Doe")

    return make


def one_picture(**elements: Any) -> Make:
    """A DICOM file that is an image of its own."""

    def make(folder: Path, _: object) -> object:
        write_series(folder / "s", voxels()[:, :, :1], change=partial(_put, elements))
        os.replace(next((folder / "s").glob("*.dcm")), folder / "Doe.dcm")
        return strictly(folder / "Doe.dcm")

    return make


def _put(elements: dict[str, Any], dataset: Dataset, _: int) -> None:
    for name, value in elements.items():
        setattr(dataset, name, value)


def rewritten(rewrite: Callable[[bytes], bytes]) -> Make:
    """The bytes of one slice changed after it was written."""

    def make(folder: Path, _: object) -> object:
        write_series(folder / "Doe", voxels())
        path = sorted((folder / "Doe").glob("*.dcm"))[1]
        path.write_bytes(rewrite(path.read_bytes()))
        return strictly(folder / "Doe")

    return make


def without_a_slice(folder: Path, _: object) -> object:
    write_series(folder / "Doe", voxels(shape=(8, 9, 7)))
    (folder / "Doe" / "IM0002.dcm").unlink()
    return strictly(folder / "Doe")


def twice(folder: Path, _: object) -> object:
    write_series(folder / "Doe", voxels())
    one = folder / "Doe" / "IM0001.dcm"
    one.with_name("again.dcm").write_bytes(one.read_bytes())
    return strictly(folder / "Doe")


def nested_deep(dataset: Dataset, index: int) -> None:
    dataset.update(nested(120))


def deflated(folder: Path, _: object) -> object:
    write_series(folder / "Doe", voxels())
    for path in (folder / "Doe").iterdir():
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.PixelData = bytes(1 << 20)
        dcmwrite(path, dataset)
    return strictly(folder / "Doe")


def element(name: str, value: Any) -> Callable[[Dataset, int], object]:
    """Slice 2 has another value of an element."""
    return lambda dataset, index: setattr(dataset, name, value) if index == 2 else None


def packed(uid: str) -> Callable[[Dataset, int], object]:
    """Slices that claim to be compressed with a syntax."""

    def change(dataset: Dataset, index: int) -> None:
        dataset.file_meta.TransferSyntaxUID = uid
        dataset.PixelData = encapsulate([dataset.PixelData])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True

    return change


def with_dicomdir(folder: Path, _: object) -> object:
    """What it points to is neither followed nor an error: it is not looked at."""
    write_series(folder / "Doe", voxels())
    (folder / "Doe" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM../../etc/passwd")
    return f"{strictly(folder / 'Doe')[1][0].shape}"


def linked_slice(folder: Path, _: object) -> object:
    write_series(folder / "Doe", voxels())
    (folder / "Doe" / "x.dcm").symlink_to("../../../etc/passwd")
    return strictly(folder / "Doe")


HTJ2K = "1.2.840.10008.1.2.4.201"
VIDEO = "1.2.840.10008.1.2.4.102"
HEAD = {"RecognizableVisualFeatures": ""}
CLEANED = r"data\.accept\.cleaned_pixels"

SERIES = [
    Case(41, "no DICM", rewritten(lambda b: b[:128] + b"DOCX" + b[132:]), "file 2 of 4: not DICOM"),
    Case(41, "a program", rewritten(lambda b: b"MZ" + b[2:]), "a Windows program"),
    Case(41, "a Linux program", rewritten(lambda b: b"\x7fELF" + b[4:]), "a Linux program"),
    Case(42, "nested", series(nested_deep), "sequences nested more than 100 deep"),
    Case(43, "deflated", deflated, r"Deflated Explicit VR Little Endian \(.*\.99\) is not read"),
    Case(44, "large", series(accept={"max_voxels": 100}), r"9 x 8 x 1 in 4 slices .* more than the limit"),
    Case(44, "frames", series(NumberOfFrames=3000), "holds 3000 frames"),
    Case(44, "frames of a bomb", series(NumberOfFrames=2**28), r"data\.accept\.max_voxels"),
    Case(44, "a file of frames, a bomb", frames(NumberOfFrames=2**28), r"data\.accept\.max_voxels"),
    Case(44, "a file of frames, too few", frames(NumberOfFrames=9), "432 bytes|576 bytes of pixel data"),
    Case(44, "a cine", frames(PerFrameFunctionalGroupsSequence=[]), "without a place in space"),
    Case(44, "a picture, a bomb", one_picture(Rows=65535, Columns=65535), r"data\.accept\.max_voxels"),
    Case(44, "a picture, truncated", one_picture(Rows=60000), "bytes of pixel data, 60000 x 8 take"),
    Case(48, "a picture, burned in", one_picture(BurnedInAnnotation="YES"), "BurnedInAnnotation is YES"),
    Case(44, "short pixels", series(element("PixelData", bytes(100))), "100 bytes of pixel data"),
    Case(44, "truncated", rewritten(lambda b: b[:-40]), "file 2 of 4: truncated"),
    Case(45, "missing", without_a_slice, r"gap of 4 mm between slices 2 and 3"),
    Case(45, "gap", series(element("ImagePositionPatient", [10, -20, 34.5])), r"gap of 2\.5 mm between slices 1 and 2"),
    Case(45, "twice", twice, "two slices in one place between slices 1 and 2|two slices in one place"),
    Case(45, "mixed", series(element("SeriesInstanceUID", generate_uid())), "holds 2 series"),
    Case(45, "turned", series(element("ImageOrientationPatient", [0, 1, 0, 1, 0, 0])), "another orientation"),
    Case(45, "sheared", series(lambda d, i: setattr(d, "ImagePositionPatient", [10, -20 + i, 30 + 2 * i])), "gantry tilt"),
    Case(46, "no decoder", series(packed(HTJ2K)), r"no decoder for High-Throughput.*medaug\[dicom\]"),
    Case(46, "a video", series(packed(VIDEO)), "transfer syntax MPEG-4 .* is not read"),
    Case(47, "DICOMDIR", with_dicomdir, r"\(4, 1, 8, 8\)", 0),
    Case(47, "a link", linked_slice, "a symbolic link"),
    Case(48, "burned in", series(BurnedInAnnotation="YES"), f"BurnedInAnnotation is YES.*{CLEANED}"),
    Case(48, "secondary capture", series(SOPClassUID=SecondaryCaptureImageStorage), f"a secondary capture.*{CLEANED}"),
    Case(48, "a face", series(**HEAD), f"shows a face.*{CLEANED}"),
    Case(48, "somebody has looked", series(**HEAD, accept={"cleaned_pixels": True}), r"\(4, 1, 8, 8\)", 0),
]  # fmt: skip


def image(name: str, write: Callable[[Path], object]) -> Make:
    def make(folder: Path, _: object) -> object:
        write(folder / name)
        return strictly(folder / name)

    return make


def special(make_it: Callable[[Path], object]) -> Make:
    def make(folder: Path, _: object) -> object:
        make_it(folder / "a.nii.gz")
        return strictly(folder / "a.nii.gz")

    return make


def growing(folder: Path, _: object) -> object:
    path = folder / "Doe.nii"
    path.write_bytes(nifti())
    try:
        with open_regular(path), path.open("ab") as other:
            other.write(b"more")
    except BadFile as bad:
        path.write_bytes(b"")  # what strict mode makes of any BadFile is in the other rows
        return str(bad)


IMAGES = [
    *(
        Case(49, kind, image(name, write), message)
        for kind, (name, write, message) in bad_files().items()
        if name != "a.gif"  # by its name no image: layouts do not list it
    ),
    *(
        Case(50, kind, special(make), reason)
        for kind, (make, reason) in NOT_FILES.items()
        if kind != "unreadable"  # for root nothing is
    ),
    *(
        Case(50, f"name {number}", image(name, lambda p: p.write_bytes(nifti())), reason)
        for number, (name, reason) in enumerate(NAMES)
    ),
    Case(50, "dots", lambda folder, _: strictly(folder / ".." / "a.nii"), "holds '..'"),
    Case(51, "grows", growing, "changed during ingest", 0),
]

SCANS = [*VOLUMES, *SERIES, *IMAGES]
