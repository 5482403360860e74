"""nnU-Net, MONAI data lists and tables: whose scan, of which class, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medaug.data.layouts import read_cohort
from medaug.data.slices import ingest
from medaug.errors import UserError
from medaug.spec.data import DataSpec
from medaug.spec.study import SplitSpec
from medaug.store import Store

N = 8


def spec(layout: str, root: Path, **keys: Any) -> DataSpec:
    return DataSpec(layout=layout, root=root, image_size=16, **keys)


def volumes(root: Path, write_cohort: Any) -> list[tuple[Path, Path, str]]:
    """(image, mask, class) of N volumes per class, below ``root/.source``."""
    write_cohort(root / ".source", N)
    folders = sorted((root / ".source").glob("*/*"))
    return [
        (f / f"{f.name}_flair.nii.gz", f / f"{f.name}_seg.nii.gz", f.parent.name) for f in folders
    ]


def nnunet_folder(root: Path, write_cohort: Any, *, patients: bool = True) -> list[str]:
    cases = []
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    lines = ["case,class,patient" if patients else "case,class"]
    for number, (image, mask, label) in enumerate(volumes(root, write_cohort)):
        case = f"BRATS_{number:03d}"
        shutil.move(image, root / "imagesTr" / f"{case}_0001.nii.gz")
        shutil.move(mask, root / "labelsTr" / f"{case}.nii.gz")
        lines.append(f"{case},{label},{label}-{number // 2}" if patients else f"{case},{label}")
        cases.append(case)
    about = {"channel_names": {"0": "T1", "1": "FLAIR"}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(about))
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return cases


def test_nnunet_channels_classes_and_patients(tmp_path: Path, write_cohort: Any) -> None:
    cases = nnunet_folder(tmp_path, write_cohort)
    cohort = read_cohort(spec("nnunet", tmp_path))
    assert len(cohort.scans) == 2 * N
    assert {scan.path.name[-11:] for scan in cohort.scans} == {"0001.nii.gz"[-11:]}
    assert all(scan.mask and scan.mask.parent.name == "labelsTr" for scan in cohort.scans)
    assert [scan.label for scan in cohort.scans].count(0) == N
    assert len({scan.patient for scan in cohort.scans}) == N  # two cases each
    with pytest.raises(UserError, match=r"none of dataset\.json's \(T1, FLAIR\)"):
        read_cohort(spec("nnunet", tmp_path, channel="t2"))
    (tmp_path / "labels.csv").write_text(f"case,class\n{cases[0]},LGG\n")
    with pytest.raises(UserError, match="15 scans without a label"):
        read_cohort(spec("nnunet", tmp_path))
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(
        UserError, match=r"write labels\.csv with the columns case,class\[,patient\]"
    ):
        read_cohort(spec("nnunet", tmp_path))


def test_nnunet_without_patients_says_that_scores_may_leak(
    tmp_path: Path, write_cohort: Any
) -> None:
    nnunet_folder(tmp_path, write_cohort, patients=False)
    cohort = read_cohort(spec("nnunet", tmp_path))
    assert len({scan.patient for scan in cohort.scans}) == 2 * N
    assert any("scores leak" in note for note in cohort.notes)


def test_patients_stay_on_one_side_of_the_split(tmp_path: Path, write_cohort: Any) -> None:
    nnunet_folder(tmp_path, write_cohort)
    out = tmp_path / "stores" / "slices-x"
    ingest(spec("nnunet", tmp_path), SplitSpec(folds=2), out, workers=1)
    store = Store.open(out)
    assert len(set(store.patients.tolist())) == N
    for fold in range(2):
        sides = [
            set(store.split(role, fold).patients.tolist()) for role in ("train", "val", "eval")
        ]
        assert not (sides[0] & sides[1])
        assert not (sides[0] & sides[2])
        assert not (sides[1] & sides[2])
    assert len({*store.volumes.tolist()}) == 2 * N


@pytest.mark.parametrize("said", ["class", "label", "table"])
def test_monai_lists(tmp_path: Path, write_cohort: Any, said: str) -> None:
    entries, lines = [], ["case,class,patient"]
    for number, (image, mask, label) in enumerate(volumes(tmp_path, write_cohort)):
        shutil.move(image, tmp_path / f"v{number}.nii.gz")
        shutil.move(mask, tmp_path / f"m{number}.nii.gz")
        entry: dict[str, Any] = {"image": f"./v{number}.nii.gz", "fold": 0}
        lines.append(f"v{number},{label},{label}{number // 2}")
        if said == "table":
            entry |= {"label": f"m{number}.nii.gz"}
        elif said == "class":
            entry |= {"label": f"m{number}.nii.gz", "class": label, "patient": f"{number // 2}"}
        else:
            entry |= {"label": label, "subject": f"{number // 2}"}
        entries.append(entry)
    (tmp_path / "datalist.json").write_text(json.dumps({"training": entries}))
    if said == "table":
        (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    cohort = read_cohort(spec("monai_datalist", tmp_path))
    assert len(cohort.scans) == 2 * N
    assert len({scan.patient for scan in cohort.scans}) == N
    assert [scan.label for scan in cohort.scans].count(1) == N
    assert all((scan.mask is None) == (said == "label") for scan in cohort.scans)
    assert {scan.part for scan in cohort.scans} == {"train"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"training": [{"image": "a.nii"', r"datalist\.json:1: is not JSON"),
        ('{"training": []}', "lists no scans"),
        ('{"training": [{"label": 1}]}', r"datalist\.json: training\[0\]: no image"),
        ('{"training": [{"image": ["a.nii", 3], "class": "LGG"}]}', "image is no path"),
        ('{"training": [{"image": "../a.nii", "class": "LGG"}]}', r"points outside of data\.root"),
        (
            '{"training": [{"image": "/etc/passwd", "class": "LGG"}]}',
            r"points outside of data\.root",
        ),
        (
            '{"training": [{"image": "a.nii", "class": "IV"}]}',
            "class 'IV' is unknown; write one of LGG, HGG",
        ),
        (
            '{"training": [{"image": "a.nii"}]}',
            r"says nothing of a patient's class; write labels\.csv",
        ),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_bad_lists_are_named(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "datalist.json").write_text(body)
    with pytest.raises(UserError, match=message) as caught:
        read_cohort(spec("monai_datalist", tmp_path))
    assert "\n" not in str(caught.value)


def test_a_table_of_scans(tmp_path: Path, write_cohort: Any) -> None:
    lines = ["file,class,mask,patient"]
    for number, (image, mask, label) in enumerate(volumes(tmp_path, write_cohort)):
        places = [path.relative_to(tmp_path) for path in (image, mask)]
        lines.append(f"{places[0]},{label},{places[1]},p{number // 2}")
    (tmp_path / "scans.csv").write_text("\n".join(lines) + "\n")
    cohort = read_cohort(spec("table", tmp_path))
    assert len(cohort.scans) == 2 * N
    assert len({scan.patient for scan in cohort.scans}) == N
    assert all(scan.mask for scan in cohort.scans)
    mapped = spec("table", tmp_path, classes=("low", "high"), grades={"LGG": "low", "HGG": "high"})
    assert [s.label for s in read_cohort(mapped).scans] == [s.label for s in cohort.scans]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.nii\n", r"scans\.csv:1: no column 'class'"),
        ("file,class\na.nii,XX\n", r"scans\.csv:2: class 'XX' is unknown; write one of LGG, HGG"),
        ("file,class\na.nii,LGG\na.nii,HGG\n", "lines 2, 3 list one file with another class"),
        ("file,class\n../a.nii,LGG\n", r"scans\.csv:2: points outside of data\.root"),
        ("file,class,patient\na.nii,LGG,\n", r"scans\.csv: line 2: patient is empty"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scans.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_cohort(spec("table", tmp_path))
