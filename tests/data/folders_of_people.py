"""Whose a scan is: the inputs that doubled patients, and their neighbours."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

from tests.data.folders import AB, Build, Is, ab, listed, picture, table, volume


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


def unheard(column: str) -> Build:
    """A column that names people in words that nobody has foreseen, or nearly so."""

    def build(root: Path) -> Is:
        listed(root, {"class": lambda i: ab(i // 2), column: lambda i: f"s{i // 2}"})
        return Is(refused=rf"column '{column}' \(6 values in 12 lines\) seems to say who")

    return build


def unheard_but_unique(root: Path) -> Is:
    listed(root, {"class": ab, "case_id": lambda i: f"c{i}"})
    return Is(12, 12, AB, says=("no column patient or group",))


def unheard_beside_patients(root: Path) -> Is:
    listed(
        root,
        {
            "class": lambda i: ab(i // 2),
            "patient": lambda i: f"p{i // 2}",
            "case_id": lambda i: i // 4,
        },
    )
    return Is(12, 6, AB)


def ages_of_patients(root: Path) -> Is:
    listed(root, {"class": ab, "Patient Age": lambda i: 40 + i // 2, "patient_sex": lambda i: "f"})
    return Is(12, 12, AB)


def unheard_in_a_further_table(root: Path) -> Is:
    for i in range(12):
        picture(root / f"images/i{i}.png")
    rows = ([f"i{i}.png", ab(i // 2), f"m{i // 2}"] for i in range(12))
    table(root / "labels.csv", "image,diagnosis,MRN", rows)
    return Is(refused="labels.csv:1: column 'MRN' .6 values in 12 lines. seems to say who")


def monai_with(key: str, cell: Callable[[int], object], wanted: Is) -> Build:
    def build(root: Path) -> Is:
        entries = []
        for i in range(20):
            volume(root / f"v/{i}.nii.gz")
            entries.append({"image": f"v/{i}.nii.gz", "label": (i // 2) % 2, key: cell(i // 2)})
        (root / "datalist.json").write_text(json.dumps({"training": entries}))
        return wanted

    return build


def ends_with(first: str, second: str, people: int, *says: str) -> Build:
    """BraTS folders of one person each but for how their names end."""

    def build(root: Path) -> Is:
        for i in range(8):
            for end in (first, second):
                folder = root / ("LGG", "HGG")[i % 2] / f"H{i:02d}{end}"
                volume(folder / f"{folder.name}_flair.nii.gz")
                volume(folder / f"{folder.name}_seg.nii.gz", labels=True)
        return Is(16, people, ("LGG", "HGG"), 16, says=says)

    return build


def time_points_below_patients(root: Path) -> Is:
    for i in range(8):
        for t in (1, 2):
            name = f"PatientID_{i:04d}_Timepoint_{t}"
            folder = root / ("LGG", "HGG")[i % 2] / f"PatientID_{i:04d}" / f"Timepoint_{t}"
            volume(folder / f"{name}_flair.nii.gz")
            volume(folder / f"{name}_tumorMask.nii.gz", labels=True)
    return Is(16, 8, ("LGG", "HGG"), 16)


def sides_in_a_table(root: Path) -> Is:
    names = [f"x/p{i}_{side}.png" for i in range(8) for side in ("left", "right")]
    for name in names:
        picture(root / name)
    table(root / "scans.csv", "file,class", ([name, ab(i // 2)] for i, name in enumerate(names)))
    return Is(16, 16, AB, says=("16 scans may be of 8 people",))


ASKED = "16 names are 8 names with a counter or a letter behind them"
FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(monai_zero, ids_as_numbers, ids_with_prefix, ids_with_zeros, ids_with_spaces, ids_nfd),
        *(ids_apart, two_patient_columns, blank_patients, time_points, sessions),
        *(same_picture_two_patients, same_picture_two_patients_in_a_table, same_picture_two_classes),
        *(numbers_without_patients, unheard_but_unique, unheard_beside_patients, ages_of_patients),
        *(unheard_in_a_further_table, time_points_below_patients, sides_in_a_table),
    )
} | {
    f"patient_column_{name}": patient_named(name)
    for name in ("patient", "patient_id", "PatientID", "Patient", "subject", "participant_id", "Subject ID", "pat_id")
} | {
    f"unheard_column_{name}": unheard(name)
    for name in ("MRN", "PatientName", "bcr_patient_barcode", "Case ID", "subject_code", "lesion_id", "id", "hospital no")
} | {
    "monai_float": monai_with("patient_id", float, Is(20, 10, ("0", "1"))),
    "monai_other_key": monai_with("Subject ID", int, Is(20, 10, ("0", "1"))),
    "monai_unheard": monai_with("case_id", int, Is(refused="'case_id' .10 values in 20 lines.")),
    "ends_pre_post": ends_with("_pre", "_post", 8, "taken for the same people"),
    "ends_scan": ends_with("_scan1", "_scan2", 8, "taken for the same people"),
    "ends_months": ends_with("_baseline", "_6months", 8, "taken for the same people"),
    "ends_adni": ends_with("_BL", "_M12", 8, "taken for the same people"),
    "ends_followup": ends_with("", "_FU003d", 8, "taken for the same people"),
    "ends_weeks": ends_with("_week-000", "_week-012", 8, "taken for the same people"),
    "ends_counter": ends_with("_1", "_2", 16, ASKED),
    "ends_letter": ends_with("a", "b", 16, ASKED),
    "ends_version": ends_with("v1", "v2", 16, ASKED),
}  # fmt: skip
