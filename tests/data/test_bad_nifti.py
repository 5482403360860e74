"""Volumes that cannot be used harm no other; the reasons themselves are rows of tests/bad_inputs."""

import json
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medaug.data.files import BadFile
from medaug.data.nifti import Limits
from medaug.data.reader import Cut, read_rows
from medaug.data.slices import ingest
from medaug.errors import UserError
from medaug.spec import DataSpec, SplitSpec
from medaug.spec.data import AcceptSpec
from medaug.store import Store
from tests.bad_inputs.volumes import (
    CORPUS,
    MAGIC,
    MASK,
    NAMES,
    NOT_FILES,
    VOX_OFFSET,
    X,
    nifti,
    patch,
    place,
    zip_,
)

STRICT, LENIENT = Limits(strict=True), Limits()


@pytest.mark.parametrize("offset", [0, 352, 400])
def test_sound_neighbours_of_the_bad_files_pass(tmp_path, offset):
    """What the table changes is what it is refused for."""
    raw = patch((VOX_OFFSET, "f", offset))
    image = zip_(raw[:352] + bytes(max(0, offset - 352)) + raw[352:])
    facts, arrays = read_rows(
        *place(tmp_path, "p", image, zip_(nifti(MASK))), Cut(8, "all", 1, STRICT)
    )
    np.testing.assert_array_equal(arrays[0][:, 0], X.transpose(2, 1, 0))
    assert facts["free_text"] == 0


def test_pair_without_its_other_half(tmp_path):  # row 34
    (tmp_path / "p.hdr").write_bytes(patch((MAGIC, "4s", b"ni1\0"), (VOX_OFFSET, "f", 0))[:352])
    with pytest.raises(BadFile, match=r"its \.img half is missing; put it beside the \.hdr"):
        read_rows(tmp_path / "p.hdr", None, Cut(8, "all", 1, LENIENT))


# ------------------------------------------------------------ B, row 50: not files at all


@pytest.mark.parametrize("kind", NOT_FILES)
def test_what_is_not_a_file_is_never_opened(tmp_path, kind):
    make, reason = NOT_FILES[kind]
    if kind == "unreadable" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    make(tmp_path / "a.nii.gz")
    with pytest.raises(BadFile, match=reason):  # opening a FIFO would wait for ever
        read_rows(tmp_path / "a.nii.gz", None, Cut(8, "all", 1, LENIENT))


@pytest.mark.parametrize(("name", "reason"), NAMES)
def test_names_that_no_log_could_hold(tmp_path, name, reason):
    (tmp_path / name).write_bytes(nifti())
    with pytest.raises(BadFile, match=reason) as refused:
        read_rows(tmp_path / name, None, Cut(8, "all", 1, LENIENT))
    assert str(refused.value).isprintable()


# ------------------------------------------------------------ the corpus among sound patients


SPEC = DataSpec(layout="brats", root=Path("x"), image_size=16)
SPLIT = SplitSpec(folds=2)


@pytest.mark.usefixtures("reader_processes")
def test_the_corpus_leaves_sound_patients_untouched(tmp_path, write_cohort):
    """FAULTS 2: one reject is one line in rejects.jsonl, and changes nothing else."""
    sound, mixed = tmp_path / "sound", tmp_path / "mixed"
    patients = write_cohort(sound)
    write_cohort(mixed)
    for name, (image, mask, _) in CORPUS.items():
        place(mixed / "LGG", f"bad-{name}", image, mask)
    fifo, _ = place(mixed / "HGG", "bad-fifo", b"", b"")
    fifo.unlink()
    os.mkfifo(fifo)

    out = tmp_path / "stores" / "mixed"
    lossy = AcceptSpec(lost=1.0, copies=True)
    report = ingest(SPEC.model_copy(update={"root": mixed, "accept": lossy}), SPLIT, out)
    wanted = {f"bad-{name}": reason for name, (_, _, reason) in CORPUS.items()}
    wanted["bad-fifo"] = "a FIFO"
    rejects = tmp_path / "stores" / "rejects.jsonl"
    lines = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert len(lines) == len(wanted) == len(report.rejects)
    for line in lines:
        assert re.search(wanted.pop(line["patient"]), line["reason"])
        assert (line["shown_as"], line["reason"]) in report.rejects
        assert Path(line["file"]).parent.name == line["patient"]
    assert rejects.stat().st_mode & 0o777 == 0o600

    alone = ingest(SPEC.model_copy(update={"root": sound}), SPLIT, tmp_path / "sound-store")
    store, reference = Store.open(out), Store.open(alone.path)
    assert report.patients == alone.patients == {"LGG": 4, "HGG": 4}
    assert store.splits == reference.splits
    assert store.manifest["extra"]["moments"] == reference.manifest["extra"]["moments"]
    every = np.arange(len(reference))
    assert len(store) == len(reference) == 4 * len(patients)
    assert (store.read(every).x == reference.read(every).x).all()
    assert (store.patients == reference.patients).all()


def test_strict_stops_at_the_first_bad_file_and_leaves_nothing(tmp_path, write_cohort):
    write_cohort(tmp_path / "in", 5)
    truncated = tmp_path / "in/LGG/LGG_04/LGG_04_flair.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:-40])
    spec = SPEC.model_copy(update={"root": tmp_path / "in", "on_bad": "strict"})
    with pytest.raises(
        UserError,
        match=r"^p-[0-9a-f]{12}_flair\.nii\.gz: truncated \(got .*; .* \(rejects\.jsonl has its name\)",
    ) as stopped:
        ingest(spec, SPLIT, tmp_path / "stores" / "s")
    assert "LGG_04" not in str(stopped.value)
    assert [p.name for p in (tmp_path / "stores").iterdir()] == ["rejects.jsonl"]
    (line,) = (tmp_path / "stores/rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["patient"] == "LGG_04"


def test_strict_refuses_doubtful_orientation(tmp_path, write_cohort):  # rows 27, 28
    write_cohort(tmp_path / "in")
    path = tmp_path / "in/HGG/HGG_01/HGG_01_flair.nii.gz"
    image = nib.load(path)
    bare = nib.Nifti1Image(np.asarray(image.dataobj), None)
    bare.header.set_zooms(image.header.get_zooms())
    nib.save(bare, path)
    mask = path.with_name("HGG_01_seg.nii.gz")
    labels = nib.Nifti1Image(np.asarray(nib.load(mask).dataobj), None)
    labels.header.set_zooms(image.header.get_zooms())
    nib.save(labels, mask)
    lenient = SPEC.model_copy(update={"root": tmp_path / "in"})
    report = ingest(lenient, SPLIT, tmp_path / "a")
    assert report.rejects == ()
    assert report.notes == ("orientation unknown: neither sform nor qform (1 files)",)
    with pytest.raises(UserError, match="orientation unknown"):
        ingest(lenient.model_copy(update={"on_bad": "strict"}), SPLIT, tmp_path / "b")
