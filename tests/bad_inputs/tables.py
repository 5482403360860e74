"""Rows 52 to 66: tables of labels, and cohorts that cannot be split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medaug.data.labels import unlabelled
from medaug.data.layouts import read_cohort
from medaug.data.splits import make_splits
from medaug.spec import DataSpec, SplitSpec
from medaug.spec.data import AcceptSpec
from medaug.store.schema import Fold, Splits
from tests.bad_inputs.case import GOOD_STUDY, Case, Make, load
from tests.data.test_labels import BAD, GRADES, labels, write


def table(content: str | bytes, values: Mapping[str, int] = GRADES) -> Make:
    def make(folder: Path, _: object) -> object:
        read = labels(write(folder, content), values)
        return f"{dict(read.by_id)} {' '.join(read.notes)}"

    return make


def near_miss(in_table: str, on_disk: str) -> Make:
    def make(folder: Path, _: object) -> object:
        read = labels(write(folder, f"id,Grade\n{in_table},LGG\n"))
        return str(unlabelled([on_disk], read)[on_disk])

    return make


def cohort(table: str, *patients: str, **accept: Any) -> Make:
    """Folders of patients, and a name_mapping.csv."""

    def make(folder: Path, _: object) -> object:
        for patient in patients:
            (folder / patient).mkdir()
            (folder / patient / f"{patient}_flair.nii.gz").touch()
        (folder / "name_mapping.csv").write_text(table)
        spec = DataSpec(layout="brats", root=folder, accept=AcceptSpec(**accept))
        read = read_cohort(spec)
        return f"{len(read.scans)} scans, {len(read.rejects)} left out; {read.notes[-1]}"

    return make


def split(labels: list[int], **keys: Any) -> Make:
    names = [f"p{n}" for n in range(len(labels))]
    return lambda folder, _: make_splits(names, labels, SplitSpec(**keys), ("LGG", "HGG"))


NO_LABEL = ("Grade,ID\nHGG,Doe1\n", "Doe1", "Doe2")
NO_SCAN = ("Grade,ID\nHGG,Doe1\nLGG,Doe2\nLGG,Doe3\n", "Doe1")
BOTH = r"\{'a': 0, 'b': 1\}"

TABLES = [
    *(Case(int(name[:2]), name[3:], table(content), reason) for name, (content, reason) in BAD.items()),
    Case(52, "byte order mark", table(b"\xef\xbb\xbfid,Grade\na,LGG\nb,HGG\n"), BOTH, 0),
    Case(53, "CRLF", table("id,Grade\r\na,LGG\r\nb,HGG\r\n"), BOTH, 0),
    Case(53, "lone CR", table("id,Grade\ra,LGG\rb,HGG"), BOTH, 0),
    Case(59, "agreeing", table("id,Grade\na,LGG\nb,HGG\na,LGG\n"), f"{BOTH}.*1 lines repeat", 0),
    Case(61, "scan without label", cohort(*NO_LABEL), r"1 scans without a label \(p-\w+\).*data\.accept\.missing"),
    Case(61, "label without scan", cohort(*NO_SCAN), r"2 patients have no folder \(p-\w+, p-\w+\).*data\.accept\.missing"),
    Case(61, "left out", cohort(*NO_LABEL, missing=True), "1 scans, 1 left out", 0),
    Case(61, "dropped", cohort(*NO_SCAN, missing=True), "1 scans, 0 left out; .*2 patients have no folder", 0),
    Case(62, "spaces", table("id,Grade\na, LGG \nb,HGG\n"), BOTH, 0),
    Case(62, "as the study says", table("id,Grade\na, 2 \nb,4\n", DataSpec(grades={"2": "LGG", "4": "HGG"}).label_of), BOTH, 0),
    Case(62, "no such class", lambda folder, _: load(folder, GOOD_STUDY + "data: {grades: {'4': IV}}\n"), "grades: 'IV' is no class"),
    Case(63, "zeros", near_miss("7", "007"), "line 2 is nearly the same id", 0),
    Case(63, "power of ten", near_miss("1e5", "100000"), "line 2 is nearly the same id", 0),
    Case(65, "one class", split([0] * 9), "cannot stratify: class HGG has 0"),
    Case(65, "too few", split([0] * 9 + [1], folds=3), "cannot stratify: class HGG has 1"),
    Case(66, "two roles", lambda folder, _: Splits((Fold(("a", "b"), ("c",), ("a",)),)), "exactly one role"),
]  # fmt: skip
