"""The table: parts, covariates, several files, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medaug.data.digests import Digests
from medaug.data.files import BadFile
from medaug.data.layouts import read_cohort
from medaug.data.privacy import pseudonym
from medaug.data.slices import NO_LABEL, ingest, ingest_signature
from medaug.data.table import ScanTable
from medaug.errors import UserError
from medaug.spec import DataSpec, SplitSpec
from medaug.store import Store
from tests.data.folders import ab, listed, picture, volume

SPLIT = SplitSpec(folds=2)


def spec(folder: Path, **keys) -> DataSpec:
    given = {"table": folder / "scans.csv", "classes": ("benign", "malignant"), "image_size": 16}
    return DataSpec(**{**given, **keys})


def with_parts(root: Path) -> None:
    listed(root, {"class": ab, "patient": lambda i: f"p{i}", "age": lambda i: 40 + i})
    for i in range(4):
        picture(root / f"more/{i}.png")
    with (root / "scans.csv").open("r+") as file:
        lines = [line.strip() for line in file]
        lines = [f"{lines[0]},part", *(f"{line}," for line in lines[1:])]
        lines += ["more/0.png,,u0,1,pool", "more/1.png,,u1,1,pool"]
        lines += ["more/2.png,benign,e0,70,external", "more/3.png,malignant,e1,80,external"]
        file.seek(0)
        file.write("\n".join(lines) + "\n")


def test_parts_have_stores_of_their_own(tmp_path: Path) -> None:
    with_parts(tmp_path / "in")
    data = spec(tmp_path / "in", covariates=("age",))
    names, stores = set(), {}
    for part, n in (("study", 12), ("pool", 2), ("external", 2)):
        cohort = read_cohort(data, part=part)
        assert (cohort.part, len(cohort.scans)) == (part, n)
        names.add(ingest_signature(cohort, data, SPLIT))
        report = ingest(data, SPLIT, tmp_path / "stores" / part, cohort=cohort, workers=1)
        stores[part] = Store.open(report.path)
    assert len(names) == 3
    assert {*stores["pool"].labels} == {NO_LABEL}
    assert stores["external"].labels.tolist() == [0, 1]
    assert stores["pool"].splits is stores["external"].splits is None
    of_study = stores["study"]
    assert {*of_study.splits.folds[0].train} <= {*of_study.patients}
    everybody = {name for store in stores.values() for name in store.patients}
    assert len(everybody) == 16
    ages = stores["external"].manifest["extra"]["covariates"]
    assert ages == {pseudonym("e0"): {"age": "70"}, pseudonym("e1"): {"age": "80"}}
    assert "2 scans are of the part pool, not of this one" in read_cohort(data).notes


def test_other_covariates_are_another_store(tmp_path: Path) -> None:
    listed(tmp_path, {"class": ab, "age": lambda i: 40 + i, "sex": lambda i: "f"})
    names = []
    for columns in ((), ("age",), ("age", "sex")):
        data = spec(tmp_path, covariates=columns)
        names.append(ingest_signature(read_cohort(data), data, SPLIT))
    table = tmp_path / "scans.csv"
    table.write_text(table.read_text().replace(",40,", ",41,"))
    data = spec(tmp_path, covariates=("age",))
    names.append(ingest_signature(read_cohort(data), data, SPLIT))
    data = spec(tmp_path)
    assert ingest_signature(read_cohort(data), data, SPLIT) == names[0]
    assert len(set(names)) == 4


def test_nothing_of_a_table_gets_out_that_is_not_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "in"
    listed(root, {"class": ab, "patient": lambda i: f"Doe{i}", "ward": lambda i: "St. Elsewhere"})
    report = ingest(spec(root), SPLIT, tmp_path / "stores/s", workers=1)
    text = repr(dict(Store.open(report.path).manifest))
    assert not [word for word in ("Doe", "Elsewhere", "ward", str(tmp_path)) if word in text]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"covariates": ("agee",)}, "data.covariates: scans.csv has no column 'agee'; it has age"),
        ({"classes": ("benign", "other")}, "scans.csv:3: class 'malignant' is unknown"),
        ({"root": Path("/nowhere")}, "scans.csv:.* points outside of data.root"),
    ],
)
def test_what_a_study_asks_of_a_table(tmp_path: Path, change: dict, message: str) -> None:
    listed(tmp_path, {"class": ab, "age": lambda i: 40})
    with pytest.raises(UserError, match=message):
        read_cohort(spec(tmp_path, **change))


def test_a_patient_in_two_parts_is_refused(tmp_path: Path) -> None:
    listed(
        tmp_path,
        {
            "class": ab,
            "patient": lambda i: f"p{i // 2}",
            "part": lambda i: "external" if i == 3 else "",
        },
    )
    with pytest.raises(UserError, match=r"lines 4, 5: one patient in the parts study and external"):
        read_cohort(spec(tmp_path))


def test_several_sequences_are_the_channels_of_a_scan(tmp_path: Path) -> None:
    for i in range(8):
        for what in ("flair", "t1"):
            volume(tmp_path / f"{i}_{what}.nii.gz")
    rows = [f"{i}_flair.nii.gz;{i}_t1.nii.gz,{ab(i)}" for i in range(8)]
    (tmp_path / "scans.csv").write_text("\n".join(["file,class", *rows]))
    table = ScanTable.read(tmp_path / "scans.csv")
    assert table.rows[0].files == ("0_flair.nii.gz", "0_t1.nii.gz")
    assert [len(scan.paths) for scan in read_cohort(spec(tmp_path)).scans] == [2] * 8
    report = ingest(spec(tmp_path), SPLIT, tmp_path / "stores/s", workers=1)
    store = Store.open(report.path)
    assert store.schema.shape == (2, 16, 16)
    (tmp_path / "scans.csv").write_text("\n".join(["file,class", *rows[:-1], "7_t1.nii.gz,benign"]))
    with pytest.raises(UserError, match="line 9: 1 sequences, the other lines have 2"):
        read_cohort(spec(tmp_path))


def test_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(tmp_path / "in", {"class": ab})
    data, kept = spec(tmp_path / "in"), tmp_path / "stores" / "digests"
    first = Digests(kept)
    cohort = read_cohort(data, digests=first)
    name = ingest_signature(cohort, data, SPLIT, first)
    first.save()
    assert str(tmp_path) not in kept.read_text()
    hashed = []
    monkeypatch.setattr("hashlib.file_digest", lambda *a: hashed.append(a))
    again = Digests(kept)
    assert ingest_signature(read_cohort(data, digests=again), data, SPLIT, again) == name
    assert not hashed
    monkeypatch.undo()
    (tmp_path / "in/x/3.png").write_bytes((tmp_path / "in/x/3.png").read_bytes() + b"\0")
    assert ingest_signature(read_cohort(data), data, SPLIT, Digests(kept)) != name
    (tmp_path / "in/x/4.png").unlink()
    with pytest.raises(BadFile, match="missing"):
        Digests(kept).of(tmp_path / "in/x/4.png")


def test_the_same_rows_whoever_lists_them(tmp_path: Path) -> None:
    """A table that an importer wrote makes the store that its importer makes."""
    root = tmp_path / "in"
    for i in range(12):
        picture(root / ab(i) / f"person{i}_virus_{i}.png")
    direct = DataSpec(
        layout="class_folders", root=root, classes=("benign", "malignant"), image_size=16
    )
    from medaug.init import first_look, write_table

    write_table(first_look(root), tmp_path / "mine.csv")
    tabled = direct.model_copy(update={"layout": "table", "table": tmp_path / "mine.csv"})
    a = Store.open(ingest(direct, SPLIT, tmp_path / "a", workers=1).path)
    b = Store.open(ingest(tabled, SPLIT, tmp_path / "b", workers=1).path)
    np.testing.assert_array_equal(a.patients, b.patients)
    assert a.splits == b.splits
    assert [s["digest"] for s in a.manifest["shards"]] == [
        s["digest"] for s in b.manifest["shards"]
    ]
    names = [ingest_signature(read_cohort(d), d, SPLIT) for d in (direct, tabled)]
    assert names[0] == names[1]
