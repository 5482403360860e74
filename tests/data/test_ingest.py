"""The slice store: exact rows, exact moments, no raw id, and the same bytes after any kill."""

import gzip
import itertools
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medaug.data.layouts import read_cohort
from medaug.data.normalisation import normalisation
from medaug.data.privacy import KEY_ENV, pseudonym
from medaug.data.slices import ingest, ingest_signature
from medaug.errors import UserError
from medaug.spec import DataSpec, PhantomSpec, SplitSpec
from medaug.spec.data import AcceptSpec
from medaug.store import Store

SHARED = Path(__file__).parents[3] / "shared" / "data"
SPLIT = SplitSpec(folds=2)
LOSSY = AcceptSpec(lost=0.7)
"""One of a handful of scans is a large share."""


def brats(root: Path, **keys) -> DataSpec:
    return DataSpec(**{"layout": "brats", "root": root, "image_size": 16, **keys})


def every(store: Store):
    return store.read(np.arange(len(store)))


@pytest.mark.usefixtures("reader_processes")
def test_rows_are_the_patients_slices(tmp_path, write_cohort):
    patients = write_cohort(tmp_path / "in")
    steps = []
    report = ingest(
        brats(tmp_path / "in"), SPLIT, tmp_path / "s", progress=lambda *step: steps.append(step)
    )
    store = Store.open(report.path)
    batch = every(store)
    assert store.classes == ("LGG", "HGG")
    assert store.schema.to_json() == {
        "shape": [1, 16, 16],
        "dtype": "float32",
        "mask_shape": [16, 16],
    }
    for at, (raw, (x, mask)) in enumerate(sorted(patients.items())):
        rows = slice(4 * at, 4 * at + 4)
        np.testing.assert_array_equal(batch.x[rows, 0], x.transpose(2, 1, 0))
        np.testing.assert_array_equal(batch.mask[rows], mask.transpose(2, 1, 0) > 0)
        assert set(store.patients[rows]) == {pseudonym(raw)}
        assert set(store.labels[rows]) == {raw.startswith("HGG")}
        assert store.slice_index[rows].tolist() == [0, 1, 2, 3]
        assert len(set(store.volumes[rows])) == 1
        assert store.tumour_pixels[rows].tolist() == [0, 24, 24, 0]
        assert steps[at] == (at + 1, 8, pseudonym(raw))
    assert report.patients == {"LGG": 4, "HGG": 4}
    assert report.slices == {"LGG": 16, "HGG": 16}
    assert report.rejects == report.notes == ()
    assert report.free_text == 0


def test_normalisation_is_that_of_the_training_pixels(tmp_path, write_cohort):
    write_cohort(tmp_path / "in")
    store = Store.open(ingest(brats(tmp_path / "in"), SPLIT, tmp_path / "s").path)
    for fold in range(2):
        x = every(store.split("train", fold)).x.double()
        mean, std = normalisation(store, fold)
        assert mean == pytest.approx(x.mean().item(), rel=1e-12)
        assert std == pytest.approx(x.std(unbiased=False).item(), rel=1e-12)
    assert normalisation(store, 0) != normalisation(store, 1)


def test_no_patient_is_in_two_roles(tmp_path, write_cohort):
    write_cohort(tmp_path / "in", 6)
    split = SplitSpec(folds=3, test_fraction=0.2)
    store = Store.open(ingest(brats(tmp_path / "in"), split, tmp_path / "s").path)
    for fold in range(3):
        roles = [store.split(role, fold) for role in ("train", "val", "eval")]
        roles.append(store.split("test"))
        seen = [set(role.patients) for role in roles]
        assert sum(map(len, seen)) == len(set.union(*seen)) == 12
        assert all(set(role.labels) == {0, 1} for role in roles)
        assert sum(map(len, roles)) == len(store)


def test_a_finished_store_is_not_made_again(tmp_path, write_cohort):
    write_cohort(tmp_path / "in")
    first = ingest(brats(tmp_path / "in"), SPLIT, tmp_path / "s")
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").iterdir()}
    assert ingest(brats(tmp_path / "gone"), SPLIT, tmp_path / "s") == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "s").iterdir()} == files


def test_the_signature_names_everything_that_decides_the_store(tmp_path, write_cohort, monkeypatch):
    write_cohort(tmp_path / "in")
    write_cohort(tmp_path / "copy")
    spec = brats(tmp_path / "in")

    def sign(spec=spec, split=SPLIT):
        return ingest_signature(read_cohort(spec), spec, split)

    first = sign()
    assert sign(brats(tmp_path / "copy")) == first  # the place does not matter
    signatures = {first, sign(split=SplitSpec(folds=2, seed=1))}
    for change in (
        {"image_size": 24},
        {"slice_policy": "tumour_only"},
        {"slice_step": 2},
        {"on_bad": "strict"},
        {"max_patients": 6},
        {"classes": ("HGG", "LGG")},
    ):
        signatures.add(sign(spec.model_copy(update=change)))
    mask = tmp_path / "in/LGG/LGG_00/LGG_00_seg.nii.gz"
    mask.write_bytes(gzip.compress(gzip.decompress(mask.read_bytes()), 1))
    signatures.add(sign())
    mask.unlink()
    mask.symlink_to("/etc/hostname")
    signatures.add(sign())
    monkeypatch.setenv(KEY_ENV, str(tmp_path / "other.key"))
    signatures.add(sign(brats(tmp_path / "copy")))
    assert len(signatures) == 11


def test_a_part_of_the_cohort(tmp_path, write_cohort):
    write_cohort(tmp_path / "in", 6)
    spec = brats(tmp_path / "in", max_patients=8, slice_step=2)
    report = ingest(spec, SPLIT, tmp_path / "s")
    assert report.patients == {"LGG": 4, "HGG": 4}
    assert report.slices == {"LGG": 8, "HGG": 8}
    again = ingest(spec, SPLIT, tmp_path / "t")
    assert (Store.open(again.path).patients == Store.open(report.path).patients).all()


def test_scans_without_mask_among_others_are_rejected(tmp_path, write_cohort):
    write_cohort(tmp_path / "in", 5)
    (tmp_path / "in/LGG/LGG_02/LGG_02_seg.nii.gz").unlink()
    with pytest.raises(UserError, match="class LGG: 1 of 5 scans refused: has no mask, others"):
        ingest(brats(tmp_path / "in"), SPLIT, tmp_path / "s")
    report = ingest(brats(tmp_path / "in", accept=LOSSY), SPLIT, tmp_path / "s")
    name = f"{pseudonym('LGG_02')}_flair.nii.gz"
    assert report.rejects == ((name, "has no mask, others have; add it"),)
    assert report.patients == {"LGG": 4, "HGG": 5}


def test_a_cohort_without_masks_is_a_store_without_masks(tmp_path, write_cohort):
    write_cohort(tmp_path / "in")
    for mask in (tmp_path / "in").glob("*/*/*_seg.nii.gz"):
        mask.unlink()
    store = Store.open(ingest(brats(tmp_path / "in"), SPLIT, tmp_path / "s").path)
    assert store.schema.mask_shape is None
    assert set(store.tumour_pixels) == {-1}
    with pytest.raises(UserError, match="class LGG: 4 of 4 scans refused: has no mask, which"):
        ingest(brats(tmp_path / "in", slice_policy="tumour_only"), SPLIT, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_cohort_that_cannot_be_split_fails_before_it_is_read(tmp_path, write_cohort):  # row 65
    write_cohort(tmp_path / "in", 2)
    with pytest.raises(UserError, match="cannot stratify: class LGG has 2 patients"):
        ingest(
            brats(tmp_path / "in"),
            SPLIT,
            tmp_path / "s",
            progress=lambda *step: pytest.fail("read"),
        )
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_rejects_that_break_the_split_leave_nothing(tmp_path, write_cohort):
    write_cohort(tmp_path / "in", 3)
    for patient in ("LGG_00", "LGG_01"):
        (tmp_path / "in/LGG" / patient / f"{patient}_flair.nii.gz").write_bytes(b"")
    (tmp_path / "stores").mkdir()
    with pytest.raises(UserError, match="cannot stratify: class LGG has 1 patients"):
        ingest(brats(tmp_path / "in", accept=LOSSY), SplitSpec(folds=3), tmp_path / "stores/s")
    assert [p.name for p in (tmp_path / "stores").iterdir()] == ["rejects.jsonl"]


def test_rejects_of_another_store_stay_listed(tmp_path, write_cohort):
    write_cohort(tmp_path / "in", 5)
    bad = tmp_path / "in/LGG/LGG_00/LGG_00_flair.nii.gz"
    sound = bad.read_bytes()
    bad.write_bytes(b"")
    for name in ("a", "b"):
        ingest(brats(tmp_path / "in", accept=LOSSY), SPLIT, tmp_path / "stores" / name)
    lines = (tmp_path / "stores/rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["store"] for line in lines] == ["a", "b"]
    bad.write_bytes(sound)
    (tmp_path / "stores/b/manifest.json").unlink()
    ingest(brats(tmp_path / "in"), SPLIT, tmp_path / "stores/b")
    assert (tmp_path / "stores/rejects.jsonl").read_text().splitlines() == lines[:1]


def test_a_site_key_inside_the_storage_is_refused(tmp_path, write_cohort, monkeypatch):
    write_cohort(tmp_path / "in")
    monkeypatch.setenv(KEY_ENV, str(tmp_path / "stores" / "site.key"))
    with pytest.raises(UserError, match="inside the storage folder"):
        ingest(brats(tmp_path / "in"), SPLIT, tmp_path / "stores" / "s")
    assert not (tmp_path / "stores").exists()


@pytest.mark.usefixtures("reader_processes")
def test_nothing_that_names_a_patient_gets_out(tmp_path, write_cohort, capfd, caplog):
    """Ninety planted strings, in headers, extensions, names and places; rejects.jsonl alone has
    file names, and lies beside the store."""
    root = tmp_path / "PLANT000-ward" / "in"
    write_cohort(root)
    (root / "PLANT001-Doe" / "PLANT002").mkdir(parents=True)
    planted = (f"PLANT{i:03d}" for i in range(3, 1000))
    for folder in sorted(root.glob("[HL]GG/*")):
        patient = next(planted)
        for what in ("flair", "seg"):
            image = nib.load(folder / f"{folder.name}_{what}.nii.gz")
            image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
            for field in ("descrip", "aux_file", "intent_name", "db_name"):
                image.header[field] = next(planted).encode()
            comment = nib.nifti1.Nifti1Extension(2, next(planted).encode())
            image.header.extensions.append(comment)
            nib.save(image, folder / f"{patient}_{what}.nii.gz")
            (folder / f"{folder.name}_{what}.nii.gz").unlink()
        folder.rename(folder.with_name(patient))
    broken = next(root.glob("HGG/*/*_flair.nii.gz"))
    broken.write_bytes(broken.read_bytes()[:-30])
    seen = []
    report = ingest(
        brats(root, accept=LOSSY),
        SplitSpec(folds=3),
        tmp_path / "stores" / "s",
        progress=lambda *a: seen.append(a),
    )
    assert report.free_text == 5 * 7
    assert len(report.rejects) == 1
    outputs = [repr(report), repr(seen), *capfd.readouterr(), caplog.text]
    outputs += [p.read_bytes().decode("latin-1") for p in (tmp_path / "stores/s").iterdir()]
    outputs += [p.name for p in (tmp_path / "stores").rglob("*")]
    assert len(outputs) > 8
    assert not [text for text in outputs if "PLANT" in text]
    assert "PLANT" in (tmp_path / "stores" / "rejects.jsonl").read_text()


KILLED = """
import os, signal, sys
from functools import partial
from pathlib import Path
from medaug.data import slices
from medaug.spec import DataSpec, SplitSpec

slices.StoreWriter = partial(slices.StoreWriter, shard_bytes=1 << 20)  # of three rows
spec = DataSpec(layout="brats", root=Path(sys.argv[1]), image_size=256)

def die(at, done, total, name):
    if done == at:
        os.kill(os.getpid(), signal.SIGKILL)

for out, kills in (("whole", [0]), ("killed", [3, 7, 0])):
    kept = {}
    for at in kills:
        child = os.fork()
        if child == 0:
            slices.ingest(spec, SplitSpec(folds=2), Path(sys.argv[2], out), progress=partial(die, at), workers=1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == (0 if at == 0 else signal.SIGKILL)
        assert (at == 0) == Path(sys.argv[2], out, "manifest.json").exists()
        shards = {p: p.stat().st_mtime_ns for p in Path(sys.argv[2], out).glob("*.arrow")}
        assert kept.items() < shards.items()  # whole shards are not written again
        kept = shards
"""


def test_killed_at_any_patient_the_store_is_the_same_to_the_byte(tmp_path, write_cohort):
    """FAULTS 1. The fork happens before any thread exists."""
    write_cohort(tmp_path / "in")
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "in", tmp_path], check=True)
    whole, killed = (
        {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
        for name in ("whole", "killed")
    )
    assert len([name for name in whole if name.endswith(".arrow")]) > 10
    assert whole == killed


def test_images_are_rows_too(tmp_path):
    """2-D layouts: one row an image, one series a patient, masks where there are some."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("normal", "sick")):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 255, (20, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "in" / name / f"IM-{label}{i:03d}-0001.png")
    (tmp_path / "in/sick/IM-1999-0001.png").write_bytes(b"not an image")
    spec = DataSpec(
        layout="class_folders",
        root=tmp_path / "in",
        classes=("normal", "sick"),
        image_size=32,
        accept=LOSSY,
    )
    report = ingest(spec, SPLIT, tmp_path / "s")
    store = Store.open(report.path)
    assert report.slices == {"normal": 4, "sick": 4}
    assert len(report.rejects) == 1
    assert store.schema.mask_shape is None
    assert len(set(store.patients)) == len(store) == 8
    x = every(store).x
    assert x.min() >= 0
    assert 0.9 < x.max() <= 1


def test_a_phantom_study_from_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = DataSpec(
        image_size=32, phantom=PhantomSpec(patients=8, slices=(4, 6)), slice_policy="tumour_only"
    )
    report = ingest(spec, SplitSpec(folds=3), tmp_path / "s")
    store = Store.open(report.path)
    assert sum(report.patients.values()) == 8
    assert report.rejects == ()
    assert (store.tumour_pixels > 0).all()
    assert store.manifest["extra"]["data"]["phantom"]["patients"] == 8
    assert str(tmp_path) not in json.dumps(dict(store.manifest))


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real volumes at {SHARED}")
def test_real_volumes(tmp_path):
    spec = brats(SHARED / "lgg_tcga_brats_layout", image_size=160, max_patients=8)
    report = ingest(spec, SPLIT, tmp_path / "s")
    assert sum(report.patients.values()) == 8
    assert report.rejects == ()
    store = Store.open(report.path)
    cohort = {pseudonym(scan.patient): scan for scan in read_cohort(spec).scans}
    patient = store.patients[0]
    rows = np.flatnonzero(store.patients == patient)
    batch = store.read(rows)
    x = nib.load(cohort[patient].path).get_fdata(dtype=np.float32)
    mask = nib.load(cohort[patient].mask).get_fdata()
    np.testing.assert_array_equal(batch.x[:, 0], x.transpose(2, 1, 0))
    np.testing.assert_array_equal(batch.mask, mask.transpose(2, 1, 0))


def test_a_split_by_image_divides_patients_as_published(tmp_path):
    for part, count in (("train", 3), ("val", 1)):
        for name, patient in itertools.product(("NORMAL", "PNEUMONIA"), range(5)):
            folder = tmp_path / "in" / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                stem = f"{'IM-' if name == 'NORMAL' else 'person'}{patient:04d}"
                tail = f"-{number:04d}" if name == "NORMAL" else f"_virus_{number}"
                x = np.full((16, 16), 10 * patient + number + 1, np.uint8)
                x[0, 0], x[0, 1] = count, name == "NORMAL"
                Image.fromarray(x).save(folder / f"{stem}{tail}.png")
    spec = DataSpec(
        layout="class_folders",
        root=tmp_path / "in",
        classes=("NORMAL", "PNEUMONIA"),
        image_size=16,
    )
    split = SplitSpec(scheme="published", unit="image", eval_fraction=0.25)
    store = Store.open(ingest(spec, split, tmp_path / "s").path)
    (fold,) = store.splits.folds
    assert store.splits.unit == "image"
    assert sorted((*fold.train, *fold.eval)) == sorted(set(store.units)) == sorted(store.units)
    assert len(fold.eval) == len(store) / 4 == 10
    train, scored = store.split("train", 0), store.split("eval", 0)
    assert set(train.patients) & set(scored.patients)
    mean, std = normalisation(store, 0)
    x = every(train).x.double()
    assert (mean, std) == pytest.approx((x.mean().item(), x.std(unbiased=False).item()))
    # Each image keeps the publisher's folder that it came from.
    in_train = every(store).x[:, 0, 0, 0].mul(255).round() == 3
    parts = store.manifest["extra"]["parts"]
    assert [parts[unit] == ["train"] for unit in store.units] == in_train.tolist()


def test_a_split_by_image_is_for_images(tmp_path, write_cohort):
    write_cohort(tmp_path / "in")
    with pytest.raises(UserError, match="image is for layouts of 2-D images"):
        ingest(brats(tmp_path / "in"), SplitSpec(scheme="published", unit="image"), tmp_path / "s")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real volumes at {SHARED}")
def test_a_real_cohort_of_one_class_cannot_be_split(tmp_path):
    spec = brats(SHARED / "brats2013_hgg6_brats_layout", image_size=240)
    with pytest.raises(UserError, match="class LGG has 0 patients, too few for 2 folds"):
        ingest(spec, SPLIT, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []
