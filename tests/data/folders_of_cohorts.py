"""Cohorts of volumes and DICOM as archives and challenges hand them out, with their tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.data.dicom_series import voxels, write_frames, write_series
from tests.data.folders import AB, LPS, Build, Is, ab, mask, noise, picture, table, volume
from tests.data.folders_of_dicom import single

N = 8
GRADES = ("LGG", "HGG")


def flat(root: Path, slices: int = 5, place: str = "DICOM") -> None:
    """The files of eight people in one folder, under names that say nothing."""
    folder = root / place
    folder.mkdir(parents=True)
    for i in range(N):
        write_series(root / "one", voxels(i, (8, 9, slices)), PatientID=f"ANON_{i:03d}")
        for k, path in enumerate(sorted((root / "one").iterdir())):
            path.rename(folder / f"IM{i * 97 + k:05d}.dcm")
    shutil.rmtree(root / "one")


def flat_dicom_and_a_table(root: Path) -> Is:
    flat(root)
    rows = [[f"ANON_{i:03d}", ab(i), 40 + i] for i in range(N)]
    table(root / "clinical.csv", "PatientID,diagnosis,age", [*rows, ["ANON_777", "benign", 50]])
    says = (
        "clinical.csv names patients by the PatientID of the headers",
        "clinical.csv: 1 lines",
        r"class benign: 4 patients, 20 slices",
    )
    return Is(N, N, AB, says=says)


def flat_dicom_that_a_table_lacks(root: Path) -> Is:
    flat(root, place="scans/all")
    rows = [[f"anon_{i:03d}", ab(i)] for i in range(7)]
    table(
        root / "clinical.csv",
        "patient,diagnosis",
        [*rows, *([f"x{i}", "benign"] for i in range(3))],
    )
    wants = r"class malignant has 3 usable patients"
    return Is(7, 7, AB, init_refuses=wants)


def flat_pictures_and_a_table(root: Path) -> Is:
    """Projections: two of each person."""
    (root / "dcm").mkdir()
    for i in range(16):
        path = root / "dcm" / f"{1000 + 31 * i % 500}.dcm"
        single(path, i, PatientID=f"P{i // 2}", Modality="CR", BodyPartExamined="CHEST")
    table(root / "labels.csv", "PatientID,class", ([f"P{i}", ab(i)] for i in range(8)))
    return Is(16, 8, AB)


def beginnings(*folders: str, says: tuple[str, ...] = (), scans: int = 0) -> Build:
    """A table's ids are what the folders of people begin with; ``P1`` beside ``P10``."""

    def build(root: Path) -> Is:
        rows = []
        for i in range(1, 13):
            rows.append([f"P{i}", GRADES[i % 2]])
            for name in folders:
                who = name.format(i)
                volume(root / who / f"{who}_flair.nii.gz")
        table(root / "clinical.csv", "patient,Grade", rows)
        told = ("ids of column patient are what names begin with",)
        return Is(12 * len(folders), 12, GRADES, says=(*told, *says))

    return build


def lgg_kaggle(root: Path) -> Is:
    """TCGA_CS_4941 in the table, TCGA_CS_4941_19960909 in the folders, slices as pictures."""
    rows = []
    for i in range(N):
        who = f"TCGA_CS_{4941 + i}"
        for k in range(1, 4):
            place = root / f"kaggle_3m/{who}_1996090{i}/{who}_1996090{i}_{k}"
            picture(place.with_name(f"{place.name}.tif"))
            mask(place.with_name(f"{place.name}_mask.tif"))
        rows.append([who, i % 3, 1 + i % 2])
    table(root / "kaggle_3m/data.csv", "Patient,RNASeqCluster,tumor_grade", rows)
    return Is(24, N, ("1", "2"), 24, says=("ids of column Patient are what names begin with",))


def begins_in_class_folders(root: Path) -> Is:
    """Classes are folders, and a table knows the people by the beginnings of their names."""
    for i in range(16):
        for k in range(2):
            picture(root / ab(i) / f"S{i // 2 * 2 + i % 2:03d}_a{k}x.png")
    table(root / "people.csv", "patient,age", ([f"S{i:03d}", 40 + i] for i in range(16)))
    return Is(32, 16, AB)


def brats_2020_with_its_odd_file(root: Path) -> Is:
    """Patient 355 of the training data: a mask called W39_1998.09.19_Segm.nii."""
    rows = []
    top = root / "BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData"
    for i in range(348, 356):
        name = f"BraTS20_Training_{i:03d}"
        for what in ("flair", "t1"):
            volume(top / name / f"{name}_{what}.nii.gz")
        odd = "W39_1998.09.19_Segm" if i == 355 else f"{name}_seg"
        volume(top / name / f"{odd}.nii.gz", labels=True)
        rows.append([("LGG", "HGG")[i % 2], name])
    table(top / "name_mapping.csv", "Grade,BraTS_2020_subject_ID", rows)
    return Is(N, N, GRADES, N)


def mosmed(root: Path) -> Is:
    """Grades of lungs as folders; masks of some studies in a folder of their own."""
    for grade in range(3):
        for i in range(1, 7):
            number = grade * 100 + i
            volume(root / f"studies/CT-{grade}/study_{number:04d}.nii.gz")
            if grade == 1 and i < 3:
                volume(root / f"masks/study_{number:04d}_mask.nii.gz", labels=True)
    return Is(18, 18, ("CT-0", "CT-1", "CT-2"))


def cq500(root: Path) -> Is:
    rows = []
    for i in range(N):
        number = 97 + i
        place = root / f"CQ500CT{number} CQ500CT{number}/Unknown Study/CT Plain"
        write_series(place, voxels(i), Modality="CT", PatientID=f"CQ500-CT-{number}")
        rows.append([f"CQ500-CT-{number}", i % 2, i % 2])
    table(root / "reads.csv", "name,R1:ICH,R2:ICH", rows)
    return Is(refused=r"reads.csv.*R1:ICH, R2:ICH.*--class COLUMN")


def abide(root: Path) -> Is:
    """File names that stand in a column of their own, ``no_filename`` where there is none."""
    rows = []
    for i in range(16):
        there = i not in (3, 8)
        if there:
            volume(root / f"Outputs/cpac/Pitt_{50003 + i:07d}_anat.nii.gz")
        name = f"Pitt_{50003 + i:07d}" if there else "no_filename"
        rows.append([50003 + i, name, 1 + i % 2, 20 + i])
    table(root / "Phenotypic_V1_0b.csv", "SUB_ID,FILE_ID,group,AGE", rows)
    return Is(14, 14, ("1", "2"))


def rsna_miccai(root: Path) -> Is:
    """Folders 00000, ids 0; four sequences of DICOM; a test part without classes."""
    for part, n in (("train", N), ("test", 2)):
        for i in range(n):
            for k, what in enumerate(("FLAIR", "T1w")):
                place = root / part / f"{i + 100 * (part == 'test'):05d}" / what
                write_series(place, voxels(10 * i + k), PatientID=f"{i:05d}")
    table(root / "train_labels.csv", "BraTS21ID,diagnosis", ([i, ab(i)] for i in range(N)))
    return Is(refused=r"spelling \('0' for '00000'\).*--accept near_ids")


def cbis_ddsm(root: Path) -> Is:
    """TCIA's: a PatientID for each view, crops and outlines as DICOM of their own."""
    rows = []
    for i in range(N):
        for view in ("LEFT_CC", "LEFT_MLO"):
            who = f"Mass-Training_P_{i + 1:05d}_{view}"
            for end, n in (("", 1), ("_1", 2)):
                for k in range(n):
                    path = root / f"CBIS-DDSM/{who}{end}/07-20-2016-DDSM-{i}/1.0-x/1-{k + 1}.dcm"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    single(
                        path,
                        100 * i + 10 * len(view) + 3 * n + k,
                        PatientID=f"{who}{end}",
                        Modality="MG",
                        BodyPartExamined="BREAST",
                    )
            place = f"{who}/1.3.6.1.4/1.3.6.2/000000.dcm"
            rows.append([f"P_{i + 1:05d}", "LEFT", view[5:], ("BENIGN", "MALIGNANT")[i % 2], place,
                         f"{who}_1/1.3.6.1.4/1.3.6.2/000001.dcm"])  # fmt: skip
    header = (
        "patient_id,left or right breast,image view,pathology,image file path,ROI mask file path"
    )
    table(root / "mass_case_description_train_set.csv", header, rows)
    says = ("left out: 32 files, has no label",)
    return Is(16, N, ("BENIGN", "MALIGNANT"), says=says)


def bids_sessions_and_runs(root: Path) -> Is:
    rows = []
    (root / "dataset_description.json").write_text("{}")
    for i in range(N):
        who = f"sub-{i:02d}"
        rows.append([who, ("control", "patient")[i % 2]])
        for ses in ("ses-01", "ses-02"):
            for run in ("run-1", "run-2"):
                volume(root / f"{who}/{ses}/anat/{who}_{ses}_{run}_T1w.nii.gz")
            volume(root / f"{who}/{ses}/func/{who}_{ses}_task-rest_bold.nii.gz")
        table(root / f"{who}/{who}_sessions.tsv", "session_id,age", [["ses-01", 40]])
    table(root / "participants.tsv", "participant_id,group", rows)
    return Is(16, N, ("control", "patient"), says=("left out: 32 files, another sequence or run",))


def decathlon_in_four_dimensions(root: Path) -> Is:
    for part, n in (("Tr", N), ("Ts", 2)):
        for i in range(n):
            path = (
                root
                / f"Task01_BrainTumour/images{part}/BRATS_{i + 100 * (part == 'Ts'):03d}.nii.gz"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            x = noise(i, part).integers(1, 900, (12, 12, 4, 2), dtype=np.int16)
            nib.save(nib.Nifti1Image(x, LPS), path)
            hidden = path.with_name(f"._{path.name}")
            hidden.write_bytes(b"x")
            if part == "Tr":
                volume(root / f"Task01_BrainTumour/labelsTr/BRATS_{i:03d}.nii.gz", labels=True)
    body = {
        "modality": {"0": "FLAIR", "1": "T1w"}, "labels": {"0": "background", "1": "edema"},
        "training": [{"image": f"./imagesTr/BRATS_{i:03d}.nii.gz",
                      "label": f"./labelsTr/BRATS_{i:03d}.nii.gz"} for i in range(N)],
        "test": [f"./imagesTs/BRATS_{i + 100:03d}.nii.gz" for i in range(2)],
    }  # fmt: skip
    (root / "Task01_BrainTumour/dataset.json").write_text(json.dumps(body))
    table(root / "grades.csv", "case,class", ([f"BRATS_{i:03d}", GRADES[i % 2]] for i in range(N)))
    return Is(N, N, GRADES, N, pool=2, says=(r"data.accept.volume: 0",))


def frames_in_one_file(root: Path) -> Is:
    """Enhanced MR: a file a person, in one folder, and a table of file names."""
    (root / "MR").mkdir()
    for i in range(N):
        write_frames(root / f"MR/case{i}x.dcm", voxels(i, (8, 9, 6)))
    table(root / "labels.csv", "file,diagnosis", ([f"case{i}x.dcm", ab(i)] for i in range(N)))
    return Is(N, N, AB, says=("class benign: 4 patients, 24 slices",))


def nifti_beside_its_dicom(root: Path) -> Is:
    for i in range(N):
        place = root / ab(i) / f"P{i}x"
        write_series(place / "dicom", voxels(i, (8, 9, 5)))
        volume(place / f"P{i}x_t1.nii.gz")
    return Is(N, N, AB)


def upenn(root: Path) -> Is:
    """Folders end in the number of the examination; the table has people."""
    rows = []
    for i in range(1, 13):
        for exam in ("11", "21") if i % 3 == 0 else ("11",):
            who = f"UPENN-GBM-{i:05d}_{exam}"
            for what in ("FLAIR", "T1"):
                volume(root / f"images_structural/{who}/{who}_{what}.nii.gz")
        rows.append([f"UPENN-GBM-{i:05d}", "F", ("Wildtype", "Mutated")[i % 2]])
    table(root / "UPENN-GBM_clinical.csv", "ID,Gender,class", rows)
    return Is(16, 12, ("Mutated", "Wildtype"))


def luna(root: Path) -> Is:
    rows = []
    for i in range(N):
        uid = f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{100225287222365663678666836860 + i}"
        path = root / f"subset{i % 2}/{uid}.mhd"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"ObjectType = Image {i}")
        path.with_suffix(".raw").write_bytes(bytes(9))
        rows += [[uid, 10, 20, 30, k % 2] for k in range(3)]
    table(root / "candidates.csv", "seriesuid,coordX,coordY,coordZ,class", rows)
    return Is(refused="candidates.csv:3: this seriesuid has another class in line 2")


def ixi(root: Path) -> Is:
    for i in range(12):
        volume(root / f"IXI-T1/IXI{i + 2:03d}-{('HH', 'Guys')[i % 2]}-{1211 + i}-T1.nii.gz")
    (root / "IXI.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    return Is(refused="IXI.xls: save it as CSV|nothing says their classes")


FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(flat_dicom_and_a_table, flat_dicom_that_a_table_lacks, flat_pictures_and_a_table),
        *(lgg_kaggle, begins_in_class_folders, brats_2020_with_its_odd_file, mosmed, cq500, abide),
        *(rsna_miccai, cbis_ddsm, bids_sessions_and_runs, decathlon_in_four_dimensions),
        *(frames_in_one_file, nifti_beside_its_dicom, upenn, luna, ixi),
    )
} | {
    "begins_scan": beginnings("P{}_scan2"),
    "begins_day": beginnings("P{}_20190101", "P{}_20200101"),
    "begins_words": beginnings("P{}-pre op-T1", "P{}-post op-T1"),
}
