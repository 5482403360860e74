"""Public sets of pictures as their hosts lay them out."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.data.folders import AB, Build, Is, ab, mask, picture, table

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


def odir(root: Path) -> Is:
    """Two eyes of a person, each with its own line."""
    rows = []
    for i in range(N):
        for side in ("left", "right"):
            name = f"{i}_{side}.jpg"
            picture(root / "preprocessed_images" / name)
            said = ("N", "D")[i % 2]
            rows.append(
                [i, 60, "Male", f"{i}_left.jpg", f"{i}_right.jpg", f"['{said}']", "[1, 0]", name]
            )
    header = "ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,labels,target,filename"
    table(root / "full_df.csv", header, rows)
    return Is(refused="full_df.csv:1: column 'ID' .*--patients ID")


def eyepacs(root: Path) -> Is:
    rows = []
    for i in range(N):
        for side in ("left", "right"):
            picture(root / f"train/{10 + i}_{side}.jpeg")
            rows.append([f"{10 + i}_{side}", i % 2])
        picture(root / f"test/{100 + i}_left.jpeg")
    table(root / "trainLabels.csv", "image,level", rows)
    return Is(refused=r"no table says the classes of its .* files \(columns: level\).*--class")


def aptos(root: Path) -> Is:
    for i in range(N):
        picture(root / f"train_images/{i:012x}.png")
    for i in range(6):
        picture(root / f"test_images/{77 + i:012x}.png")
    table(root / "train.csv", "id_code,diagnosis", ([f"{i:012x}", i % 2] for i in range(N)))
    table(root / "test.csv", "id_code", ([f"{77 + i:012x}"] for i in range(6)))
    table(
        root / "sample_submission.csv",
        "id_code,diagnosis",
        ([f"{77 + i:012x}", 0] for i in range(6)),
    )
    return Is(N, N, ("0", "1"), says=("left out: 6 files, has no label in train.csv",))


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


def rsna_pneumonia(root: Path) -> Is:
    """A line for each box; another table with classes in words."""
    boxes, words = [], []
    for i in range(N):
        name = f"{i:08x}-36f6-44b2-b2e6-{i:012x}"
        picture(root / f"stage_2_train_images/{name}.png")
        n = i % 2 * 2
        boxes += [[name, 10 * k, 5, 20, 20, 1] for k in range(n)] or [[name, "", "", "", "", 0]]
        words += [[name, "Lung Opacity" if n else "Normal"]] * max(1, n)
        picture(root / f"stage_2_test_images/{i + 99:08x}-36f6-44b2-b2e6-{i:012x}.png")
    table(root / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", boxes)
    table(root / "stage_2_detailed_class_info.csv", "patientId,class", words)
    return Is(N, N, ("Normal", "Lung Opacity"), says=("left out: 16 files, has no label",))


def rsna_ich(root: Path) -> Is:
    """A line for each image and subtype, in one cell."""
    rows = []
    for i in range(N):
        picture(root / f"stage_2_train/ID_{i:09x}.png")
        rows += [[f"ID_{i:09x}_{what}", i % 2] for what in ("epidural", "subdural", "any")]
    table(root / "stage_2_train.csv", "ID,Label", rows)
    return Is(refused="stage_2_train.csv has no column that names the files")


def vindr(root: Path) -> Is:
    """Three readers, and a line for each box of each of them."""
    rows = []
    for i in range(N):
        picture(root / f"train/{i:032x}.png")
        for reader in ("R8", "R9", "R10"):
            said = ("No finding", "Cardiomegaly")[i % 2 if reader != "R10" else 0]
            rows.append([f"{i:032x}", said, reader, 3, 4])
    table(root / "train.csv", "image_id,class_name,rad_id,x_min,y_min", rows)
    return Is(refused=r"train.csv:\d+: this image_id has another class_name in line .*--positive")


def chexpert_of_one_finding(root: Path) -> Is:
    """A column called label with -1 where nobody is sure."""
    rows = []
    for i in range(24):
        place = f"CheXpert-v1.0-small/train/patient{i // 2:05d}/study{1 + i % 2}/view1_frontal.jpg"
        picture(root / place)
        rows.append([place, 40 + i, ("0.0", "1.0", "-1.0")[i // 2 % 3]])
    table(root / "train.csv", "Path,Age,label", rows)
    return Is(24, 12, ("-1.0", "0.0", "1.0"), says=("class -1.0 of train.csv, label",))


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


def isic_2020(root: Path) -> Is:
    rows = []
    for i in range(N):
        picture(root / f"train/ISIC_{i:07d}.jpg")
        said = (["nevus", "benign", 0], ["melanoma", "malignant", 1])[i // 2 % 2]
        rows.append([f"ISIC_{i:07d}", f"IP_{i // 2:07d}", "male", 45, *said])
    header = "image_name,patient_id,sex,age_approx,diagnosis,benign_malignant,target"
    table(root / "train.csv", header, rows)
    return Is(N, 8, ("melanoma", "nevus"))


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


def hyper_kvasir(root: Path) -> Is:
    """Classes lie at one depth in some branches, and a table says them as well."""
    rows = []
    places = {
        "polyps": "lower-gi-tract/pathological-findings",
        "cecum": "lower-gi-tract/anatomical-landmarks",
        "pylorus": "upper-gi-tract/anatomical-landmarks",
    }
    for i in range(24):
        name = [*places][i % 3]
        picture(root / f"labeled-images/{places[name]}/{name}/{i:08x}-f1.jpg")
        rows.append([f"{i:08x}-f1", "GI", name, places[name].split("/")[1]])
        picture(root / f"unlabeled-images/images/{900 + i:08x}-f1.jpg")
    place = root / "labeled-images/image-labels.csv"
    table(place, "Video file,Organ,Finding,Classification", rows)
    return Is(24, 24, ("cecum", "polyps", "pylorus"))


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


def vindr_mammo(root: Path) -> Is:
    """Four views of an examination."""
    rows = []
    for i in range(N):
        for k, (side, view) in enumerate((s, v) for s in "LR" for v in ("CC", "MLO")):
            file = f"{i:032x}/{i * 8 + k:032x}"
            picture(root / f"images/{file}.png")
            study, image = file.split("/")
            rows.append([study, image, side, view, f"BI-RADS {1 + i % 2 * 3}", "training"])
    header = "study_id,image_id,laterality,view_position,breast_birads,split"
    table(root / "breast-level_annotations.csv", header, rows)
    return Is(refused=r"no table says the classes.*breast_birads.*--class COLUMN")


def rsna_breast(root: Path) -> Is:
    rows = []
    for i in range(N):
        for k, side in enumerate("LR"):
            picture(root / f"train_images/{10000 + i}/{462822612 + 10 * i + k}.png")
            image = 462822612 + 10 * i + k
            rows.append([1 + i % 2, 10000 + i, image, side, "CC", 61.0, i % 2])
    header = "site_id,patient_id,image_id,laterality,view,age,label"
    table(root / "train.csv", header, rows)
    return Is(2 * N, N, ("0", "1"))


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


def bus_bra(root: Path) -> Is:
    rows = []
    for i in range(N):
        for side in "lr":
            picture(root / f"Images/bus_{i:04d}-{side}.png")
            mask(root / f"Masks/mask_{i:04d}-{side}.png")
            rows.append([f"bus_{i:04d}-{side}", i, "Ductal", ab(i), side])
    table(root / "bus_data.csv", "ID,Case,Histology,Pathology,Side", rows)
    return Is(refused="column 'Case' .16 values in 32 lines. seems to say who .*--patients Case")


def pad_ufes(root: Path) -> Is:
    rows = []
    for i in range(24):
        name = f"PAT_{1500 + i // 2}_{1700 + i}_{530 + i}.png"
        picture(root / f"imgs_part_{1 + i % 3}/{name}")
        rows.append([f"PAT_{1500 + i // 2}", 1700 + i, "true", ("BCC", "NEV")[i // 2 % 2], name])
    table(root / "metadata.csv", "patient_id,lesion_id,smoke,diagnostic,img_id", rows)
    return Is(24, 12, ("BCC", "NEV"))


def derm7pt(root: Path) -> Is:
    """Two pictures of a case in a line."""
    rows = []
    for i in range(N):
        for kind in ("aal", "aam"):
            picture(root / f"images/NEL/N{kind}{i:03d}.jpg")
        rows.append(
            [i, ("nevus", "melanoma")[i % 2], f"NEL/Naal{i:03d}.jpg", f"NEL/Naam{i:03d}.jpg"]
        )
    table(root / "meta/meta.csv", "case_num,diagnosis,clinic,derm", rows)
    says = ("column derm names further files of 16 lines",)
    return Is(N, N, ("melanoma", "nevus"), says=says)


def rfmid(root: Path) -> Is:
    """Three parts that number their pictures alike, each with its own table."""
    for part, name, n in (
        ("Training", "Training", 12),
        ("Evaluation", "Validation", 6),
        ("Test", "Test", 6),
    ):
        top = root / f"{part}_Set"
        for i in range(1, n + 1):
            picture(top / name / f"{i}.png")
        word = "Testing" if name == "Test" else name
        rows = ([i, i % 2] for i in range(1, n + 1))
        table(top / f"RFMiD_{word}_Labels.csv", "ID,diagnosis", rows)
    return Is(24, 24, ("0", "1"), says=(r"\(12 train, 6 val, 6 test\) are kept",))


def idrid(root: Path) -> Is:
    """Parts in folders with letters before them, tables for each, columns without a name."""
    for letter, part, n in (("a", "Training", 12), ("b", "Testing", 6)):
        rows = []
        for i in range(1, n + 1):
            picture(root / f"1. Original Images/{letter}. {part} Set/IDRiD_{i:03d}.jpg")
            rows.append([f"IDRiD_{i:03d}", i % 2, "", ""])
        place = root / f"2. Groundtruths/{letter}. IDRiD_Disease Grading_{part} Labels.csv"
        table(place, "Image name,grade,,", rows)
    return Is(18, 18, ("0", "1"), says=(r"\(12 train, 6 test\) are kept",))


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


def roboflow_classes(root: Path) -> Is:
    for part, n in (("train", 12), ("valid", 6), ("test", 6)):
        rows = []
        for i in range(n):
            name = f"{part}{i}_jpg.rf.{i:012x}{part}.jpg"
            picture(root / part / name)
            rows.append([name, i % 2, 1 - i % 2])
        table(root / part / "_classes.csv", "filename, glioma, meningioma", rows)
    says = (r"\(12 train, 6 val, 6 test\) are kept",)
    return Is(24, 24, ("glioma", "meningioma"), says=says)


def patients_removed(root: Path) -> Is:
    """INbreast: every patient is called removed."""
    rows = []
    for i in range(N):
        picture(root / f"images/{20586908 + i}.png")
        rows.append(["removed", "R", "CC", 20586908 + i, ab(i)])
    table(root / "INbreast.csv", "Patient ID,Laterality,View,File Name,diagnosis", rows)
    return Is(N, N, AB, says=("column Patient ID says the same of all",))


def inbreast(root: Path) -> Is:
    """A file's name begins with what its table calls it."""
    lines = ["Patient ID;Laterality;File Name;Bi-Rads"]
    for i in range(N):
        name = f"{20586908 + i}_{i:016x}_MG_R_CC_ANON"
        picture(root / f"ALL-IMGS/{name}.png")
        lines.append(f"removed;R;{20586908 + i};{1 + i % 2 * 4}")
    (root / "INbreast.csv").write_text("\n".join(lines))
    return Is(refused=r"INbreast.csv.* File Name .*begin")


def several_findings_a_line(root: Path) -> Is:
    """One column a finding, several of which may be 1."""
    rows = []
    for i in range(N):
        picture(root / f"images/x{i:03d}.png")
        rows.append([f"x{i:03d}.png", i % 2, int(i % 4 > 1), 0])
    table(root / "train.csv", "image,edema,effusion,mass", rows)
    return Is(refused=r"no table says the classes.*edema, effusion, mass.*--class COLUMN")


def left_right_and_mask(root: Path) -> Is:
    """A line with two pictures of one person, and a mask of one of them."""
    rows = []
    for i in range(N):
        for side in ("L", "R"):
            picture(root / f"img/{i:03d}{side}x.png")
        mask(root / f"msk/{i:03d}Ly.png")
        rows.append([f"img/{i:03d}Lx.png", f"img/{i:03d}Rx.png", f"msk/{i:03d}Ly.png", ab(i)])
    table(root / "pairs.csv", "left_image,right_image,mask,diagnosis", rows)
    says = ("column right_image names further files of 16 lines",)
    return Is(N, N, AB, N, says=says)


def near_ids_of_pictures(root: Path) -> Is:
    """A table's ids of patients, which are one person's."""
    rows = []
    for i in range(N):
        picture(root / f"images/i{i}.png")
        who = f"P{i:03d}" if i % 2 else f"p{i + 1}"
        rows.append([f"i{i}.png", ab(i // 2), who])
    table(root / "labels.csv", "image,diagnosis,patient", rows)
    return Is(refused=r"patient 'P001' .* and 'p1' .*seem to be one person's")


FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(kermany_oct, eyepacs, aptos, covid_ct, breakhis_folds, unpacked_in_itself),
        *(malaria, rsna_pneumonia, rsna_ich, montgomery),
        *(shenzhen_flat, isic_2020, isic_2017, ph2, lc25000, nct_crc, blood_cells),
        *(vindr_mammo, rsna_breast, kermany_chest_twice, covid_radiography),
        *(refuge, oasis_slices, mura, tcga_tiles, yolo, roboflow_classes),
        *(several_findings_a_line,),
        *(near_ids_of_pictures,),
    )
}
