"""Colours and sequences as channels: what is stored, what normalises it, what the preview shows."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from medaug.audit.scan import copies_between, scan
from medaug.cli import main
from medaug.data import colour
from medaug.data.colour import surveyed
from medaug.data.digests import Digests
from medaug.data.files import BadFile
from medaug.data.layouts import read_cohort
from medaug.data.look import Sight
from medaug.data.nifti import Limits
from medaug.data.normalisation import normalisation
from medaug.data.reader import Cut, read_rows
from medaug.data.slices import ingest, ingest_signature, prepared
from medaug.preview import contact_sheet
from medaug.results.report.pictures import Overlay, montage, overlays
from medaug.spec import DataSpec, SplitSpec
from medaug.store import Store
from medaug.train.segment import normalise
from tests.data.folders import picture, table, volume
from tests.data.sequences import SEQUENCES, colour_folders, coloured, four_sequences

SPLIT = SplitSpec(folds=2)
CLASSES = ("benign", "malignant")
WHOLE = Cut(8, "all", 1, Limits())


def spec(root: Path, **keys: object) -> DataSpec:
    given = {"layout": "class_folders", "root": root, "classes": CLASSES, "image_size": 32}
    return DataSpec(**{**given, **keys})


def read(root: Path, out: Path, **keys: object) -> Store:
    return Store.open(ingest(spec(root, **keys), SPLIT, out, workers=1).path)


def test_colour_stays_colour(tmp_path: Path) -> None:
    colour_folders(tmp_path / "in", 8)
    store = read(tmp_path / "in", tmp_path / "s")
    assert store.schema.shape == (3, 32, 32)
    assert store.manifest["extra"]["colour"]
    known = {
        tuple(np.asarray(Image.open(path)).transpose(2, 0, 1).ravel())
        for path in (tmp_path / "in").rglob("*.png")
    }
    stored = {tuple(np.rint(255 * x).astype(int).ravel()) for x in store.read().x.numpy()}
    assert stored == known


def test_grey_where_the_study_says_so(tmp_path: Path) -> None:
    colour_folders(tmp_path / "in", 8)
    store = read(tmp_path / "in", tmp_path / "s", colour="grey")
    assert store.schema.shape == (1, 32, 32)
    assert not store.manifest["extra"]["colour"]
    path = sorted((tmp_path / "in/benign").glob("*.png"))[0]
    luma = np.asarray(Image.open(path).convert("L")) / 255
    assert any(np.allclose(x[0], luma, atol=1e-6) for x in store.read().x.numpy())
    notes = store.manifest["extra"]["ingest"]["notes"]
    assert "is in colour: read as grey (luma, ITU-R 601) (16 files)" in notes


def test_one_picture_in_colour_makes_all_of_them_three_channels(tmp_path: Path) -> None:
    for i in range(8):
        for label in CLASSES:
            picture(tmp_path / "in" / label / f"{label}{i}.png")
    data = spec(tmp_path / "in", image_size=16)
    before = ingest_signature(read_cohort(data), data, SPLIT)
    assert surveyed(read_cohort(data), data, 1).channels == 1
    grey = data.model_copy(update={"colour": "grey"})
    assert ingest_signature(read_cohort(grey), grey, SPLIT) == before, "nothing is in colour"
    coloured(tmp_path / "in/benign/benign3.png", "benign", 1)
    assert surveyed(read_cohort(data), data, 1).channels == 3
    store = read(tmp_path / "in", tmp_path / "s", image_size=16)
    x = store.read().x
    same = [bool((each[0] == each[1]).all() and (each[0] == each[2]).all()) for each in x]
    assert (len(same), sum(same)) == (16, 15)
    notes = store.manifest["extra"]["ingest"]["notes"]
    assert any(note.endswith("its grey is all three channels (15 files)") for note in notes)
    now = [ingest_signature(read_cohort(d), d, SPLIT) for d in (data, grey)]
    assert len({before, *now}) == 3


def test_grey_that_was_in_another_colour_space_is_grey(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(8):
        for label in CLASSES:
            path = tmp_path / "in" / label / f"{label}{i}.webp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (20, 20), np.uint8)).save(path)
            apart = np.ptp(np.asarray(Image.open(path)).astype(int), axis=-1)
            assert 0 < apart.max() <= 2, "WebP knows no grey"
    data = spec(tmp_path / "in", image_size=16)
    assert surveyed(read_cohort(data), data, 1).channels == 1
    Image.new("RGB", (20, 20), (90, 93, 90)).save(path, lossless=True)
    assert surveyed(read_cohort(data), data, 1).channels == 3


def test_pictures_are_looked_at_once_however_often_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colour_folders(tmp_path / "in", 4)
    data, kept = spec(tmp_path / "in", image_size=16), tmp_path / "digests"
    digests = Digests(kept)
    first = prepared(read_cohort(data), data, SPLIT, digests)
    digests.save()

    def looked(*args: object, **keys: object) -> None:
        raise AssertionError("they were looked at again")

    monkeypatch.setattr(colour, "Sandbox", looked)
    assert prepared(first, data, SPLIT) == first, "of a prepared cohort it is itself"
    larger = data.model_copy(update={"image_size": 32})
    again = prepared(read_cohort(larger), larger, SPLIT, Digests(kept))
    assert again.channels == 3
    grey = np.full((16, 16), 9, np.uint8)
    Image.fromarray(grey).save(sorted((tmp_path / "in/benign").iterdir())[0])
    with pytest.raises(AssertionError, match="looked at again"):
        prepared(read_cohort(data), data, SPLIT, Digests(kept))


def test_four_sequences_are_four_channels_normalised_one_by_one(tmp_path: Path) -> None:
    root = tmp_path / "in"
    four_sequences(root, 8)
    keys = {"layout": "brats", "classes": ("LGG", "HGG"), "image_size": 32}
    store = read(root, tmp_path / "s", channel=";".join(SEQUENCES), **keys)
    assert store.schema.shape == (4, 32, 32)
    assert not store.manifest["extra"]["colour"]
    for k, name in enumerate(SEQUENCES):
        alone = read(root, tmp_path / name, channel=name, **keys)
        assert torch.equal(store.read().x[:, k], alone.read().x[:, 0])
        for fold in range(2):
            mean, std = normalisation(alone, fold)
            of_all = normalisation(store, fold)
            assert (of_all[0][k], of_all[1][k]) == pytest.approx((mean, std), rel=1e-12)
    train = store.split("train", 0)
    x = normalise(train.read().x, normalisation(store, 0))
    assert x.double().mean((0, 2, 3)).abs().max() < 1e-5
    assert x.double().std((0, 2, 3), correction=0).numpy() == pytest.approx(np.ones(4), rel=1e-5)
    turned = read(root, tmp_path / "t", channel="t2;flair", **keys)
    assert torch.equal(turned.read().x, store.read().x[:, [3, 0]])


def test_sequences_have_to_be_on_one_grid(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii.gz")
    x = np.arange(12 * 12 * 5, dtype=np.int16).reshape(12, 12, 5)
    nib.save(nib.Nifti1Image(x, np.diag([-1.0, -1.0, 2.0, 1.0])), tmp_path / "b.nii.gz")
    nib.save(nib.Nifti1Image(x[..., :4], np.diag([-1.0, -1.0, 3.0, 1.0])), tmp_path / "c.nii.gz")
    for other in ("b", "c"):
        files = (tmp_path / "a.nii.gz", tmp_path / f"{other}.nii.gz")
        with pytest.raises(BadFile, match="sequence 2 of 2 is on another grid than the first"):
            read_rows(files, None, WHOLE)
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", size=(20, 21))
    with pytest.raises(BadFile, match="sequence 2 has another size than the first"):
        read_rows((tmp_path / "a.png", tmp_path / "b.png"), None, WHOLE)


def test_files_of_one_line_are_grey_channels(tmp_path: Path) -> None:
    a = coloured(tmp_path / "a.png", "benign", 0, 8)
    picture(tmp_path / "b.png", size=(8, 8))
    facts, (x,) = read_rows((tmp_path / "a.png", tmp_path / "b.png"), None, WHOLE)
    assert x.shape == (1, 2, 8, 8)
    assert np.allclose(x[0, 0], np.asarray(Image.fromarray(a).convert("L")) / 255)
    assert facts["moments"][1][1] == pytest.approx(float(x[0, 1].sum()), rel=1e-6)
    assert "is in colour: read as grey (luma, ITU-R 601)" in facts["warnings"]


def test_colours_of_a_medmnist_archive(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 12), ("val", 4), ("test", 4)):
        arrays[f"{part}_images"] = rng.integers(0, 255, (n, 28, 28, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(n) % 2)[:, None]
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in/pathmnist.npz", **arrays)
    keys = {"layout": "medmnist", "classes": ("0", "1"), "image_size": 28}
    store = read(tmp_path / "in", tmp_path / "s", **keys)
    assert store.schema.shape == (3, 28, 28)
    first = arrays["train_images"][0].transpose(2, 0, 1) / np.float32(255)
    assert any(np.allclose(x, first, atol=1e-6) for x in store.read().x.numpy())


def test_copies_in_colour_and_of_sequences_are_found(tmp_path: Path) -> None:
    root = tmp_path / "in"
    colour_folders(root, 8, side=64, each=1)
    path = root / "malignant/p9_0.png"
    pixels = np.asarray(Image.open(root / "malignant/p1_0.png"))
    Image.fromarray((pixels // 2 + 40).astype(np.uint8)).save(path)
    with (root / "patients.csv").open("a") as file:
        file.write("malignant/p9_0.png,p9\n")
    store = read(root, tmp_path / "s", image_size=64)
    assert len(scan(store).leaks) == 1
    assert len(copies_between(store, store)) >= len(store)


def test_the_preview_and_the_figures_are_in_colour(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "mine.yaml"
    colour_folders(root, 24, side=48, each=1)
    done = CliRunner().invoke(main, ["init", "mine", str(root), "--out", str(out)])
    assert done.exit_code == 0, done.output
    said = "colour: 24 of 24 images are in colour, so all have three channels"
    assert said in done.output
    assert said in (tmp_path / "mine.html").read_text()
    checked = CliRunner().invoke(main, ["check", str(tmp_path / "mine.csv")])
    assert said in checked.output
    red = np.zeros((3, 48, 48), np.float32)
    red[0] = np.linspace(0.5, 1, 48)
    cohort = read_cohort(DataSpec(layout="class_folders", root=root, classes=CLASSES))
    sheet, n = contact_sheet([Sight(cohort.scans[0], None, pixels=True, image=red)])
    shown = np.asarray(sheet)[10:80, 10:80]
    assert n == 1
    assert shown[..., 0].min() > 100
    assert shown[..., 1:].max() == 0
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr("matplotlib.axes.Axes.imshow", lambda self, x, **_: seen.append(np.array(x)))
        tiles = np.stack([red.transpose(1, 2, 0)] * 3)
        montage({"benign": (tiles, tiles)}, ("real", "dcgan"), images=True)
        mask = np.zeros((48, 48), bool)
        overlays([Overlay("slice", tiles[0], mask, mask)])
    assert [x.ndim for x in seen] == [3, 3, 3, 2]
    assert all(0 <= x.min() <= x.max() <= 1 for x in seen[:3])
    assert (seen[0][-1, -1] == 1).all(), "white, where there is no tile"


def test_scans_of_different_numbers_of_sequences_are_refused(tmp_path: Path) -> None:
    four_sequences(tmp_path / "in", 8)
    victim = next((tmp_path / "in").rglob("*_t2.nii.gz"))
    victim.unlink()
    data = DataSpec(layout="brats", root=tmp_path / "in", channel="flair;t2", image_size=32)
    cohort = read_cohort(data)
    assert {len(scan.paths) for scan in cohort.scans} == {2}
    assert len(cohort.scans) + len(cohort.rejects) == 8
    assert any("t2" in reject.reason for reject in cohort.rejects)


def test_a_table_of_sequences_reads_like_the_folder(tmp_path: Path) -> None:
    four_sequences(tmp_path / "in", 8)
    rows = []
    for path in sorted((tmp_path / "in").rglob("*_flair.nii.gz")):
        name = path.relative_to(tmp_path / "in").as_posix()
        files = ";".join(name.replace("flair", s) for s in SEQUENCES)
        rows.append([files, path.parts[-3], path.parts[-2], name.replace("flair", "seg")])
    table(tmp_path / "in/scans.csv", "file,class,patient,mask", rows)
    keys = {"classes": ("LGG", "HGG"), "image_size": 32}
    listed = read(tmp_path / "in", tmp_path / "a", layout="table", **keys)
    folder = read(
        tmp_path / "in", tmp_path / "b", layout="brats", channel=";".join(SEQUENCES), **keys
    )
    assert torch.equal(listed.read().x, folder.read().x)
    assert listed.manifest["extra"]["moments"] == folder.manifest["extra"]["moments"]
