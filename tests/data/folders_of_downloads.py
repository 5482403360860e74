"""Public sets as they are unpacked, and what tools leave in folders: what was misread, and its
neighbours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.data.folders import AB, Build, Is, ab, mask, picture, table, volume

N = 16


def chexpert(root: Path) -> Is:
    """Examinations and people are folders; findings are columns, -1 where nobody is sure."""
    rows = []
    for i in range(N):
        place = f"CheXpert-v1.0-small/train/patient{i // 2:05d}/study{1 + i % 2}/view1_frontal.jpg"
        picture(root / place)
        rows.append([place, "Male", 40 + i, "Frontal", ["", 0.0, 1.0, -1.0][i % 4], i % 2])
    header = "Path,Sex,Age,Frontal/Lateral,Cardiomegaly,Edema"
    table(root / "CheXpert-v1.0-small/train.csv", header, rows)
    return Is(refused=r"no table says the classes.*Cardiomegaly, Edema.*--class COLUMN")


def mimic_cxr(root: Path) -> Is:
    rows = []
    for i in range(N):
        picture(root / f"files/p10/p{10000000 + i // 2}/s{50000000 + i}/{i:08x}-aaaa.jpg")
        rows.append([f"{i:08x}-aaaa", 10000000 + i // 2, 50000000 + i, "PA"])
    table(root / "mimic-cxr-2.0.0-metadata.csv", "dicom_id,subject_id,study_id,ViewPosition", rows)
    return Is(refused=r"no table says the classes.*--class COLUMN")


def people_as_folders_alone(root: Path) -> Is:
    for i in range(6):
        for k in range(5):
            picture(root / f"AMC-{i:03d}_T{i % 2}/{k}.png")
    return Is(refused="no known layout")


def days_and_identifiers(root: Path) -> Is:
    for i in range(12):
        picture(root / f"1.3.6.1.4.1.9590.100.{i % 3}/2019-03-{i:02d}/{i}.png")
    return Is(refused="no known layout")


def grades_as_folders(root: Path) -> Is:
    for i in range(24):
        picture(root / f"grade{i % 3}/x{i}.png")
    return Is(24, 24, ("grade0", "grade1", "grade2"))


def sample_submission(root: Path) -> Is:
    for i in range(N):
        picture(root / f"train/{i:040x}.png")
    for i in range(6):
        picture(root / f"test/{99 + i:040x}.png")
    table(root / "train_labels.csv", "id,label", [[f"{i:040x}", i % 2] for i in range(N)])
    table(root / "sample_submission.csv", "id,label", [[f"{99 + i:040x}", 0] for i in range(6)])
    return Is(N, N, ("0", "1"), says=("left out: 6 files, has no label in train_labels.csv; add",))


def classes_in_brackets(root: Path) -> Is:
    """PadChest: a list a cell; scans of several classes are left out."""
    cells = ("['normal']", "['effusion']", "['effusion', 'cardiomegaly']", "['normal']")
    rows = []
    for i in range(24):
        picture(root / f"{i // 8}/21684{i:05d}.png")
        rows.append([f"21684{i:05d}.png", i // 8, 839860 + i, cells[i % 4]])
    table(root / "labels.csv", "ImageID,ImageDir,PatientID,Labels", rows)
    return Is(18, 18, ("normal", "effusion"), says=("left out: 6 files, has several classes",))


def classes_joined_by(mark: str) -> Build:
    def build(root: Path) -> Is:
        rows = []
        for i in range(24):
            picture(root / f"images/x{i:02d}.png")
            said = ("edema", "mass", "edema" + mark + "mass")[i % 3]
            rows.append([f"x{i:02d}.png", said])
        table(root / "labels.csv", "image,diagnosis", rows)
        return Is(16, 16, ("edema", "mass"), says=("left out: 8 files, has several classes",))

    return build


def commas_within_a_class(root: Path) -> Is:
    said = ("Astrocytoma, IDH-mutant", "Glioblastoma, IDH-wildtype")
    for i in range(N):
        picture(root / f"images/x{i:02d}.png")
    table(root / "l.csv", "image,diagnosis", [[f"x{i:02d}.png", said[i % 2]] for i in range(N)])
    return Is(N, N, said)


def breakhis(root: Path) -> Is:
    """The patient's folder lies three below the class, the magnification within."""
    for name, kind in (("benign", "adenosis"), ("malignant", "ductal_carcinoma")):
        for who in range(5):
            for power in ("40X", "100X"):
                slide = f"SOB_{name[0].upper()}_A-14-{22549 + 7 * who}"
                for i in range(2):
                    file = f"breast/{name}/SOB/{kind}/{slide}/{power}/{slide}-{power}-{i:03d}.png"
                    picture(root / file)
    return Is(40, 10, AB, says=("patients are the 10 folders below the classes",))


def adni(root: Path) -> Is:
    rows = []
    for i in range(N):
        who = f"{i // 2:03d}_S_{1000 + i // 2}"
        place = f"ADNI/{who}/MPR__GradWarp/2006-04-1{i % 9}_10_00_00.0/I{100 + i}"
        volume(root / f"{place}/ADNI_{who}_MR_MPR_Br_S1_I{100 + i}.nii")
        rows.append([f"I{100 + i}", who, ("CN", "AD")[i // 2 % 2], 75, "Processed", "4/18/2006"])
    table(root / "ADNI1_1Yr.csv", "Image Data ID,Subject,Group,Age,Type,Acq Date", rows)
    return Is(N, 8, ("CN", "AD"))


def bids_with_pipelines(root: Path) -> Is:
    """Masks of the brain, of tissues and in other spaces are nobody's tumour."""
    rows = []
    (root / "dataset_description.json").write_text("{}")
    for i in range(8):
        who = f"sub-{i:02d}"
        rows.append([who, ("control", "patient")[i % 2]])
        volume(root / f"{who}/anat/{who}_T1w.nii.gz")
        for what in ("desc-brain_mask", "label-GM_probseg", "dseg", "space-MNI152_label-L_roi"):
            place = root / f"derivatives/fmriprep/{who}/anat/{who}_{what}.nii.gz"
            volume(place, labels=True)
        volume(root / f"derivatives/lesions/{who}/anat/{who}_desc-lesion_mask.nii.gz", labels=True)
    table(root / "participants.tsv", "participant_id,group", rows)
    return Is(
        8, 8, ("control", "patient"), masks=8, says=("left out: 8 files, a mask of the whole",)
    )


def changed_copies(names: Callable[[int], tuple[str, ...]]) -> Build:
    def build(root: Path) -> Is:
        for i in range(N):
            for name in names(i):
                picture(root / ab(i) / name)
        each = len(names(0))
        return Is(N * each, N, AB, says=(r"\d+ names say that they are changed copies",))

    return build


def leftovers_of_systems(root: Path) -> Is:
    for i in range(N):
        picture(root / ab(i) / f"x{i}.png")
    for place in ("lost+found/x.png", "benign/#recycle/x.png", "System Volume Information/a.png"):
        picture(root / place)
    for name in ("benign/x0.png~", "benign/x2.png.bak", "malignant/~$x.docx", "Thumbs.db"):
        (root / name).write_bytes(b"x")
    return Is(N, N, AB, says=("left out: 4 files, hidden or of the operating system",))


def semicolons_in_names(root: Path) -> Is:
    for i in range(40):
        picture(root / ab(i) / (f"x{i};left.png" if i == 7 else f"x{i}.png"))
    return Is(39, 39, AB, says=("left out: 1 files, its path holds ';'",))


def semicolons_everywhere(root: Path) -> Is:
    for i in range(N):
        picture(root / "a;b" / ab(i) / f"x{i}.png")
    return Is(refused="no known layout.*16 files: its path holds ';'")


def excels_separator_line(root: Path) -> Is:
    for i in range(N):
        picture(root / f"images/{i:03d}.png")
    lines = "".join(f"{i:03d}.png;{ab(i)};1,5\r\n" for i in range(N))
    (root / "list.csv").write_bytes(f"\ufeffsep=;\r\nimage;diagnosis;size\r\n{lines}".encode())
    return Is(N, N, AB)


def ids_that_a_spreadsheet_changed(root: Path) -> Is:
    for i in range(N):
        picture(root / f"images/{i:04d}.png")
    table(root / "list.csv", "id,diagnosis", [[f"{i}.0", ab(i)] for i in range(N)])
    return Is(refused="list.csv:2: column id seems to name the scans in another spelling")


def folders_of_ids_that_a_spreadsheet_changed(root: Path) -> Is:
    for i in range(N):
        volume(root / f"scans/{i:03d}/{i:03d}_T1.nii.gz")
    table(root / "list.csv", "subject,diagnosis", [[i, ab(i)] for i in range(N)])
    return Is(refused="list.csv:2: column subject seems to name the scans in another spelling")


def class_column_of_another_name(root: Path) -> Is:
    for i in range(N):
        volume(root / f"BraTS2021_{i:05d}/BraTS2021_{i:05d}_flair.nii.gz")
    rows = [[f"BraTS2021_{i:05d}", i % 2] for i in range(N)]
    table(root / "train_labels.csv", "BraTS21ID,MGMT_value", rows)
    return Is(refused=r"train_labels.csv: names the patients.*MGMT_value.*--class COLUMN")


def one_picture_of_two_patients_in_lines(root: Path) -> Is:
    for i in range(N):
        picture(root / f"images/{i:04d}.png")
    rows = [[f"{i:04d}.png", ab(i), f"P{i}"] for i in range(N)]
    table(root / "list.csv", "image,diagnosis,patient", [*rows, ["0003.png", ab(3), "P9"]])
    return Is(refused="list.csv:18: this image has another patient in line 5")


def sites_that_number_alike(root: Path) -> Is:
    for site in ("siteA", "siteB"):
        for i in range(8):
            picture(root / site / ab(i) / f"{i:03d}.png")
    return Is(16, 8, AB, says=(r"8 names of patients stand in several places \(in siteA and",))


def one_picture_in_two_formats(root: Path) -> Is:
    for i in range(N):
        for ending in ("png", "jpg"):
            picture(root / ab(i) / f"x{i}.{ending}")
    return Is(2 * N, N, AB, says=("16 file names are there with several endings",))


def overlays_and_doubled_words(root: Path) -> Is:
    for i in range(N):
        picture(root / ab(i) / f"images/x{i}.png")
        picture(root / ab(i) / f"overlay/x{i}.png")
        mask(root / ab(i) / f"images/x{i}_segmentation_mask.png")
    says = ("left out: 16 files, in a folder of predictions, overlays or results",)
    return Is(N, N, AB, masks=N, says=says)


FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(chexpert, mimic_cxr, people_as_folders_alone, days_and_identifiers, grades_as_folders),
        *(sample_submission, classes_in_brackets, commas_within_a_class, breakhis, adni),
        *(bids_with_pipelines, leftovers_of_systems, semicolons_in_names, semicolons_everywhere),
        *(excels_separator_line, ids_that_a_spreadsheet_changed, sites_that_number_alike),
        *(folders_of_ids_that_a_spreadsheet_changed, class_column_of_another_name),
        *(one_picture_of_two_patients_in_lines, one_picture_in_two_formats),
        *(overlays_and_doubled_words,),
    )
} | {
    "classes_joined_by_semicolon": classes_joined_by(";"),
    "classes_joined_by_comma": classes_joined_by(", "),
    "classes_joined_by_plus": classes_joined_by("+"),
    "copies_rotated": changed_copies(
        lambda i: (f"img_{i}.png", f"img_{i}_rot90.png", f"img_{i}_hflip_aug2.png")
    ),
    "copies_of_keras": changed_copies(
        lambda i: (f"{1000 + i}.png", f"aug_0_{1000 + i}.png", f"aug_1_{1000 + i}.png")
    ),
    "copies_of_roboflow": changed_copies(
        lambda i: (f"x{i}_png.rf.{i:012x}a.png", f"x{i}_png.rf.{i:012x}b.png")
    ),
    "copies_by_hand": changed_copies(
        lambda i: (f"case {i}.png", f"case {i} - Copy.png", f"Copy of case {i}.png")
    ),
}
