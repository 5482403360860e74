"""Folders are read by their names alone, and nothing guesses a class."""

from pathlib import Path

import pytest

from medaug.data.layouts import LAYOUTS, read_cohort
from medaug.data.privacy import pseudonym
from medaug.errors import UserError
from medaug.spec import DataSpec, PhantomSpec

SHARED = Path(__file__).parents[3] / "shared" / "data"


def brats(root: Path, **keys) -> DataSpec:
    return DataSpec(layout="brats", root=root, **keys)


def test_class_folders(tmp_path, write_cohort):
    write_cohort(tmp_path, 2)
    (tmp_path / "HGG" / ".DS_Store").touch()
    (tmp_path / "LGG" / "notes.txt").touch()
    cohort = read_cohort(brats(tmp_path))
    assert [(s.patient, s.label) for s in cohort.scans] == [
        ("HGG_00", 1),
        ("HGG_01", 1),
        ("LGG_00", 0),
        ("LGG_01", 0),
    ]
    first = cohort.scans[0]
    assert first.path == tmp_path / "HGG/HGG_00/HGG_00_flair.nii.gz"
    assert first.mask == tmp_path / "HGG/HGG_00/HGG_00_seg.nii.gz"
    assert cohort.rejects == cohort.notes == ()


def test_other_channels_and_unpacked_files(tmp_path, write_cohort):
    write_cohort(tmp_path, 1)
    (tmp_path / "HGG/HGG_00/HGG_00_t1ce.nii").touch()
    cohort = read_cohort(brats(tmp_path, channel="t1ce"))
    assert [s.path.name for s in cohort.scans] == ["HGG_00_t1ce.nii"]
    (reject,) = cohort.rejects
    assert reject.patient == "LGG_00"
    assert reject.reason == "no t1ce image; put <patient>_t1ce.nii.gz into the folder"
    with pytest.raises(UserError, match=r"data.channel: '\.\./x'"):
        read_cohort(brats(tmp_path, channel="../x"))


def test_other_folders_are_counted_not_named(tmp_path, write_cohort, write_patient):
    write_cohort(tmp_path, 1)
    for seed, patient in enumerate(("a", "b")):
        write_patient(tmp_path / "Doe John", patient, seed)
    note, left = read_cohort(brats(tmp_path)).notes
    assert left == "4 files left out: its class is not in data.classes"
    assert note.startswith("1 folder(s) beside LGG, HGG skipped, with 2 folder(s) inside")
    assert "Doe" not in note


def test_a_patient_of_two_classes_is_refused_by_pseudonym(tmp_path, write_patient):
    for name in ("LGG", "HGG"):
        write_patient(tmp_path / name, "DOE", 0)
    with pytest.raises(UserError, match=f"patient {pseudonym('DOE')} is in HGG and in LGG"):
        read_cohort(brats(tmp_path))


def test_links_and_names_that_are_no_ids_are_rejected(tmp_path, write_cohort, write_patient):
    write_cohort(tmp_path / "in", 1)
    write_patient(tmp_path / "elsewhere", "linked", 0)
    (tmp_path / "in/LGG/linked").symlink_to(tmp_path / "elsewhere/linked")
    write_patient(tmp_path / "in/LGG", "Doe^John 1950", 0)
    cohort = read_cohort(brats(tmp_path / "in"))
    assert len(cohort.scans) == 2
    reasons = {reject.patient: reject.reason for reject in cohort.rejects}
    assert "no patient id" in reasons.pop("Doe^John 1950")
    assert "a symbolic link" in reasons.pop("linked")
    assert not reasons
    assert not any("Doe" in reject.reason for reject in cohort.rejects)


def test_a_missing_mask_is_left_to_the_ingest(tmp_path, write_cohort):
    write_cohort(tmp_path, 1)
    (tmp_path / "LGG/LGG_00/LGG_00_seg.nii.gz").unlink()
    assert [s.mask is None for s in read_cohort(brats(tmp_path)).scans] == [False, True]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda root: None, "data.root: is no folder"),
        (Path.touch, "data.root: is no folder"),
        (Path.mkdir, "holds no volume of a patient"),
    ],
)
def test_folders_that_are_no_cohort(tmp_path, make, reason):
    make(tmp_path / "x")
    with pytest.raises(UserError, match=reason) as refused:
        read_cohort(brats(tmp_path / "x"))
    assert str(tmp_path) not in str(refused.value)


def test_an_unknown_layout_names_the_known_ones(tmp_path):
    with pytest.raises(
        UserError, match=r"data\.layout: 'flat'; use one of bids, brats, class_folders"
    ):
        read_cohort(DataSpec(layout="flat", root=tmp_path))
    assert {"brats", "phantom", "class_folders", "head_ct", "ct_ich"} <= {*LAYOUTS}


def test_a_phantom_cohort_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = DataSpec(image_size=16, phantom=PhantomSpec(patients=4, slices=(2, 3)))
    steps = []
    cohort = read_cohort(spec, lambda *step: steps.append(step[:2]))
    assert sorted(steps) == [(i, 4) for i in range(1, 5)]
    assert sorted(scan.label for scan in cohort.scans) == [0, 0, 1, 1]
    assert all(scan.mask for scan in cohort.scans)
    assert read_cohort(spec, lambda *step: steps.append(step)) == cohort
    assert len(steps) == 4
    other = read_cohort(spec.model_copy(update={"image_size": 20}))
    assert not {s.path for s in other.scans} & {s.path for s in cohort.scans}
    with pytest.raises(UserError, match="a phantom cohort has LGG, HGG"):
        read_cohort(spec.model_copy(update={"classes": ("a", "b")}))


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real cohorts at {SHARED}")
def test_real_cohorts():
    lgg = read_cohort(brats(SHARED / "lgg_tcga_brats_layout"))
    folders = [p for p in (SHARED / "lgg_tcga_brats_layout").glob("[HL]GG/*") if p.is_dir()]
    assert len(lgg.scans) == len(folders) > 20
    assert lgg.rejects == ()
    hgg = read_cohort(brats(SHARED / "brats2013_hgg6_brats_layout", channel="t1ce"))
    assert {scan.label for scan in hgg.scans} == {1}
    assert all(scan.mask for scan in hgg.scans)
