"""Layouts of 2-D sets: whose image, which class, and what the user is told about leaks."""

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from medaug.data.cohort import Scan
from medaug.data.image_patients import BLOCK, GUARD, in_blocks, patient_in_name
from medaug.data.images import read_image, read_image_mask
from medaug.data.layouts import read_cohort
from medaug.errors import UserError
from medaug.spec.data import AcceptSpec, DataSpec

REAL = Path(__file__).parents[2] / "shared" / "data"
if not REAL.is_dir():
    REAL = Path(__file__).parents[3] / "shared" / "data"


def touch(root: Path, *names: str) -> None:
    """Layouts read names only, so the files may be empty."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def load(layout: str, root: Path, *classes: str, **fields):
    fields = {"accept": AcceptSpec(missing=True), **fields}
    spec = DataSpec(layout=layout, root=root, classes=classes, **fields)
    return read_cohort(spec)


def by_file(cohort) -> dict[str, Scan]:
    return {scan.path.name: scan for scan in cohort.scans}


# ------------------------------------------------------------------------------- class folders


def test_class_folders_without_patients(tmp_path):
    touch(tmp_path, "no/a.png", "no/b.jpg", "yes/c.jpeg", "yes/a.PNG", "yes/.hidden.png")
    touch(tmp_path, "yes/notes.txt", "other/d.png")
    cohort = load("class_folders", tmp_path, "no", "yes")
    assert [(s.patient, s.path.name, s.label, s.index, s.part) for s in cohort.scans] == [
        ("a", "a.PNG", 1, 0, None),
        ("a", "a.png", 0, 1, None),
        ("b", "b.jpg", 0, 0, None),
        ("c", "c.jpeg", 1, 0, None),
    ]
    assert cohort.classes == ("no", "yes")
    assert not cohort.rejects
    assert any("4 of 4 images count as patients of their own" in note for note in cohort.notes)
    assert any("1 patients have images of several classes" in note for note in cohort.notes)


@pytest.mark.parametrize(
    ("normal", "ill", "patients"),
    [
        (range(1, 6), range(1, 4), 8),  # numbers count the images of a folder
        (range(1, 9, 2), range(1, 9), 12),  # also with gaps
        ([4711, 5203, 6120], [4711, 9007, 9950], 5),  # numbers of people: 4711 is one of them
        ([4711, 5203, 6120], range(4709, 4713), 6),
    ],
)
def test_equal_numbers_in_two_classes(tmp_path, normal, ill, patients):
    touch(tmp_path, *(f"normal/{n}.png" for n in normal), *(f"ill/{n}.png" for n in ill))
    cohort = load("class_folders", tmp_path, "normal", "ill")
    images = len(normal) + len(ill)
    assert len({scan.patient for scan in cohort.scans}) == patients
    labels = defaultdict(set)
    for scan in cohort.scans:
        labels[scan.patient].add(scan.label)
    assert sum(len(found) for found in labels.values()) == images
    told = [note for note in cohort.notes if "taken for different people" in note]
    assert len(told) == (patients == images)
    several = [note for note in cohort.notes if "images of several classes" in note]
    assert len(several) == (patients < images)


def test_equal_names_with_the_patients_that_a_table_gives(tmp_path):
    touch(tmp_path, "normal/1.png", "normal/2.png", "ill/1.png", "ill/2.png")
    table = tmp_path / "patients.csv"
    table.write_text("file,patient\n1.png,p1\n2.png,p2\n")
    cohort = load("class_folders", tmp_path, "normal", "ill")
    assert Counter(scan.patient for scan in cohort.scans) == {"p1": 2, "p2": 2}
    table.write_text("file,patient\nnormal/1.png,p1\nill/1.png,p2\n2.png,p3\n")
    cohort = load("class_folders", tmp_path, "normal", "ill")
    assert Counter(scan.patient for scan in cohort.scans) == {"p1": 1, "p2": 1, "p3": 2}
    assert not any("no image" in note for note in cohort.notes)


@pytest.mark.parametrize(
    ("stem", "patient"),
    [
        ("person123_bacteria_4", "person123"),
        ("person123_virus_7", "person123"),
        ("person1_virus_6_2", "person1"),
        ("IM-0115-0001", "IM-0115"),
        ("IM-0640-0001-0001", "IM-0640"),
        ("NORMAL2-IM-1018-0001", "NORMAL2-IM-1018"),
        ("person_bacteria_4", "person_bacteria_4"),
        ("IM-0115", "IM-0115"),
        ("scan 3 (1)", "scan 3 (1)"),
    ],
)
def test_patient_in_a_file_name(stem, patient):
    assert patient_in_name(Path(f"{stem}.jpeg")) == patient


def test_published_parts_and_their_leaks_are_told(tmp_path):
    touch(tmp_path, "train/NORMAL/IM-0001-0001.jpeg", "train/PNEUMONIA/person1_virus_1.jpeg")
    touch(tmp_path, "test/PNEUMONIA/person1_bacteria_2.jpeg", "test/NORMAL/IM-0001-0001.jpeg")
    cohort = load("class_folders", tmp_path, "NORMAL", "PNEUMONIA")
    assert Counter((s.patient, s.part) for s in cohort.scans) == {
        ("IM-0001", "train"): 1,
        ("IM-0001", "test"): 1,
        ("person1", "train"): 1,
        ("person1", "test"): 1,
    }
    text = " | ".join(cohort.notes)
    assert "patients are read off the file names" in text
    assert "2 of 2 patients are in more than one of the folders" in text
    assert "1 file names are in more than one of the folders" in text


@pytest.mark.parametrize(("name", "column"), [("patients.csv", "patient"), ("groups.csv", "group")])
def test_a_table_names_the_patients(tmp_path, name, column):
    touch(tmp_path, "no/a.png", "no/b.png", "yes/c.png", "yes/d.png")
    (tmp_path / name).write_text(f"file,{column}\na.png,p1\nb.png,p1\nc.png,p2\nz.png,p3\n")
    cohort = load("class_folders", tmp_path, "no", "yes")
    assert {file: s.patient for file, s in by_file(cohort).items()} == {
        "a.png": "p1",
        "b.png": "p1",
        "c.png": "p2",
    }
    assert [(r.path.name, r.reason) for r in cohort.rejects] == [
        ("d.png", f"has no line in {name}; add one")
    ]
    assert f"{name}: 1 lines have no image here" in cohort.notes
    with pytest.raises(UserError, match="1 scans without a label"):
        load("class_folders", tmp_path, "no", "yes", accept=AcceptSpec())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,patient\na.png,p1\na.png,p2\n", r"patients.csv:3: this file has another patient"),
        ("file,patient\na.png,\n", "patients.csv:2: patient is empty"),
        ("file,who\na.png,p1\n", "no column patient or group"),
        ("name,patient\na.png,p1\n", "no column 'file'"),
    ],
)
def test_bad_patient_tables(tmp_path, table, message):
    touch(tmp_path, "no/a.png", "yes/b.png")
    (tmp_path / "patients.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        load("class_folders", tmp_path, "no", "yes")


def test_missing_class_folder(tmp_path):
    touch(tmp_path, "no/a.png", "elsewhere/b.png")
    (tmp_path / "yes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="no PNG or JPEG image in a folder yes"):
        load("class_folders", tmp_path, "no", "yes")
    with pytest.raises(UserError, match="is no folder"):
        load("class_folders", tmp_path / "nowhere", "no", "yes")


def test_impossible_names_are_rejected(tmp_path):
    touch(tmp_path, "no/a.png", "no/b\nc.png", "yes/d.png")
    cohort = load("class_folders", tmp_path, "no", "yes")
    assert len(cohort.scans) == 2
    assert [reject.reason for reject in cohort.rejects] == [
        "the file name holds control characters; rename the file"
    ]


# ------------------------------------------------------------------------------------- head CT


def head_ct_set(root: Path) -> None:
    touch(root, *(f"head_ct/head_ct/{n:03d}.png" for n in (2, 3, 100, 101)))
    (root / "labels.csv").write_text("id, hemorrhage\n2,1\n3,1\n100,0\n101,0\n102,0\n")
    (root / "groups.csv").write_text("id,hemorrhage,group\n2,1,25\n3,1,25\n100,0,7\n")


def test_head_ct(tmp_path):
    head_ct_set(tmp_path)
    cohort = load("head_ct", tmp_path, "normal", "hemorrhage")
    assert [(s.patient, s.path.name, s.label, s.index) for s in cohort.scans] == [
        ("group-25", "002.png", 1, 2),
        ("group-25", "003.png", 1, 3),
        ("group-7", "100.png", 0, 100),
    ]
    assert [(r.path.name, r.reason) for r in cohort.rejects] == [
        ("101.png", "has no line in groups.csv; add one")
    ]
    assert cohort.notes == ("labels.csv: 1 lines have no image here",)


def test_head_ct_without_groups_warns_of_the_leak(tmp_path):
    head_ct_set(tmp_path)
    (tmp_path / "groups.csv").unlink()
    cohort = load("head_ct", tmp_path, "normal", "hemorrhage")
    assert len({s.patient for s in cohort.scans}) == 4
    assert "often one person" in cohort.notes[0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("id,hemorrhage\n2,2\n", "labels.csv:2: hemorrhage is unknown; write one of 0, 1"),
        ("id,hemorrhage\ntwo,1\n", "labels.csv:2: id is no whole number"),
        ("id,hemorrhage\n2,1\n2,0\n", "labels.csv:3: this id has another hemorrhage"),
        ("id,label\n2,1\n", "no column 'hemorrhage'"),
    ],
)
def test_bad_head_ct_labels(tmp_path, labels, message):
    head_ct_set(tmp_path)
    (tmp_path / "labels.csv").write_text(labels)
    with pytest.raises(UserError, match=message):
        load("head_ct", tmp_path, "normal", "hemorrhage")


def test_class_names_of_a_fixed_layout(tmp_path):
    head_ct_set(tmp_path)
    with pytest.raises(UserError, match="class 'hemorrhage' is unknown; write one of LGG, HGG"):
        load("head_ct", tmp_path, "LGG", "HGG")


# -------------------------------------------------------------------------------------- CT-ICH

ICH = "PatientNumber,SliceNumber,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,Subdural"
ICH += ",No_Hemorrhage,Fracture_Yes_No\n"


def ct_ich_set(root: Path, rows: str) -> None:
    touch(root, "Patients_CT/049/brain/1.jpg", "Patients_CT/049/brain/2.jpg")
    touch(root, "Patients_CT/049/brain/2_HGE_Seg.jpg", "Patients_CT/049/bone/1.jpg")
    touch(root, "Patients_CT/050/brain/1.jpg", "Patients_CT/x/brain/1.jpg")
    (root / "hemorrhage_diagnosis.csv").write_text(ICH + rows)


def test_ct_ich(tmp_path):
    rows = "49,1,0,0,0,0,0,1,0\n49,2,0,1,0,0,0,0,1\n50,1,0,0,0,0,0,1,0\n50,2,0,0,0,0,0,1,0\n"
    ct_ich_set(tmp_path, rows)
    cohort = load("ct_ich", tmp_path, "normal", "hemorrhage")
    assert [(s.patient, s.index, s.label) for s in cohort.scans] == [
        ("049", 1, 0),
        ("049", 2, 1),
        ("050", 1, 0),
    ]
    assert [r.path.parts[-3:] for r in cohort.rejects] == [("x", "brain", "1.jpg")]
    assert "hemorrhage_diagnosis.csv: 1 lines have no image here" in cohort.notes
    assert "1 files left out: a mask in JPEG, which has no sharp borders" in cohort.notes


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("49,1,0,0,0,0,1,1,0\n", "csv:2: No_Hemorrhage contradicts the subtypes"),
        ("49,1,0,0,0,0,0,1,0\n49,1,1,0,0,0,0,0,0\n", "csv:3: this slice has another label"),
        ("49,1.5,0,0,0,0,0,1,0\n", "csv:2: SliceNumber is no whole number"),
    ],
)
def test_bad_ct_ich_tables(tmp_path, rows, message):
    ct_ich_set(tmp_path, rows)
    with pytest.raises(UserError, match=message):
        load("ct_ich", tmp_path, "normal", "hemorrhage")


# ----------------------------------------------------------------------------------- image list


def image_list_set(root: Path, classes: dict[int, str]) -> None:
    touch(root, *(f"images/{n}.jpg" for n in classes), *(f"masks/{n}.png" for n in classes))
    rows = "".join(f"{n},{c}\n" for n, c in classes.items())
    (root / "labels.csv").write_text("index,class\n" + rows)


def test_image_list_in_blocks(tmp_path):
    image_list_set(tmp_path, {n: "a" if n < 200 else "b" for n in range(1, 301)})
    alone = load("image_list", tmp_path, "a", "b")
    assert len({scan.patient for scan in alone.scans}) == len(alone.scans) == 300
    assert "blocks of consecutive numbers are a stand-in that you can accept" in alone.notes[0]
    cohort = load("image_list", tmp_path, "a", "b", accept=AcceptSpec(missing=True, blocks=True))
    assert all(s.mask == tmp_path / "masks" / f"{s.index}.png" for s in cohort.scans)
    assert all(s.label == int(s.index >= 200) for s in cohort.scans)
    members = defaultdict(list)
    for scan in cohort.scans:
        members[scan.patient].append((scan.index, scan.label))
    assert all(len({label for _, label in images}) == 1 for images in members.values())
    spans = sorted((min(m)[0], max(m)[0], min(m)[1]) for m in members.values())
    for (_, stop, label), (start, _, next_label) in pairwise(spans):
        assert start - stop > GUARD if label == next_label else start == stop + 1
    assert spans[0][0] == 1
    assert spans[-1][1] == 300
    assert "this is only right where numbers run patient by patient" in cohort.notes[0]


def test_blocks_use_wide_gaps_and_waste_nothing_there():
    numbers = [*range(40), *range(40 + GUARD + 1, 100), *range(500, 500 + 3 * BLOCK)]
    scans = [Scan("", Path(f"{n}.png"), label=0, index=n) for n in numbers]
    grouped, note = in_blocks(scans)
    sizes = Counter(scan.patient for scan in grouped)
    assert sizes["block-0-0"] == 40
    assert sizes["block-56-0"] == 44
    assert [sizes[f"block-500-{b}"] for b in range(3)] == [50, 50, 50]
    assert f"{2 * GUARD} images between blocks are left out" in note


def test_image_list_with_patients_and_missing_masks(tmp_path):
    image_list_set(tmp_path, {1: "a", 2: "a", 3: "b"})
    (tmp_path / "labels.csv").write_text("index,class,patient\n1,a,x\n2,a,x\n3,b,y\n4,b,y\n")
    (tmp_path / "masks" / "2.png").unlink()
    touch(tmp_path, "images/9.jpg", "images/cover.jpg")
    cohort = load("image_list", tmp_path, "a", "b")
    assert [(s.patient, s.index) for s in cohort.scans] == [("x", 1), ("y", 3)]
    assert {r.path.name: r.reason.split(";")[0] for r in cohort.rejects} == {
        "2.jpg": "no mask",
        "9.jpg": "has no line in labels.csv",
        "cover.jpg": "has no line in labels.csv",
    }
    assert "labels.csv: 1 lines have no image here" in cohort.notes
    with pytest.raises(UserError, match="class 'b' is unknown; write one of a, c"):
        load("image_list", tmp_path, "a", "c")


# ------------------------------------------------------------------------------------ real sets


@pytest.mark.parametrize(
    ("layout", "folder", "classes"),
    [
        ("head_ct", "head_ct_hemorrhage", ("normal", "hemorrhage")),
        ("ct_ich", "ct_ich", ("normal", "hemorrhage")),
        ("class_folders", "chest_xray_pneumonia", ("NORMAL", "PNEUMONIA")),
        ("image_list", "cheng_figshare_256", ("meningioma", "glioma", "pituitary")),
    ],
)
def test_real_sets_in_their_public_layout(layout, folder, classes):
    root = REAL / folder
    if not root.is_dir():
        pytest.skip(f"{folder} is not here")
    cohort = load(layout, root, *classes, accept=AcceptSpec(missing=True, blocks=True))
    assert not cohort.rejects
    assert {s.label for s in cohort.scans} == set(range(len(classes)))
    n_patients = len({s.patient for s in cohort.scans})
    assert 10 < n_patients < len(cohort.scans)
    for scan in cohort.scans[:: max(1, len(cohort.scans) // 25)]:
        image = read_image(scan.path)
        assert 0 <= image.min() < image.max() <= 1
        if scan.mask:
            assert read_image_mask(scan.mask, image.shape).any()


def test_names_and_table_of_the_real_chest_set_agree():
    root = REAL / "chest_xray_pneumonia"
    if not root.is_dir():
        pytest.skip("chest_xray_pneumonia is not here")
    cohort = load("class_folders", root, "NORMAL", "PNEUMONIA")
    assert {s.part for s in cohort.scans} == {"train", "val"}
    assert all(patient_in_name(s.path) == s.patient for s in cohort.scans)
