"""DICOM as scanners, archives and programs leave it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    RTStructureSetStorage,
    SegmentationStorage,
    generate_uid,
)

from tests.data.dicom_series import Change, voxels, write_frames, write_series
from tests.data.folders import AB, Build, Is, ab, table

AXIAL = ["ORIGINAL", "PRIMARY", "AXIAL"]
SCOUT = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
SLICES = r"class benign: 4 patients, {} slices"


def unchanged(dataset: Dataset, number: int) -> None:
    """As a test writes it."""


def single(path: Path, seed: int, change: Change = unchanged, **elements: object) -> None:
    """One file of one frame."""
    folder = path.parent / "one"
    write_series(folder, voxels(seed, (8, 9, 1)), change=change, **elements)
    next(folder.iterdir()).rename(path)
    shutil.rmtree(folder)


def people(write: Callable[[Path, int], None], wanted: Is) -> Build:
    """Eight folders of two classes."""

    def build(root: Path) -> Is:
        for i in range(8):
            write(root / ab(i) / f"D{i}", i)
        return wanted

    return build


def scout_in_its_folder(folder: Path, i: int) -> None:
    write_series(folder, voxels(i, (8, 9, 7)), ImageType=AXIAL)
    write_series(folder / "x", voxels(50 + i, (8, 9, 4)), ImageType=SCOUT)
    for number, path in enumerate(sorted((folder / "x").iterdir())):
        path.rename(folder / f"scout{number}.dcm")
    (folder / "x").rmdir()


def scout_in_its_series(folder: Path, i: int) -> None:
    def first(dataset: Dataset, number: int) -> None:
        dataset.ImageType = AXIAL if number else SCOUT
        if not number:
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    write_series(folder, voxels(i, (8, 9, 7)), change=first)


def longer_scout(folder: Path, i: int) -> None:
    write_series(folder / "a", voxels(i, (8, 9, 7)), ImageType=AXIAL)
    write_series(folder / "b", voxels(50 + i, (8, 9, 20)), ImageType=SCOUT)


def object_beside(sop_class: str, modality: str, place: str) -> Callable[[Path, int], None]:
    """An object without an image."""

    def write(folder: Path, i: int) -> None:
        write_series(folder / "img", voxels(i, (8, 9, 7)))
        dataset = dcmread(next((folder / "img").iterdir()))
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
        dataset.Modality, dataset.SeriesInstanceUID = modality, generate_uid()
        del dataset.PixelData
        (folder / place).parent.mkdir(exist_ok=True)
        dataset.save_as(folder / place, enforce_file_format=True)

    return write


def segmentation(place: str) -> Callable[[Path, int], None]:
    """It has frames and places, as a volume has."""

    def change(dataset: Dataset, number: int) -> None:
        dataset.SOPClassUID, dataset.Modality = SegmentationStorage, "SEG"
        dataset.SeriesInstanceUID = generate_uid()

    def write(folder: Path, i: int) -> None:
        write_series(folder / "img", voxels(i, (8, 9, 7)))
        (folder / place).parent.mkdir(exist_ok=True)
        write_frames(folder / place, voxels(i, (8, 9, 20)), change=change)

    return write


def of_two_modalities(folder: Path, i: int) -> None:
    write_series(folder / "1", voxels(i, (8, 9, 7)), Modality="CT", BodyPartExamined="CHEST")
    write_series(folder / "2", voxels(60 + i, (8, 9, 20)), Modality="PT", BodyPartExamined="CHEST")


def of_one_modality_a_class(folder: Path, i: int) -> None:
    write_series(folder, voxels(i), Modality=("CT", "MR")[i % 2], BodyPartExamined="CHEST")


def lying(*orientation: float, spacing_mm: tuple[float, float, float]) -> Callable[..., None]:
    def write(folder: Path, i: int) -> None:
        x = voxels(i, (16, 16, 5))
        write_series(folder, x, orientation=orientation, spacing_mm=spacing_mm)

    return write


def without_preamble(ending: str) -> Callable[[Path, int], None]:
    def write(folder: Path, i: int) -> None:
        write_series(folder, voxels(i, (8, 9, 5)), syntax=ImplicitVRLittleEndian)
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            path.unlink()
            start = content.index(b"\x08\x00\x16\x00", 132)
            (folder / f"{path.stem}{ending}").write_bytes(content[start:])

    return write


def dicomdir(root: Path) -> Is:
    for i in range(8):
        folder = root / "DICOM" / ab(i) / f"PAT{i:05d}" / "STU00001" / "SER00001"
        write_series(folder, voxels(i))
        for path in sorted(folder.iterdir()):
            path.rename(folder / path.stem)
    (root / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(50))
    return Is(8, 8, AB, says=("left out: 1 files, a DICOMDIR, which is not followed",))


def ids(
    patient: Callable[[int], str],
    name: Callable[[int], str] | None,
    n_patients: int,
    *says: str,
    folder: Callable[[int], str] = lambda i: f"E{i:03d}",
) -> Build:
    """Sixteen examinations of two classes, two and two of one PatientID."""

    def build(root: Path) -> Is:
        for i in range(16):
            about = {"PatientID": patient(i)} | ({"PatientName": name(i)} if name else {})
            write_series(root / ab(i // 2) / folder(i), voxels(i), **about)
        return Is(16, n_patients, AB, says=says)

    return build


def people_in_one_folder(root: Path) -> Is:
    for i in range(8):
        folder = root / ab(i) / "x"
        write_series(folder, voxels(i, (8, 9, 5)), PatientID=f"P{i}")
        for k, path in enumerate(sorted(folder.iterdir())):
            path.rename(root / ab(i) / f"im_{i}_{k}.dcm")
        folder.rmdir()
    return Is(
        8, 8, AB, says=("benign: the files of 4 people lie in one folder, and are told apart",)
    )


def people_in_a_persons_folder(root: Path) -> Is:
    for i in range(16):
        write_series(root / ab(i) / f"batch{i // 4}x" / f"s{i}", voxels(i), PatientID=f"P{i}")
    return Is(refused=r"hold files of several PatientIDs \(2 in benign/batch0x\)")


def one_name_two_people(root: Path) -> Is:
    for k, town in enumerate(("Utrecht", "Amsterdam")):
        for i in range(8):
            folder = root / town / ab(i) / f"P{i:03d}"
            write_series(folder, voxels(i + 8 * k), PatientID=f"{town}{i}")
    return Is(16, 16, AB, says=("8 names of folders stand for several PatientIDs",))


def pictures_of_people(root: Path) -> Is:
    for i in range(16):
        path = root / ab(i // 2) / f"x{i}.dcm"
        path.parent.mkdir(exist_ok=True)
        single(path, i, PatientID=f"P{i // 2}", Modality="CR", BodyPartExamined="CHEST")
    return Is(16, 8, AB, says=("patients are told by PatientID: 8 of 16 images",))


def pictures_of_people_in_a_table(root: Path) -> Is:
    for i in range(16):
        path = root / "images" / f"x{i}.dcm"
        path.parent.mkdir(exist_ok=True)
        single(path, i, PatientID=f"P{i // 2}", Modality="CR", BodyPartExamined="CHEST")
    table(root / "l.csv", "image,diagnosis", ([f"x{i}", ab(i // 2)] for i in range(16)))
    return Is(16, 8, AB, says=("patients are told by PatientID: 8 of 16 images",))


def dicom_palette(root: Path) -> Is:
    def coloured(dataset: Dataset, number: int) -> None:
        dataset.PhotometricInterpretation = "PALETTE COLOR"
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelData = 7, np.arange(72, dtype=np.uint8).tobytes()

    for i in range(12):
        path = root / ab(i) / f"us{i}.dcm"
        path.parent.mkdir(exist_ok=True)
        single(path, i, coloured, Modality="US", BodyPartExamined="BREAST")
    return Is(12, 12, AB, init_refuses="class benign: 6 of 6 scans refused: has a colour palette")


def collection_with_a_table(root: Path) -> Is:
    """TCIA: the only folder above the patients is the collection's; tables name these."""
    rows, listed = [], []
    for i in range(8):
        who = f"LIDC-IDRI-{i + 1:04d}"
        place = f"LIDC-IDRI/{who}/01-01-2000-NA-NA-{30000 + i}/3000566.000000-NA-{i:05d}"
        write_series(
            *(root / place, voxels(i)), PatientID=who, Modality="CT", BodyPartExamined="CHEST"
        )
        listed.append([generate_uid(), "LIDC-IDRI", who, "CT", f"./{place}", 4])
        rows.append([who, i % 2])
    header = "Series UID,Collection,Subject ID,Modality,File Location,Number of Images"
    table(root / "metadata.csv", header, listed)
    table(root / "tcia-diagnosis-data.csv", "TCIA Patient ID,diagnosis", rows)
    return Is(8, 8, ("0", "1"))


def said(n: int, what: str, slices: int = 28) -> Is:
    return Is(8, 8, AB, says=(f"left out: {n} files, {what}", SLICES.format(slices)))


LEFT_SCOUT = r"a localizer \(scout\) beside the series that is read"
OBJECTS = {
    "report": (BasicTextSRStorage, "SR", "a DICOM report"),
    "key_objects": (KeyObjectSelectionDocumentStorage, "KO", "a DICOM report or key object"),
    "presentation": (GrayscaleSoftcopyPresentationStateStorage, "PR", "a DICOM presentation"),
    "structures": (RTStructureSetStorage, "RTSTRUCT", "a DICOM object of radiotherapy"),
}
FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(dicomdir, people_in_one_folder, people_in_a_persons_folder, one_name_two_people),
        *(
            pictures_of_people,
            pictures_of_people_in_a_table,
            dicom_palette,
            collection_with_a_table,
        ),
    )
} | {
    "scout_in_its_folder": people(scout_in_its_folder, said(32, LEFT_SCOUT)),
    "scout_in_its_series": people(scout_in_its_series, said(8, LEFT_SCOUT, 24)),
    "longer_scout": people(longer_scout, said(160, LEFT_SCOUT)),
    "dicom_seg": people(segmentation("seg/1.dcm"), said(8, "a DICOM segmentation")),
    "dicom_seg_beside": people(segmentation("img/1.dcm"), said(8, "a DICOM segmentation")),
    **{
        f"dicom_{name}{at}": people(object_beside(sop, kind, place), said(8, what))
        for name, (sop, kind, what) in OBJECTS.items()
        for at, place in (("", "x/1.dcm"), ("_beside", "img/1.dcm"))
    },
    "two_modalities": people(
        *(of_two_modalities, Is(refused=r"modalities CT \(7 slices\) and PT .* --channels CT"))
    ),
    "a_modality_a_class": people(
        of_one_modality_a_class,
        Is(8, 8, AB, says=("files: 4 DICOM CT, 4 DICOM MR", "odd: the file format alone tells")),
    ),
    "dicom_sagittal": people(
        lying(0, 1, 0, 0, 0, -1, spacing_mm=(1, 1, 6)),
        Is(8, 8, AB, says=("note: slices are sagittal and far apart", SLICES.format(20))),
    ),
    "dicom_coronal": people(
        lying(1, 0, 0, 0, 0, -1, spacing_mm=(1, 1, 1.2)),
        Is(8, 8, AB, says=("note: pixels are not square", SLICES.format(64))),
    ),
    "without_preamble": people(without_preamble(".dcm"), Is(8, 8, AB)),
    "without_preamble_or_ending": people(without_preamble(""), Is(8, 8, AB)),
    "two_exams_of_one_id": ids(
        *(lambda i: f"P{i // 2}", None, 8, "8 folders have the PatientID of another one")
    ),
    "one_id_of_several_names": ids(
        *(lambda i: f"P{i // 2}", lambda i: f"DOE^{i}", 8),
        "8 PatientIDs stand with several PatientNames",
    ),
    "no_ids": ids(lambda i: "", None, 16),
    "anonymous_ids": ids(lambda i: "ANONYMOUS", lambda i: "ANON", 16),
    "one_id_for_all": ids(
        *(lambda i: "4711", None, 16, "PatientID is the same in 16 folders: the folders tell")
    ),
}
