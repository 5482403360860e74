"""Public sets whose pictures lie in folders of classes, as their hosts lay them out."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.data.folders import AB, Build, Is, mask, picture, table

N = 16


def kermany_oct(root: Path) -> Is:
    """https://data.mendeley.com/datasets/rscbjbr9sj: (disease)-(patient)-(number of the image)."""
    for part, n in (("train", 8), ("test", 2)):
        for i in range(n):
            for name in ("CNV", "NORMAL"):
                who = 1016000 + 7 * i + (name == "NORMAL") * 1000
                for k in range(1, 4):
                    picture(root / f"OCT2017 /{part}/{name}/{name}-{who}-{k}.jpeg")
    return Is(60, 16, ("NORMAL", "CNV"), says=("4 of 16 patients are in more than one",))


def covid_ct(root: Path) -> Is:
    for i in range(N):
        picture(root / f"Images-processed/CT_COVID/2020.01.24.919183-p{i}-132.png")
        picture(root / f"Images-processed/CT_NonCOVID/{100 + i}.jpg")
    for part in ("train", "test"):
        path = root / f"Data-split/COVID/{part}CT_COVID.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("2020.01.24.919183-p0-132.png\n")
    return Is(2 * N, 2 * N, ("CT_COVID", "CT_NonCOVID"))


def breakhis_folds(root: Path) -> Is:
    """Every picture stands in five lines of Folds.csv."""
    rows = []
    for name, kind in (("benign", "adenosis"), ("malignant", "ductal_carcinoma")):
        for who in range(5):
            for i in range(4):
                slide = f"SOB_{name[0].upper()}_A-14-{22549 + 7 * who}"
                place = f"BreaKHis_v1/histology_slides/breast/{name}/SOB/{kind}/{slide}/40X"
                file = f"{place}/{slide}-40-{i:03d}.png"
                picture(root / file)
                for fold in range(1, 6):
                    rows.append([fold, 40, "test" if i == fold else "train", file])
    table(root / "Folds.csv", "fold,mag,grp,filename", rows)
    return Is(40, 10, AB, says=("patients are the 10 folders below the classes",))


def unpacked_in_itself(root: Path) -> Is:
    """Brain MRI for tumour detection: yes/, no/ and the same again in a folder."""
    for i in range(N):
        for name in ("yes", "no"):
            path = root / name / f"{name[0].upper()}{i}.jpg"
            picture(path)
            copy = root / "brain_tumor_dataset" / name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    return Is(4 * N, 2 * N, ("no", "yes"), says=("32 files are copies of another one",))


def malaria(root: Path) -> Is:
    for top in ("cell_images", "cell_images/cell_images"):
        for i in range(N):
            for name in ("Parasitized", "Uninfected"):
                k = ("Parasitized", "Uninfected").index(name) * 50 + i // 2
                path = root / f"{top}/{name}/C{k}P{k}thinF_IMG_2015{i:04d}_cell_{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if top == "cell_images":
                    picture(path)
                else:
                    shutil.copy(root / "cell_images" / name / path.name, path)
            (root / top / "Uninfected/Thumbs.db").write_bytes(b"x")
    return Is(64, 16, ("Parasitized", "Uninfected"))


def montgomery(root: Path) -> Is:
    """The class is in the name; masks of both lungs lie in folders of their own."""
    for i in range(1, N + 1):
        name = f"MCUCXR_{i:04d}_{i % 2}.png"
        picture(root / "MontgomerySet/CXR_png" / name)
        for side in ("left", "right"):
            mask(root / f"MontgomerySet/ManualMask/{side}Mask" / name)
        (root / "MontgomerySet/ClinicalReadings").mkdir(parents=True, exist_ok=True)
        (root / f"MontgomerySet/ClinicalReadings/{name[:-4]}.txt").write_text("M 45Y normal")
    return Is(
        refused="(no known layout|fewer than two classes).*names end in _0 or _1: if that is the class"
    )


def shenzhen_flat(root: Path) -> Is:
    for i in range(1, N + 1):
        picture(root / f"images/CHNCXR_{i:04d}_{i % 2}.png")
        mask(root / f"masks/CHNCXR_{i:04d}_{i % 2}_mask.png")
    return Is(
        refused="(no known layout|fewer than two classes).*names end in _0 or _1: if that is the class"
    )


def isic_2017(root: Path) -> Is:
    """Superpixels lie beside the pictures, masks in a folder of their own."""
    rows = []
    for i in range(N):
        picture(root / f"ISIC-2017_Training_Data/ISIC_{i:07d}.jpg")
        picture(root / f"ISIC-2017_Training_Data/ISIC_{i:07d}_superpixels.png")
        mask(root / f"ISIC-2017_Training_Part1_GroundTruth/ISIC_{i:07d}_segmentation.png")
        rows.append([f"ISIC_{i:07d}", float(i % 2), float(i % 2 == 0)])
    place = root / "ISIC-2017_Training_Part3_GroundTruth.csv"
    table(place, "image_id,melanoma,seborrheic_keratosis", rows)
    return Is(N, N, ("melanoma", "seborrheic_keratosis"), N)


def ph2(root: Path) -> Is:
    rows = []
    for i in range(N):
        who = f"IMD{i + 2:03d}"
        top = root / "PH2 Dataset images" / who
        picture(top / f"{who}_Dermoscopic_Image/{who}.bmp")
        mask(top / f"{who}_lesion/{who}_lesion.bmp")
        mask(top / f"{who}_roi/{who}_R1_Label3.bmp")
        rows.append([who, ("Common Nevus", "Melanoma")[i % 2]])
    table(root / "PH2_dataset.csv", "Image Name,diagnosis", rows)
    return Is(N, N, ("Common Nevus", "Melanoma"), N)


def lc25000(root: Path) -> Is:
    """Kinds of tissue below an organ each."""
    for organ, kinds in (("colon", ("aca", "n")), ("lung", ("aca", "n", "scc"))):
        for kind in kinds:
            for i in range(8):
                place = f"lung_colon_image_set/{organ}_image_sets/{organ}_{kind}"
                picture(root / f"{place}/{organ}{kind}{i}.jpeg")
    return Is(40, 40, ("colon_aca", "colon_n", "lung_aca", "lung_n", "lung_scc"))


def nct_crc(root: Path) -> Is:
    """Two sets with the same classes side by side."""
    for part in ("NCT-CRC-HE-100K", "CRC-VAL-HE-7K"):
        for name in ("ADI", "TUM", "STR"):
            for i in range(6):
                picture(root / f"{part}/{name}/{name}-{part[4:6]}{i}X.tif")
    return Is(36, 36, ("ADI", "STR", "TUM"))


def blood_cells(root: Path) -> Is:
    for part in ("TRAIN", "TEST", "TEST_SIMPLE"):
        for k, name in enumerate(("EOSINOPHIL", "LYMPHOCYTE")):
            for i in range(6):
                picture(root / f"dataset2-master/images/{part}/{name}/_{k}_{i * 7}.jpeg", part)
    for i in range(6):
        picture(root / f"dataset-master/JPEGImages/BloodImage_{i:05d}.jpg")
    rows = [[i, i, ("EOSINOPHIL", "LYMPHOCYTE")[i % 2]] for i in range(6)]
    table(root / "dataset-master/labels.csv", ",Image,Category", rows)
    return Is(36, 12, ("EOSINOPHIL", "LYMPHOCYTE"))


def kermany_chest_twice(root: Path) -> Is:
    for top in ("chest_xray", "chest_xray/chest_xray"):
        for i in range(8):
            for part in ("train", "test"):
                for name, file in (
                    ("NORMAL", f"IM-{i + 10 * (part == 'test'):04d}-0001.jpeg"),
                    ("PNEUMONIA", f"person{i + 10 * (part == 'test')}_bacteria_{i}.jpeg"),
                ):
                    path = root / top / part / name / file
                    if top == "chest_xray":
                        picture(path)
                    else:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy(root / "chest_xray" / part / name / file, path)
    system = root / "chest_xray/__MACOSX/chest_xray/train/NORMAL/._IM-0001.jpeg"
    system.parent.mkdir(parents=True)
    system.write_bytes(b"x")
    return Is(64, 32, ("NORMAL", "PNEUMONIA"), says=("32 files are copies of another one",))


def covid_radiography(root: Path) -> Is:
    top = root / "COVID-19_Radiography_Dataset"
    for name in ("COVID", "Normal", "Viral Pneumonia"):
        for i in range(1, 9):
            picture(top / f"{name}/images/{name}-{i}.png")
            mask(top / f"{name}/masks/{name}-{i}.png")
        (top / f"{name}.metadata.xlsx").write_bytes(b"PK")
    return Is(24, 24, ("Normal", "COVID", "Viral Pneumonia"), 24)


def refuge(root: Path) -> Is:
    for name in ("Glaucoma", "Non-Glaucoma"):
        for i in range(8):
            picture(root / f"REFUGE-Training400/Training400/{name}/{name[0].lower()}{i:04d}.jpg")
            place = f"Annotation-Training400/Disc_Cup_Masks/{name}/{name[0].lower()}{i:04d}.bmp"
            mask(root / place)
    return Is(16, 16, ("Glaucoma", "Non-Glaucoma"), 16)


def oasis_slices(root: Path) -> Is:
    """Slices of volumes as pictures: OASIS-1 on Kaggle."""
    for name in ("Mild Dementia", "Non Demented"):
        for i in range(6):
            who = i + 20 * (name[0] == "N")
            for k in (100, 101, 102):
                picture(root / f"Data/{name}/OAS1_{who:04d}_MR1_mpr-1_{k}.jpg")
    return Is(36, 12, ("Mild Dementia", "Non Demented"))


def mura(root: Path) -> Is:
    """Parts of the body lie above the people, whose examinations are called after the class."""
    for part in ("train", "valid"):
        for body in ("XR_WRIST", "XR_HAND"):
            for i in range(6):
                who = i + 50 * (part == "valid") + 20 * (body == "XR_HAND")
                said = ("positive", "negative")[i % 2]
                for k in (1, 2):
                    place = f"MURA-v1.1/{part}/{body}/patient{who:05d}/study1_{said}/image{k}.png"
                    picture(root / place)
    (root / "MURA-v1.1/train_image_paths.csv").write_text("MURA-v1.1/train/XR_WRIST/p.png\n" * 2)
    return Is(48, 24, ("negative", "positive"))


def tcga_tiles(root: Path) -> Is:
    for i in range(32):
        name = ("MSS", "MSIMUT")[i // 4 % 2]
        slide = f"TCGA-AA-{3800 + i // 4}-01Z-00-DX1"
        picture(root / f"{name}/blk-{i:04X}WTEEYVP-{slide}.png")
    return Is(32, 8, ("MSIMUT", "MSS"))


def yolo(root: Path) -> Is:
    for part in ("train", "val"):
        for i in range(8):
            picture(root / f"{part}/images/{part}{i}.jpg")
            (root / f"{part}/labels").mkdir(parents=True, exist_ok=True)
            (root / f"{part}/labels/{part}{i}.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text("nc: 2\n")
    return Is(refused="(no known layout|fewer than two classes).*txt and 15 like it: if it says")


FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(
            kermany_oct,
            covid_ct,
            breakhis_folds,
            unpacked_in_itself,
            malaria,
            montgomery,
        ),
        *(
            shenzhen_flat,
            isic_2017,
            ph2,
            lc25000,
            nct_crc,
            blood_cells,
        ),
        *(
            kermany_chest_twice,
            covid_radiography,
            refuge,
            oasis_slices,
            mura,
            tcga_tiles,
        ),
        *(yolo,),
    )
}
