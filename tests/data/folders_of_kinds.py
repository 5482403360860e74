"""Public kinds of folders, and what lies about in them."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.data.dicom_series import voxels, write_series
from tests.data.folders import AB, LPS, Build, Is, ab, listed, noise, picture, table, volume


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


def lesion_of_dicom(root: Path) -> Is:
    for i in range(6):
        write_series(root / ("healthy", "lesion")[i % 2] / f"D{i}", voxels(i))
    return Is(6, 6, ("healthy", "lesion"))


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


def brats_2018(root: Path) -> Is:
    top = root / "MICCAI_BraTS_2018_Data_Training"
    for grade in ("HGG", "LGG"):
        for i in range(6):
            name = f"Brats18_TCIA{grade}{i:02d}_1"
            volume(top / grade / name / f"{name}_flair.nii.gz")
            volume(top / grade / name / f"{name}_seg.nii.gz", labels=True)
    table(top / "survival_data.csv", "Brats18ID,Age,Survival", [["Brats18_TCIAHGG00_1", 60, 300]])
    return Is(12, 12, ("LGG", "HGG"), 12)


def brats_training_and_validation(root: Path) -> Is:
    for part in ("Training", "Validation"):
        for i in range(8):
            name = f"BraTS20_{part}_{i:03d}"
            volume(root / f"MICCAI_BraTS2020_{part}Data" / name / f"{name}_flair.nii.gz")
    return Is(refused="nothing says their classes")


def volumes_ending(ending: str, kind: str) -> Build:
    """Formats that nothing here reads."""

    def build(root: Path) -> Is:
        for i in range(8):
            path = root / ab(i) / f"P{i}" / f"P{i}_t1{ending}"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"ObjectType = Image" + bytes([i]))
        refused = rf"class benign: 4 of 4 scans refused: is {kind}, .* convert it to NIfTI"
        return Is(8, 8, AB, init_refuses=refused)

    return build


def dicom_of_any_ending(root: Path) -> Is:
    for i in range(8):
        folder = root / ab(i) / f"D{i}"
        write_series(folder, voxels(i, (8, 9, 7)))
        for k, path in enumerate(sorted(folder.glob("*.dcm"))):
            path.rename(folder / (f"image.{k}" if k % 2 else f"I{k}.DCM"))
    return Is(8, 8, AB, says=("class benign: 4 patients, 28 slices",))


def dicom_patients_in_a_table(root: Path) -> Is:
    for i in range(8):
        write_series(root / f"D{i:02d}" / "head", voxels(i))
    table(root / "labels.csv", "patient,class", ([f"D{i:02d}", ab(i)] for i in range(8)))
    return Is(8, 8, AB)


def dicom_series_in_a_table(root: Path) -> Is:
    for i in range(8):
        for k, what in enumerate(("T1", "FLAIR")):
            write_series(root / f"D{i:02d}" / what, voxels(i + 100 * k))
    table(root / "labels.csv", "patient,class", ([f"D{i:02d}", ab(i)] for i in range(8)))
    return Is(refused="a patient has 2 series of .* nothing says which is meant")


def table_that_is_no_csv(name: str, content: bytes, said: str) -> Build:
    def build(root: Path) -> Is:
        for i in range(12):
            picture(root / f"images/i{i}.png")
        (root / name).write_bytes(content)
        return Is(refused=said)

    return build


def table_with_semicolons(root: Path) -> Is:
    for i in range(12):
        picture(root / f"images/i{i}.png")
    lines = ["image;class", *(f"i{i}.png;{ab(i)}" for i in range(12))]
    (root / "labels.csv").write_text("\n".join(lines))
    return Is(12, 12, AB)


FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(brats_2018, brats_2020, brats_2023, brats_training_and_validation, nnunet_v2, msd_task01),
        *(
            lesion_of_dicom,
            bids,
            dicom_mixed_endings,
            dicom_nested,
            dicom_two_series,
            dicom_of_any_ending,
        ),
        *(dicom_patients_in_a_table, dicom_series_in_a_table, medmnist, noise_everywhere),
        *(people_in_another_table, folders_with_spaces_and_nfd, unpacked_twice, paths_of_windows),
    )
} | {
    "meta_image": volumes_ending(".mha", "MetaImage"),
    "nrrd": volumes_ending(".nrrd", "NRRD"),
    "freesurfer": volumes_ending(".mgz", "FreeSurfer's MGH"),
    "spreadsheet": table_that_is_no_csv("labels.xlsx", b"PK", "labels.xlsx: save it as CSV"),
    "semicolons": table_with_semicolons,
}
