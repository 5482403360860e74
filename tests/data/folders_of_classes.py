"""What a class is, and what a mask: the inputs that took one for another, and their neighbours."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.folders import AB, Build, Is, ab, listed, mask, picture, table, volume


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
    refuses = r"class 0 has 0 usable patients \(6 patients have scans of several classes"
    return Is(24, 6, ("0", "1"), init_refuses=refuses)


def pred_folder(root: Path) -> Is:
    for i in range(12):
        picture(root / f"{ab(i)}/n{i}.png")
        picture(root / f"pred/n{i}.png", "pred")
    return Is(12, 12, AB)


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


def folders_called(*names: str) -> Build:
    """Folders that are no classes."""

    def build(root: Path) -> Is:
        for i in range(12):
            picture(root / names[i % len(names)] / f"n{i}.png")
        return Is(refused="no known layout|fewer than two classes")

    return build


def class_cell(*said: str, refused: str) -> Build:
    def build(root: Path) -> Is:
        listed(root, {"class": classes_said(*said)})
        return Is(refused=refused)

    return build


def training_and_testing(root: Path) -> Is:
    for part in ("Training", "Testing"):
        for name in ("glioma_tumor", "no_tumor"):
            for i in range(6):
                picture(root / part / name / f"{part}{i}.png")
    return Is(24, 24, ("glioma_tumor", "no_tumor"))


def ham10000_with_masks(root: Path) -> Is:
    ham10000(root)
    for path in sorted(root.rglob("ISIC*.jpg")):
        mask(root / "HAM10000_segmentations_lesion_tschandl" / f"{path.stem}_segmentation.png")
    header = ",".join([*(f"pixel{i:04d}" for i in range(16)), "label"])
    table(root / "hmnist_4_4_L.csv", header, ([i] * 16 + [i % 7] for i in range(24)))
    return Is(24, 12, ("bkl", "mel", "nv"), 24)


def pictures_and_labels_folder(root: Path) -> Is:
    for i in range(12):
        picture(root / f"Images/i{i}.png")
        mask(root / f"labels/i{i}.png")
    table(root / "meta.csv", "filename,class", ([f"i{i}.png", ab(i)] for i in range(12)))
    return Is(12, 12, AB, 12)


def masks_named(pattern: str) -> Build:
    def build(root: Path) -> Is:
        for i in range(12):
            picture(root / ab(i) / f"w{i}.png")
            mask(root / ab(i) / pattern.format(f"w{i}"))
        return Is(12, 12, AB, 12)

    return build


def empty_masks_of_one_class(root: Path) -> Is:
    for i in range(12):
        name = f"{ab(i)} ({i})"
        picture(root / ab(i) / f"{name}.png")
        mask(root / ab(i) / f"{name}_mask.png")
        if ab(i) == "benign":
            Image.fromarray(np.zeros((20, 20), np.uint8)).save(root / ab(i) / f"{name}_mask.png")
    return Is(12, 12, AB, 12, says=("odd: 6 masks are empty",))


def volume_masks(*words: str, masks: int = 8, says: tuple[str, ...] = ()) -> Build:
    def build(root: Path) -> Is:
        for i in range(8):
            folder = root / ("LGG", "HGG")[i % 2] / f"P{i}"
            volume(folder / f"P{i}_T1.nii.gz")
            for word in words:
                volume(folder / f"P{i}_{word}.nii.gz", labels=True)
        return Is(8, 8, ("LGG", "HGG"), masks, says=says)

    return build


ORGAN = "left out: 8 files, a mask of the whole brain, head or field of view"
FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(class_nan, class_case, class_zero, class_typo, class_nfd, csv_class_nan, ham10000),
        *(class_folders_of_two_spellings, images_masks_metadata, isic_one_hot, nih_chest),
        *(two_class_columns, parts_as_folders, deep_folders, patients_over_classes, pred_folder),
        *(busi, mask_folders, mask_words, seg_in_any_case, mask_listed_as_scan),
        *(training_and_testing, ham10000_with_masks, pictures_and_labels_folder),
        *(empty_masks_of_one_class, lesion_is_a_class, rois_counted_alike, lesions_are_masks),
    )
} | {
    "folders_" + "_".join(names): folders_called(*names)
    for names in (
        ("images", "masks"), ("Images", "Labels"), ("img", "GT"), ("part_1", "part_2"),
        ("Part A", "Part B"), ("HAM_images_part_1", "HAM_images_part_2"), ("set1", "set2"),
        ("train", "test"), ("Training", "Testing"), ("TrainingData", "ValidationData"),
        ("trainset", "testset"), ("fold0", "fold1"), ("batch1", "batch2"), ("chunk_0", "chunk_1"),
        ("pred", "gt"), ("2019", "2020"), ("site_A", "site_B"), ("center1", "center2"),
        ("patient1", "patient2"), ("axial", "sagittal"), ("subset0", "subset1"),
    )
} | {
    f"class_{said}": class_cell(said, refused=r"line 2: the class is blank, nan or N/A")
    for said in ("NaN", "<NA>", "n/a", "-", "None", "?", "#N/A", "NULL")
} | {
    "class_of_three_spellings": class_cell("hgg", "H.G.G.", refused="are spellings of one"),
    "class_words": class_cell("High grade", "high-grade", refused="are spellings of one"),
    **{f"masks_{p}": masks_named(p) for p in ("{}mask.png", "mask_{}.png", "{}_anno.png")},
    **{
        f"volume_mask_{word}": volume_masks(word)
        for word in ("SEG", "label", "ROI", "tumorMask", "tumor_segmentation", "lesion")
    },
    **{
        f"volume_mask_{word}": volume_masks(word, masks=0, says=(ORGAN,))
        for word in ("brain_mask", "brainmask", "brain_parenchyma_segmentation", "bet_mask")
    },
    "volume_masks_of_both": volume_masks(
        "tumor_segmentation", "brain_segmentation", says=(ORGAN,)
    ),
}  # fmt: skip
