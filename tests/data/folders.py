"""Folders as people have them: what each of the inputs that were misread, and its neighbours, is.

Every builder writes a folder below ``root`` and says what is in it.
"""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from tests.data.dicom_series import voxels, write_series

LPS = np.diag([-1.0, -1.0, 2.0, 1.0])
Build = Callable[[Path], "Is"]


@dataclass(frozen=True)
class Is:
    """What a folder is; or, with ``refused``, what the refusal has to say."""

    scans: int = 0
    patients: int = 0
    classes: tuple[str, ...] = ()
    masks: int = 0
    pool: int = 0
    refused: str = ""


def picture(path: Path, *seed: int | str, size: tuple[int, int] = (20, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise(str(path), *seed).integers(0, 255, size, np.uint8)
    Image.fromarray(pixels).save(path)


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((20, 20), np.uint8)
    pixels[5:12, 5:12] = 255
    Image.fromarray(pixels).save(path)


def volume(path: Path, *seed: int | str, labels: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    x = noise(str(path), *seed).integers(1, 1000, (12, 12, 4), dtype=np.int16)
    if labels:
        x = np.zeros_like(x)
        x[3:8, 3:8, 1:3] = 1
    nib.save(nib.Nifti1Image(x, LPS), path)


def noise(*seed: int | str) -> np.random.Generator:
    return np.random.default_rng(list("|".join(map(str, seed)).encode()))


def table(path: Path, header: str, rows: Iterable[Iterable[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(header.split(","))
        writer.writerows(rows)


def listed(root: Path, cells: Mapping[str, Callable[[int], object]], n: int = 12) -> None:
    """``scans.csv`` of ``n`` pictures, with further columns."""
    for i in range(n):
        picture(root / f"x/{i}.png")
    rows = [[f"x/{i}.png", *(of(i) for of in cells.values())] for i in range(n)]
    table(root / "scans.csv", ",".join(["file", *cells]), rows)


AB = ("benign", "malignant")


def ab(i: int) -> str:
    return AB[i % 2]


# ------------------------------------------------------------------------------------ patients


def monai_zero(root: Path) -> Is:
    entries = []
    for i in range(20):
        volume(root / f"v/{i}.nii.gz")
        entries.append({"image": f"v/{i}.nii.gz", "label": (i // 2) % 2, "patient": i // 2})
    (root / "datalist.json").write_text(json.dumps({"training": entries}))
    return Is(20, 10, ("0", "1"))


def ids_as_numbers(root: Path) -> Is:
    listed(root, {"class": ab, "patient": lambda i: i % 6 if i < 6 else f"{i % 6}.0"})
    return Is(refused=r"patient '0' \(lines? [\d, ]+\) and '0\.0' \(line")


def ids_with_prefix(root: Path) -> Is:
    listed(root, {"class": ab, "patient": lambda i: ("P001", "p001", "001", "x7")[i % 4]})
    return Is(refused=r"'P001' \(lines 2, 6, 10\) and 'p001' \(lines 3, 7, 11\) seem to be one")


def ids_with_zeros(root: Path) -> Is:
    listed(root, {"class": ab, "patient": lambda i: "007" if i == 0 else i})
    return Is(refused="'007' .* and '7' ")


def ids_with_spaces(root: Path) -> Is:
    listed(root, {"class": ab, "patient": lambda i: f"P {i // 2}" if i % 2 else f"P{i // 2}"})
    return Is(refused="'P 0' .* and 'P0' ")


def ids_nfd(root: Path) -> Is:
    forms = ("NFC", "NFD")
    listed(
        root, {"class": ab, "patient": lambda i: unicodedata.normalize(forms[i % 2], f"é{i // 2}")}
    )
    return Is(12, 6, AB)


def ids_apart(root: Path) -> Is:
    """Look-alikes that are people of their own."""
    names = [
        "1-11",
        "11-1",
        "111",
        "a1",
        "b1",
        "TCGA-CS-4941",
        "TCGA-DU-4941",
        "A10",
        "A2",
        "0",
        "10",
        "B10",
    ]
    listed(root, {"class": ab, "patient": lambda i: f"w{names[i]}"})
    return Is(12, 12, AB)


def patient_named(column: str) -> Build:
    def build(root: Path) -> Is:
        listed(root, {"class": ab, column: lambda i: f"s{i // 2}"})
        return Is(12, 6, AB)

    return build


def two_patient_columns(root: Path) -> Is:
    listed(root, {"class": ab, "patient_id": lambda i: i, "subject": lambda i: f"z{i}"})
    return Is(refused="columns patient_id and subject both name the patient")


def blank_patients(root: Path) -> Is:
    listed(root, {"class": ab, "patient": lambda i: "nan" if i in (3, 4) else f"p{i}"})
    return Is(refused=r"lines 5, 6: the patient is blank, and 10 lines name one")


def time_points(root: Path) -> Is:
    for i in range(8):
        for t in (1, 2):
            folder = root / ("LGG", "HGG")[i % 2] / f"H{i:02d}_t{t}"
            volume(folder / f"{folder.name}_flair.nii.gz")
            volume(folder / f"{folder.name}_seg.nii.gz", labels=True)
    return Is(16, 8, ("LGG", "HGG"), 16)


def sessions(root: Path) -> Is:
    for i in range(6):
        for end in ("ses-1", "ses-2", "left", "right"):
            picture(root / ab(i) / f"p{i}_{end}.png")
    return Is(24, 6, AB)


def same_picture_two_patients(root: Path) -> Is:
    for i in range(12):
        picture(root / ab(i) / f"n{i}.png")
    (root / "benign/copy.png").write_bytes((root / "benign/n0.png").read_bytes())
    return Is(13, 12, AB)


def same_picture_two_patients_in_a_table(root: Path) -> Is:
    listed(root, {"class": ab, "patient": lambda i: f"p{i}"})
    (root / "x/2.png").write_bytes((root / "x/0.png").read_bytes())
    return Is(refused=r"lines 2, 4: the same picture under 2 patients")


def same_picture_two_classes(root: Path) -> Is:
    for i in range(12):
        picture(root / ab(i) / f"n{i}.png")
    (root / "malignant/copy.png").write_bytes((root / "benign/n0.png").read_bytes())
    return Is(refused="the same picture in the classes benign and malignant")


def numbers_without_patients(root: Path) -> Is:
    for i in range(300):
        picture(root / f"images/{i}.png")
    table(root / "labels.csv", "index,class", ([i, AB[i // 150]] for i in range(300)))
    return Is(300, 300, AB)


# ------------------------------------------------------------------------------------- classes


def classes_said(*said: str) -> Callable[[int], str]:
    return lambda i: said[i] if i < len(said) else ("HGG", "LGG")[i % 2]


def class_nan(root: Path) -> Is:
    listed(root, {"class": classes_said("nan", "", "N/A")})
    return Is(refused=r"lines 2, 3, 4: the class is blank, nan or N/A")


def class_case(root: Path) -> Is:
    listed(root, {"class": classes_said("hgg")})
    return Is(refused=r"class 'HGG' \(lines .*\) and class 'hgg' \(line 2\) are spellings of one")


def class_zero(root: Path) -> Is:
    listed(root, {"class": lambda i: ("0", "1", "0.0", "1")[i % 4]})
    return Is(refused=r"class '0' .* and class '0\.0' ")


def class_typo(root: Path) -> Is:
    listed(root, {"class": lambda i: "menigioma" if i == 3 else ("glioma", "meningioma")[i % 2]})
    return Is(refused="'menigioma' .*'meningioma' ")


def class_nfd(root: Path) -> Is:
    forms = ("NFC", "NFD")
    listed(
        root,
        {"class": lambda i: unicodedata.normalize(forms[i % 2], "tumör") if i < 6 else "normal"},
    )
    return Is(12, 12, ("normal", "tumör"))


def class_folders_of_two_spellings(root: Path) -> Is:
    for i in range(6):
        for name in ("HGG", "hgg", "LGG"):
            picture(root / name / f"{name}{i}.png")
    return Is(refused="class 'HGG' .* and class 'hgg'")


def csv_class_nan(root: Path) -> Is:
    for i in range(12):
        picture(root / f"images/i{i}.png")
    table(
        root / "metadata.csv",
        "image,diagnosis",
        ([f"i{i}.png", "nan" if i == 4 else ab(i)] for i in range(12)),
    )
    return Is(refused=r"metadata\.csv: line 6: the class \(column diagnosis\) is blank")


def ham10000(root: Path) -> Is:
    rows = []
    for i in range(24):
        name = f"ISIC_{24000 + i:07d}"
        picture(root / f"HAM10000_images_part_{1 + i % 2}/{name}.jpg")
        rows.append(
            [
                f"HAM_{i // 2:07d}",
                name,
                ("bkl", "nv", "mel")[(i // 2) % 3],
                "histo",
                80.0,
                "male",
                "scalp",
            ]
        )
    table(
        root / "HAM10000_metadata.csv", "lesion_id,image_id,dx,dx_type,age,sex,localization", rows
    )
    return Is(24, 12, ("bkl", "mel", "nv"))


def images_masks_metadata(root: Path) -> Is:
    for i in range(12):
        picture(root / f"images/i{i}.png")
        mask(root / f"masks/i{i}.png")
    table(
        root / "metadata.csv",
        "image,label,patient_id",
        ([f"i{i}.png", ab(i), f"q{i // 2}"] for i in range(12)),
    )
    return Is(12, 6, AB, 12)


def isic_one_hot(root: Path) -> Is:
    names = [f"ISIC_{i:07d}" for i in range(12)]
    for name in names:
        picture(root / f"ISIC_2019_Training_Input/{name}.jpg")
    hot = [[n, *(f"{float(i % 3 == c)}" for c in range(3))] for i, n in enumerate(names)]
    table(root / "ISIC_2019_Training_GroundTruth.csv", "image,MEL,NV,BCC", hot)
    table(
        root / "ISIC_2019_Training_Metadata.csv",
        "image,age_approx,lesion_id",
        ([n, 50, f"L{i // 2}"] for i, n in enumerate(names)),
    )
    return Is(12, 6, ("BCC", "MEL", "NV"))


def nih_chest(root: Path) -> Is:
    rows = []
    for i in range(16):
        name = f"{i // 2:08d}_{i % 2:03d}.png"
        picture(root / f"images_{1 + i % 3:03d}/images/{name}")
        found = ("No Finding", "Effusion", "Effusion|Mass", "No Finding")[(i // 2) % 4]
        rows.append([name, found, i % 2, i // 2, 58, "M"])
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender"
    table(root / "Data_Entry_2017.csv", header, rows)
    (root / "train_val_list.txt").write_text("00000000_000.png\n")
    return Is(12, 6, ("No Finding", "Effusion"))


def two_class_columns(root: Path) -> Is:
    for i in range(12):
        picture(root / f"images/i{i}.png")
    table(root / "m.csv", "image,diagnosis,grade", ([f"i{i}", ab(i), i % 3] for i in range(12)))
    return Is(refused="columns diagnosis, grade may each be the class; say which with --class")


def parts_as_folders(root: Path) -> Is:
    for part, n in (("train", 8), ("val", 2), ("test", 4)):
        for i in range(n):
            picture(root / f"data/{part}/{ab(i)}/{part}{i}x.png")
    return Is(14, 14, AB)


def deep_folders(root: Path) -> Is:
    for i in range(12):
        picture(root / f"set/images/{ab(i)}/SOB/{40 * (1 + i % 2)}X/slide-{i}.png")
    return Is(12, 12, AB)


def patients_over_classes(root: Path) -> Is:
    for who in range(8863, 8869):
        for label in (0, 1):
            for i in range(2):
                picture(root / f"{who}/{label}/{who}_x{i}_class{label}.png")
    return Is(24, 24, ("0", "1"))


def pred_folder(root: Path) -> Is:
    for i in range(12):
        picture(root / f"{ab(i)}/n{i}.png")
        picture(root / f"pred/n{i}.png", "pred")
    return Is(12, 12, AB)


# --------------------------------------------------------------------------------------- masks


def busi(root: Path) -> Is:
    for i in range(12):
        name = root / ab(i) / f"{ab(i)} ({i})"
        picture(name.with_name(f"{name.name}.png"))
        mask(name.with_name(f"{name.name}_mask.png"))
    mask(root / "benign/benign (0)_mask_1.png")
    return Is(12, 12, AB, 12)


def mask_folders(root: Path) -> Is:
    for i in range(12):
        picture(root / f"{ab(i)}/images/s-{i}.png")
        mask(root / f"{ab(i)}/Masks/s-{i}.png")
    return Is(12, 12, AB, 12)


def lesion_is_a_class(root: Path) -> Is:
    for i in range(12):
        picture(root / ("healthy", "Lesion")[i % 2] / f"w{i}.png")
        mask(root / ("healthy", "Lesion")[i % 2] / "masks" / f"w{i}.png")
    return Is(12, 12, ("healthy", "Lesion"), masks=12)


def rois_counted_alike(root: Path) -> Is:
    for i in range(6):
        for kind in ("ROI", "normal"):
            picture(root / "train" / kind / f"{i}.png")
    return Is(12, 12, ("normal", "ROI"))


def lesions_are_masks(root: Path) -> Is:
    for i in range(12):
        picture(root / "images" / ab(i) / f"w{i}.png")
        mask(root / "lesions" / ab(i) / f"w{i}.png")
    return Is(12, 12, AB, masks=12)


def lesion_of_dicom(root: Path) -> Is:
    for i in range(6):
        write_series(root / ("healthy", "lesion")[i % 2] / f"D{i}", voxels(i))
    return Is(6, 6, ("healthy", "lesion"))


def mask_words(root: Path) -> Is:
    for i, word in enumerate(
        ("_mask", "_seg", "_Seg", "_segmentation", "_tumor", "-label", "_MASK", "_gt") * 2
    ):
        picture(root / ab(i) / f"w{i}.png")
        mask(root / ab(i) / f"w{i}{word}.png")
    return Is(16, 16, AB, 16)


def seg_in_any_case(root: Path) -> Is:
    for i in range(8):
        folder = root / ("LGG", "HGG")[i % 2] / f"P{i}"
        volume(folder / f"P{i}_T1.nii.gz")
        volume(folder / f"P{i}_Seg.nii.gz", labels=True)
    return Is(8, 8, ("LGG", "HGG"), 8)


def mask_listed_as_scan(root: Path) -> Is:
    listed(root, {"class": ab})
    mask(root / "x/0_mask.png")
    with (root / "scans.csv").open("a") as file:
        file.write("x/0_mask.png,benign\n")
    return Is(refused="line 14: the file is named as the mask of another")


# ------------------------------------------------------------------------------------- volumes


def brats_2020(root: Path) -> Is:
    rows = []
    for part, n in (("Training", 8), ("Validation", 3)):
        top = root / f"BraTS2020_{part}Data/MICCAI_BraTS2020_{part}Data"
        for i in range(1, n + 1):
            name = f"BraTS20_{part}_{i:03d}"
            for what in ("flair", "t1", "t1ce", "t2"):
                volume(top / name / f"{name}_{what}.nii.gz")
            if part == "Training":
                volume(top / name / f"{name}_seg.nii.gz", labels=True)
                rows.append([("LGG", "HGG")[i % 2], "NA", name])
    top = root / "BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData"
    table(top / "name_mapping.csv", "Grade,BraTS_2019_subject_ID,BraTS_2020_subject_ID", rows)
    return Is(8, 8, ("LGG", "HGG"), 8, pool=3)


def brats_2023(root: Path) -> Is:
    rows = []
    for i in range(8):
        for visit in (0, 1):
            name = f"BraTS-GLI-{i:05d}-{visit:03d}"
            for what in ("t1c", "t1n", "t2f", "t2w"):
                volume(root / f"TrainingData/{name}/{name}-{what}.nii.gz")
            volume(root / f"TrainingData/{name}/{name}-seg.nii.gz", labels=True)
            rows.append([name, ("LGG", "HGG")[i % 2]])
    table(root / "labels.csv", "subject_ID,Grade", rows)
    return Is(16, 8, ("LGG", "HGG"), 16)


def nnunet_v2(root: Path) -> Is:
    for i in range(8):
        volume(root / f"imagesTr/c{i}x_0000.nii.gz")
        volume(root / f"imagesTr/c{i}x_0001.nii.gz")
        volume(root / f"labelsTr/c{i}x.nii.gz", labels=True)
    volume(root / "imagesTs/c9x_0000.nii.gz")
    about = {
        "channel_names": {"0": "FLAIR", "1": "T1"},
        "labels": {"background": 0},
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(about))
    table(root / "labels.csv", "case,class", ([f"c{i}x", ("LGG", "HGG")[i % 2]] for i in range(8)))
    return Is(8, 8, ("LGG", "HGG"), 8, pool=1)


def msd_task01(root: Path) -> Is:
    listed_ = []
    for i in range(8):
        name = f"BRATS_{i:03d}.nii.gz"
        (root / "imagesTr").mkdir(parents=True, exist_ok=True)
        x = noise(name).integers(1, 1000, (12, 12, 4, 4), dtype=np.int16)
        nib.save(nib.Nifti1Image(x, LPS), root / "imagesTr" / name)
        volume(root / "labelsTr" / name, labels=True)
        listed_.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    (root / "dataset.json").write_text(json.dumps({"modality": modality, "training": listed_}))
    table(
        root / "labels.csv",
        "case,class",
        ([f"BRATS_{i:03d}", ("LGG", "HGG")[i % 2]] for i in range(8)),
    )
    return Is(8, 8, ("LGG", "HGG"), 8)


def bids(root: Path) -> Is:
    rows = []
    for i in range(8):
        who = f"sub-{i:02d}"
        for ses in ("ses-01", "ses-02"):
            for what in ("T1w", "FLAIR"):
                volume(root / f"{who}/{ses}/anat/{who}_{ses}_{what}.nii.gz")
        rows.append([who, ("control", "patient")[i % 2], 40 + i, "F"])
    table(root / "participants.tsv", "participant_id,group,age,sex", rows)
    (root / "dataset_description.json").write_text("{}")
    return Is(16, 8, ("control", "patient"))


def dicom_mixed_endings(root: Path) -> Is:
    for i in range(8):
        folder = root / ("LGG", "HGG")[i % 2] / f"D{i}"
        write_series(folder, voxels(i, (8, 9, 7)))
        files = sorted(folder.glob("*.dcm"))
        files[0].rename(folder / "IM0001")
        files[1].rename(folder / "x.IMA")
        files[2].rename(folder / "1.2.840.4")
    return Is(8, 8, ("LGG", "HGG"))


def dicom_nested(root: Path) -> Is:
    for i in range(8):
        write_series(root / ("LGG", "HGG")[i % 2] / f"D{i}" / "study1" / "series", voxels(i))
    return Is(8, 8, ("LGG", "HGG"))


def dicom_two_series(root: Path) -> Is:
    for i in range(8):
        folder = root / ("LGG", "HGG")[i % 2] / f"D{i}"
        write_series(folder / "a", voxels(i, (8, 9, 5)))
        write_series(folder / "b", voxels(100 + i, (8, 9, 5)))
    return Is(refused="a patient has 2 series of 5, 5 slices, and nothing says which is meant")


def medmnist(root: Path) -> Is:
    rng = noise("medmnist")
    arrays = {}
    for part, n in (("train", 12), ("val", 4), ("test", 4)):
        arrays[f"{part}_images"] = rng.integers(0, 255, (n, 28, 28), np.uint8)
        arrays[f"{part}_labels"] = (np.arange(n) % 2)[:, None].astype(np.uint8)
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "pneumoniamnist.npz", **arrays)
    return Is(20, 20, ("normal", "pneumonia"))


def noise_everywhere(root: Path) -> Is:
    for i in range(12):
        picture(root / f"{ab(i)}/n{i}.png")
    for name in (
        "._n0.png",
        "Thumbs.db",
        ".DS_Store",
        "__MACOSX/benign/._n0.png",
        "notes.txt",
        "benign/x.xyz",
        "README",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"noise")
    (root / "benign/link.png").symlink_to(root / "benign/n0.png")
    (root / "elsewhere").symlink_to(root / "benign")
    return Is(12, 12, AB)


def people_in_another_table(root: Path) -> Is:
    for i in range(12):
        picture(root / ab(i) / f"n{i}.png")
    table(
        root / "metadata.csv",
        "filename,subject,age",
        ([f"n{i}.png", f"s{i // 4}x{ab(i)[0]}", 50] for i in range(12)),
    )
    return Is(12, 6, AB)


def folders_with_spaces_and_nfd(root: Path) -> Is:
    for i in range(12):
        name = (
            "normal",
            "normal ",
            unicodedata.normalize("NFC", "tumör"),
            unicodedata.normalize("NFD", "tumör"),
        )
        picture(root / name[i % 4] / f"n{i}.png")
    return Is(12, 12, ("normal", "tumör"))


def unpacked_twice(root: Path) -> Is:
    for i in range(12):
        picture(root / f"chest_xray/train/{ab(i)}/person{i}_virus_{i}.png")
        copy = root / f"chest_xray/chest_xray/train/{ab(i)}/person{i}_virus_{i}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((root / f"chest_xray/train/{ab(i)}/person{i}_virus_{i}.png").read_bytes())
    return Is(24, 12, AB)


def paths_of_windows(root: Path) -> Is:
    listed(root, {"class": ab})
    text = (root / "scans.csv").read_text()
    (root / "scans.csv").write_text(text.replace("x/", "x\\"))
    return Is(12, 12, AB)


FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(monai_zero, ids_as_numbers, ids_with_prefix, ids_with_zeros, ids_with_spaces, ids_nfd),
        *(ids_apart, two_patient_columns, blank_patients, time_points, sessions),
        *(same_picture_two_patients, same_picture_two_patients_in_a_table, same_picture_two_classes),
        *(numbers_without_patients, class_nan, class_case, class_zero, class_typo, class_nfd),
        *(class_folders_of_two_spellings, csv_class_nan, ham10000, images_masks_metadata),
        *(isic_one_hot, nih_chest, two_class_columns, parts_as_folders, deep_folders),
        *(patients_over_classes, pred_folder, busi, mask_folders, mask_words, seg_in_any_case),
        *(lesion_is_a_class, rois_counted_alike, lesions_are_masks, lesion_of_dicom),
        *(mask_listed_as_scan, brats_2020, brats_2023, nnunet_v2, msd_task01, bids),
        *(dicom_mixed_endings, dicom_nested, dicom_two_series, medmnist, noise_everywhere),
        *(people_in_another_table, folders_with_spaces_and_nfd, unpacked_twice, paths_of_windows),
    )
} | {
    f"patient_column_{name}": patient_named(name)
    for name in ("patient", "patient_id", "PatientID", "Patient", "subject", "participant_id", "Subject ID")
}  # fmt: skip
