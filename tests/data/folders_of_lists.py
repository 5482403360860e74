"""Public sets whose pictures a table lists, as their hosts lay them out."""

from __future__ import annotations

from pathlib import Path

from tests.data.folders import AB, Build, Is, ab, mask, picture, table

N = 16


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
    return Is(refused="full_df.csv:1: column 'ID' .*--patients 'ID'")


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
    return Is(
        24,
        12,
        ("-1.0", "0.0", "1.0"),
        says=("class -1.0 of train.csv, column label .* nobody is sure of",),
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


def bus_bra(root: Path) -> Is:
    rows = []
    for i in range(N):
        for side in "lr":
            picture(root / f"Images/bus_{i:04d}-{side}.png")
            mask(root / f"Masks/mask_{i:04d}-{side}.png")
            rows.append([f"bus_{i:04d}-{side}", i, "Ductal", ab(i), side])
    table(root / "bus_data.csv", "ID,Case,Histology,Pathology,Side", rows)
    return Is(refused="column 'Case' .16 values in 32 lines. seems to say who .*--patients 'Case'")


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
    lines = ["Patient ID;Laterality;File Name;pathology"]
    for i in range(N):
        name = f"{20586908 + i}_{i:016x}_MG_R_CC_ANON"
        picture(root / f"ALL-IMGS/{name}.png")
        lines.append(f"removed;R;{20586908 + i};{ab(i)}")
    (root / "INbreast.csv").write_text("\n".join(lines))
    says = ("ids of column File Name are what names begin with",)
    return Is(N, N, AB, says=says)


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
        *(
            odir,
            eyepacs,
            aptos,
            rsna_pneumonia,
            rsna_ich,
            vindr,
            chexpert_of_one_finding,
        ),
        *(
            isic_2020,
            hyper_kvasir,
            vindr_mammo,
            rsna_breast,
            bus_bra,
            pad_ufes,
            derm7pt,
        ),
        *(
            rfmid,
            idrid,
            roboflow_classes,
            patients_removed,
            inbreast,
        ),
        *(
            several_findings_a_line,
            left_right_and_mask,
            near_ids_of_pictures,
        ),
    )
}
