"""Label tables: what two readers could understand differently is refused with its line."""

import pytest

from medaug.data.labels import read_table, unlabelled
from medaug.data.layouts import read_cohort
from medaug.errors import UserError
from medaug.spec import DataSpec
from medaug.spec.data import AcceptSpec

ALL_OR_NOTHING = {"accept": AcceptSpec()}
GRADES = {"LGG": 0, "HGG": 1}


def write(folder, content):
    path = folder / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def labels(path, values=GRADES):
    return read_table(path, ["id", "Grade"]).labels("id", "Grade", values)


@pytest.mark.parametrize(
    "content",
    [
        "id,Grade\na,LGG\nb,HGG\n",
        b"\xef\xbb\xbfid,Grade\na,LGG\nb,HGG\n",  # 52: byte order mark
        "id,Grade\r\na,LGG\r\nb,HGG\r\n",  # 53
        "id,Grade\ra,LGG\rb,HGG",  # 53
        "id, Grade\na, LGG \n\nb,\tHGG\n",  # 62: space around labels, empty lines
        "id;Grade\na;LGG\nb;HGG\n",  # 57: a spreadsheet whose decimal point is a comma
        "id;Grade;size\na;LGG;1,5\nb;HGG;2,5\n",
        "id\tGrade\na\tLGG\nb\tHGG\n",
        'x,"Grade","id"\n"1, 2",LGG,a\n,HGG,"b"\n',  # order of columns, quotes
    ],
)
def test_the_same_table_in_every_sound_form(tmp_path, content):
    assert labels(write(tmp_path, content)).by_id == {"a": 0, "b": 1}


BAD = {
    "54-latin-1": (b"id,Grade\na,LGG\n\xe9,HGG\n", r"labels.csv:3: not UTF-8; .*iconv"),
    "54-after-cr": (b"id,Grade\ra,LGG\r\xe9,HGG\r", r"labels.csv:3: not UTF-8"),
    "55-utf-16": ("id,Grade\na,LGG\n".encode("utf-16"), "UTF-16 or binary, not UTF-8; .*iconv"),
    "55-nul": (b"id,Grade\na,LG\0G\n", "UTF-16 or binary"),
    "56-empty": (b"", "no rows"),
    "56-mark-only": (b"\xef\xbb\xbf", "no rows"),
    "56-header-only": ("id,Grade\n\n", "no rows"),
    "57-missing": ("id,age\na,7\n", r"no column 'Grade' \(want {id, Grade}, have {id, age}\)"),
    "57-renamed": ("id,grades\na,LGG\n", "did you mean 'grades'"),
    "57-twice": ("id,Grade,Grade\na,LGG,LGG\n", "labels.csv:1: column 'Grade' appears twice"),
    "58-ragged": ("id,Grade\na,LGG\nb\n", "labels.csv:3: 1 cells under 2 columns"),
    "58-long": ("id,Grade\na,LGG,\n", "labels.csv:2: 3 cells under 2 columns"),
    "58-quote": ('id,Grade\na,LGG\nb,"HGG\n', "labels.csv:3: .*close the quote"),
    "60-conflict": (
        "id,Grade\na,LGG\nb,HGG\na,HGG\n",
        "labels.csv:4: this patient has another Grade in line 2",
    ),
    "62-number": ("id,Grade\na,5\n", "labels.csv:2: Grade '5' is unknown; write one of LGG, HGG"),
    "62-roman": ("id,Grade\na,LGG\nb,II\n", "labels.csv:3: Grade 'II' is unknown"),
    "62-case": ("id,Grade\na,lgg\n", "Grade 'lgg' is unknown"),
    "62-empty": ("id,Grade\na,\n", "Grade '' is unknown"),
    "62-na": ("id,Grade\na,NA\n", "Grade 'NA' is unknown"),
    "62-slipped": ("id,Grade\na,Doe John\n", "Grade this value is unknown"),
    "63-space": ("id,Grade\n a,LGG\n", "labels.csv:2: the id has spaces around it"),
    "63-nfd": ("id,Grade\ne\u0301,LGG\n", "labels.csv:2: the id is not allowed"),
    "64-formula": ("id,Grade\n=cmd(),LGG\n", "labels.csv:2: the id is not allowed; use 1 to 64"),
    "64-path": ("id,Grade\n../x,LGG\n", "labels.csv:2: the id is not allowed"),
    "64-long": (f"id,Grade\n{'a' * 65},LGG\n", "labels.csv:2: the id is not allowed"),
    "64-empty": ("id,Grade\n,LGG\n", "labels.csv:2: the id is not allowed"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_refused_with_one_line(tmp_path, name):
    content, reason = BAD[name]
    with pytest.raises(UserError, match=reason) as refused:
        labels(write(tmp_path, content))
    assert str(refused.value).isprintable()
    assert ";" in str(refused.value)
    assert "Doe" not in str(refused.value)


def test_labels_map_only_as_told(tmp_path):  # row 62
    path = write(tmp_path, "id,Grade\na, 2 \nb,4\n")
    assert labels(path, {"2": 0, "4": 1}).by_id == {"a": 0, "b": 1}
    with pytest.raises(UserError, match=r"Grade '2\.0' is unknown"):
        labels(write(tmp_path, "id,Grade\na,2.0\n"), {"2": 0, "4": 1})


def test_repeated_lines_that_agree_are_noted(tmp_path):  # row 59
    table = labels(write(tmp_path, "id,Grade\na,LGG\na,LGG\nb,HGG\na,LGG\n"))
    assert table.by_id == {"a": 0, "b": 1}
    assert table.notes == ("labels.csv: 2 lines repeat an earlier one",)


@pytest.mark.parametrize(
    ("in_table", "on_disk"),
    [("7", "007"), ("1e5", "100000"), ("TCGA-01", "tcga_01"), ("a.B", "AB")],
)
def test_ids_are_exact_but_near_misses_are_pointed_out(tmp_path, in_table, on_disk):  # row 63
    table = labels(write(tmp_path, f"id,Grade\nzz,LGG\n{in_table},LGG\n"))
    reasons = unlabelled(["zz", on_disk, "other"], table)
    assert reasons.keys() == {on_disk, "other"}
    assert "line 3 is nearly the same id" in reasons[on_disk]
    assert "line" not in reasons["other"].replace("add a line", "")


def test_a_table_that_is_no_file_is_not_opened(tmp_path):
    (tmp_path / "labels.csv").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match=r"labels.csv: a symbolic link"):
        read_table(tmp_path / "labels.csv")


# ------------------------------------------------------------ name_mapping.csv and the folders


@pytest.fixture
def flat(tmp_path, write_patient):
    """DIR/<patient>/… without class folders."""
    for seed, patient in enumerate(("BraTS20_001", "BraTS20_002", "BraTS20_003")):
        write_patient(tmp_path, patient, seed)

    def read(table: str, **keys):
        (tmp_path / "name_mapping.csv").write_text(table)
        keys = {"accept": AcceptSpec(missing=True), **keys}
        return read_cohort(DataSpec(layout="brats", root=tmp_path, **keys))

    return read


def test_name_mapping_gives_the_classes(flat):
    cohort = flat(
        "Grade,BraTS_2017_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
        "HGG,NA,x1,BraTS20_001\nLGG,NA,NA,BraTS20_002\nHGG,y,x3,BraTS20_003\n"
    )
    assert [(s.patient, s.label) for s in cohort.scans] == [
        ("BraTS20_001", 1),
        ("BraTS20_002", 0),
        ("BraTS20_003", 1),
    ]
    assert cohort.notes == ("name_mapping.csv: ids are those of column BraTS_2020_subject_ID",)
    assert cohort.rejects == ()


@pytest.mark.parametrize(
    "column", ["BraTS18ID", "subject_ID", "patient_id", "ID", "BraTS_2020_subject_ID"]
)
def test_names_of_id_columns(flat, column):
    lines = "".join(f"BraTS20_00{i},LGG\n" for i in (1, 2, 3))
    assert len(flat(f"{column},Grade\n{lines}").scans) == 3


def test_images_without_label_are_rejected(flat):  # row 61
    cohort = flat("Grade,ID\nHGG,BraTS20_001\nLGG,BraTS20_002\nLGG,brats20-003\n")
    (reject,) = cohort.rejects
    assert reject.patient == "BraTS20_003"
    assert reject.reason == "has no label in name_mapping.csv; line 4 is nearly the same id"
    assert len(cohort.scans) == 2
    wanted = r"data.root: 1 scans without a label \(p-.*line 4 is nearly .*data.accept.missing"
    with pytest.raises(UserError, match=wanted) as refused:
        flat("Grade,ID\nHGG,BraTS20_001\nLGG,BraTS20_002\nLGG,brats20-003\n", **ALL_OR_NOTHING)
    assert "BraTS20" not in str(refused.value)


def test_labels_without_image_are_counted_and_named_by_pseudonym(flat):  # row 61
    table = "Grade,ID\n" + "".join(f"HGG,BraTS20_{i:03d}\n" for i in range(1, 10))
    note = flat(table).notes[-1]
    assert note.startswith("name_mapping.csv: 6 patients have no folder (p-")
    assert note.count("p-") == 5
    assert "BraTS20" not in note
    with pytest.raises(UserError, match=r"6 patients have no folder .* data\.accept\.missing"):
        flat(table, **ALL_OR_NOTHING)


def test_grades_are_classes_as_the_study_says(flat):  # row 62
    grades = {"2": "LGG", "3": "LGG", "4": "HGG"}
    table = "Grade,ID\n2,BraTS20_001\n 4 ,BraTS20_002\n3,BraTS20_003\n"
    assert [scan.label for scan in flat(table, grades=grades).scans] == [0, 1, 0]
    with pytest.raises(UserError, match=r"class '2' is unknown; write one of LGG, HGG, 4"):
        flat(table, grades={"4": "HGG"})
    with pytest.raises(ValueError, match="grades: 'IV' is no class; write one of LGG, HGG"):
        DataSpec(grades={"4": "IV"})


def test_a_table_about_other_patients(flat):
    with pytest.raises(UserError, match="none of the 3 patient folders is in column ID"):
        flat("Grade,ID\nHGG,a\nLGG,b\n")
    with pytest.raises(UserError, match=r"no column of ids .* name it subject_ID"):
        flat("Grade,age\nHGG,1\n")
