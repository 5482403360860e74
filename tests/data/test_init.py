"""``medaug init``: what it sees, what it writes, what it asks for instead of guessing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from medaug.cli import main
from medaug.data.layouts import read_cohort
from medaug.data.slices import ingest
from medaug.plan.trials import plan_study
from medaug.spec import StudySpec, load_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.store import Store


def init(folder: Path, out: Path, name: str = "mine") -> Result:
    return CliRunner().invoke(main, ["init", name, str(folder), "--out", str(out)])


def study_of(out: Path) -> StudySpec:
    return load_study(out, ARM_CONFIGS)


def planned_and_read(out: Path, tmp_path: Path) -> Store:
    """The study's slices, after it has loaded and planned."""
    study = study_of(out)
    assert len(plan_study(study, "slices-0123456789ab", "slices-ba9876543210")) > 0
    data = study.data.model_copy(update={"image_size": 16})
    path = tmp_path / "stores" / "slices-x"
    ingest(data, study.split, path, workers=1)
    return Store.open(path)


def images(folder: Path, n: int) -> None:
    folder.mkdir(parents=True)
    for number in range(n):
        pixels = np.random.default_rng([number, *folder.name.encode()]).integers(
            0, 255, (20, 20), np.uint8
        )
        Image.fromarray(pixels).save(folder / f"{folder.name}{number}.png")


def test_brats_folders(tmp_path: Path, write_cohort: Any) -> None:
    root, out = tmp_path / "scans", tmp_path / "s.yaml"
    write_cohort(root, 11)
    (root / "HGG" / "HGG_00" / "HGG_00_seg.nii.gz").unlink()
    odd = root / "LGG" / "LGG_01"
    for what in ("flair", "seg"):
        path = odd / f"LGG_01_{what}.nii.gz"
        volume = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(volume.dataobj), np.diag([-1, -1, 6.0, 1])), path)
    shutil.copytree(odd, root / "unknown" / "LGG_01")
    said = init(root, out)
    assert said.exit_code == 0
    for line in (
        "layout brats: 21 scans of 21 patients",
        "files: 45 in the folder = 42 of scans and masks + 0 tables + 3 left out",
        "class LGG: 11 patients, 44 slices",
        "class HGG: 10 patients, 40 slices",
        "left out: 1 files, has no mask, others have; add it",
        "channels: flair; the study reads flair",
        "masks: 21 scans have one, 0 have none",
        "spacing: 1 x 1 mm, 2 mm between slices (median); 1 volumes differ 1.5-fold or more",
        "folder unknown is left out: it names no class",
        f"medaug run {out} --quick ",
        f"medaug plan {out} ",
    ):
        assert line in said.output
    assert "LGG_0" not in said.output
    study = study_of(out)
    assert study.data.classes == ("LGG", "HGG")
    assert study.split.folds == 5


def test_what_it_writes_can_be_read(tmp_path: Path, write_cohort: Any) -> None:
    root, out = tmp_path / "scans", tmp_path / "s.yaml"
    write_cohort(root, 6)
    assert init(root, out).exit_code == 0
    assert study_of(out).segmenter is not None
    assert len(planned_and_read(out, tmp_path)) == 2 * 6 * 4
    again = init(root, out)
    assert again.exit_code == 2
    assert "exists" in again.output


@pytest.mark.usefixtures("reader_processes")
def test_class_folders_of_images_with_three_classes(tmp_path: Path) -> None:
    root, out = tmp_path / "scans", tmp_path / "s.yaml"
    for name in ("tumour", "normal", "cyst"):
        images(root / name, 6)
    said = init(root, out)
    assert said.exit_code == 0
    assert "masks: none" in said.output
    study = study_of(out)
    assert study.data.classes == ("normal", "cyst", "tumour")
    assert (study.segmenter, study.classifier.kind) == (None, "probe")
    assert len(planned_and_read(out, tmp_path)) == 18


def test_nnunet_asks_for_the_grades(tmp_path: Path, write_cohort: Any) -> None:
    root, out = tmp_path / "scans", tmp_path / "s.yaml"
    write_cohort(tmp_path / "source", 4)
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    lines = ["case,class"]
    for folder in sorted((tmp_path / "source").glob("*/*")):
        shutil.move(
            folder / f"{folder.name}_flair.nii.gz", root / "imagesTr" / f"{folder.name}_0000.nii.gz"
        )
        shutil.move(
            folder / f"{folder.name}_seg.nii.gz", root / "labelsTr" / f"{folder.name}.nii.gz"
        )
        lines.append(f"{folder.name},{folder.parent.name}")
    about = {
        "channel_names": {"0": "FLAIR"},
        "labels": {"background": 0, "tumour": 1},
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(about))
    asked = init(root, out)
    assert asked.exit_code == 2
    assert "write labels.csv with the columns case,class[,patient]" in asked.output
    assert not out.exists()
    (root / "labels.csv").write_text("\n".join(lines))
    assert init(root, out).exit_code == 0
    assert len(planned_and_read(out, tmp_path)) == 8 * 4


def test_monai_list_and_table(tmp_path: Path) -> None:
    listed, tabled = tmp_path / "listed", tmp_path / "tabled"
    for root in (listed, tabled):
        images(root / "x", 12)
    entries = [{"image": f"x/x{i}.png", "label": i % 2, "patient": f"p{i}"} for i in range(12)]
    (listed / "datalist.json").write_text(json.dumps({"training": entries}))
    rows = [f"x/x{i}.png,{('benign', 'malignant')[i % 2]},p{i}" for i in range(12)]
    (tabled / "scans.csv").write_text("\n".join(["file,class,patient", *rows]))
    for root, layout, classes in (
        (listed, "monai_datalist", ("0", "1")),
        (tabled, "table", ("benign", "malignant")),
    ):
        out = tmp_path / f"{layout}.yaml"
        said = init(root, out)
        assert said.exit_code == 0, said.output
        study = study_of(out)
        assert f"layout {layout}: 12 scans of 12 patients" in said.output
        assert (study.data.layout, study.data.classes) == ("table", classes)
        assert len(read_cohort(study.data).scans) == 12


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({}, "no known layout among its 0 files; use class folders"),
        ({"a/p1/p1_flair.nii": ""}, "fewer than two classes are named (a)"),
        ({"p1/p1_flair.nii": ""}, "nothing says their classes; write name_mapping.csv"),
        ({"list.csv": "filename,diagnosis\nx.png,ill\n"}, "or scans.csv with the columns file,class"),
        ({"1.png": "", "l.csv": "who,what\nx,ill\n"}, "; l.csv has no column that names the files"),
        ({"1.png": "", "l.csv": "file,age\n1.png,7\n"}, "say which column is the class with --class COLUMN"),
        ({"1.png": "", "l.csv": "file,class\n"}, "; l.csv: no rows"),
        ({"1.png": "", "l.xlsx": "PK"}, "; l.xlsx: save it as CSV"),
        ({"a.h5": "x", "b.H5": "x"}, "; a.h5 and 1 like it: a file of arrays, which is not read here; write what is in it as PNG"),
        ({"datalist.json": '{"training": [{"image": "a.nii.gz", "label": "m.nii.gz"}]}'}, "write labels.csv"),
        ({"a/1.png": "", "b/2.png": ""}, "class a: 1 of 1 scans refused: empty file"),
    ],
)  # fmt: skip
def test_it_asks_and_never_guesses(tmp_path: Path, made: dict[str, str], message: str) -> None:
    root, out = tmp_path / "scans", tmp_path / "s.yaml"
    root.mkdir()
    for name, text in made.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    asked = init(root, out)
    assert asked.exit_code == 2
    assert message in asked.output
    assert not out.exists()
