"""Synthetic rows that leave: what is in the files, what the table says, and what is refused."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import medaug
from medaug.data.given import read_array
from medaug.export import export_samples
from medaug.results.leaderboard import leaderboard_of
from medaug.storage.artifacts import Artifacts
from medaug.storage.manifest import verified
from tests.audit.small_runs import run, study
from tests.audit.test_export import ARMS, COPIES, SOUND, audited, card_of, command

N = 7
GAUSSIAN = ("--arm", "gaussian")
"""SMOTE is placed before it here, and copies."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    run(study(path, arms=ARMS, classifier={"kind": "probe"}, sweep={"n_synthetic": [24]}))
    audited(path / "small", SOUND)
    return path


@pytest.fixture(scope="module")
def of_vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with principal components of the images as rows."""
    path = tmp_path_factory.mktemp("vectors")
    encoder = {"kind": "pixels_pca", "components": 4}
    keys = {"arms": ARMS, "classifier": {"kind": "probe"}, "sweep": {"n_synthetic": [24]}}
    run(study(path, encoder=encoder, **keys))
    audited(path / "small", SOUND)
    return path / "small"


def table_of(out: Path) -> list[dict[str, str]]:
    with (out / "samples.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


def rows_of(folder: Path, n: int = N) -> np.ndarray:
    """The rows of the best generator, classes in turn, (n, C, H, W)."""
    generator = medaug.load_generator(folder.name, folder.parent)
    own = [iter(generator.sample(n, k)) for k in range(len(generator.classes))]
    return np.stack([next(own[i % len(own)]) for i in range(n)])


def test_pictures_and_their_table(storage: Path, tmp_path: Path) -> None:
    folder, out = storage / "small", tmp_path / "out"
    done = command(folder, *GAUSSIAN, "--samples", str(N), "--format", "png", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(out)
    table, wanted = table_of(out), rows_of(folder)
    card = card_of(out)
    black, white = card["samples"]["black"], card["samples"]["white"]
    assert [line["class"] for line in table] == ["LGG", "HGG"] * 3 + ["LGG"]
    assert {path.parent.name for path in out.glob("*/*.png")} == {"LGG", "HGG"}
    assert len({*out.glob("*/*.png")}) == N
    for line, x in zip(table, wanted, strict=True):
        pixels = np.asarray(Image.open(out / line["file"]), float)
        assert pixels.shape == (32, 32)
        back = black + (white - black) * pixels / 65535  # as `intensity` of arm folder does
        assert np.abs(back - x[0]).max() <= (white - black) / 65535
        assert (line["configuration"], line["made_from"]) == ("gaussian +24", "study_train")
        assert (line["seed"], line["fold"]) == ("0", "0")
    assert Image.open(out / "montage.png").size[0] > 400
    assert verified(out, "again") == out


def test_the_rows_are_those_that_classifiers_were_given(storage: Path, tmp_path: Path) -> None:
    for arm in ("gaussian", "smote"):
        out = export_samples(
            storage / "small", tmp_path / arm, N, "npz", arm=arm, allow_near_copies=True
        )
        artifacts = Artifacts(storage)
        stores = [artifacts.open_store(path.name) for path in storage.glob("stores/rows-*")]
        with np.load(out / "samples.npz") as archive:
            x = archive["x"]
        firsts = [store.read(slice(0, N)).x.numpy() for store in stores]
        assert any(np.array_equal(x, first) for first in firsts), arm


def test_a_nifti_holds_one_slice_with_its_directions(storage: Path, tmp_path: Path) -> None:
    out = export_samples(storage / "small", tmp_path / "out", N, "nifti", arm="gaussian")
    for line, x in zip(table_of(out), rows_of(storage / "small"), strict=True):
        image = nib.load(out / line["file"])
        assert nib.aff2axcodes(image.affine)[:2] == ("L", "P")
        x_XYZ = np.asarray(image.dataobj)
        assert x_XYZ.dtype == np.float32
        assert np.array_equal(x_XYZ[:, :, 0].T, x[0])


def test_an_array_can_be_brought_back(storage: Path, of_vectors: Path, tmp_path: Path) -> None:
    for folder in (storage / "small", of_vectors):
        out = export_samples(folder, tmp_path / folder.parent.name, N, "npz", arm="gaussian")
        facts, (rows,) = read_array(out / "samples.npz", None, ("LGG", "HGG"))
        assert facts["labels"] == [0, 1, 0, 1, 0, 1, 0]
        assert np.array_equal(rows, rows_of(folder).reshape(rows.shape))
        assert (out / "montage.png").exists() == (folder != of_vectors), "vectors are no picture"


def test_the_card_says_what_the_leaderboard_says(storage: Path, tmp_path: Path) -> None:
    out = export_samples(storage / "small", tmp_path / "out", N, "npz", arm="gaussian")
    row = next(r for r in leaderboard_of(storage / "small").rows if r.title == "gaussian +24")
    told = card_of(out)["leaderboard"]
    assert told["balanced_accuracy"] == [row.mean, row.low, row.high]
    assert told["gain"] == [row.gain, row.gain_low, row.gain_high]
    assert (told["reference"], told["rank"]) == (row.reference, row.rank)
    assert told["conclusion"] == (row.ending or None)
    assert told["flags"] == list(row.flags)
    readme = (out / "README.md").read_text()
    assert f"{row.mean:.3f}" in readme
    assert all(flag in readme for flag in row.flags)
    assert "of fold 0 only" in readme
    assert "These rows were made from patients' data" in readme


def test_nobody_leaves(storage: Path, tmp_path: Path) -> None:
    out = export_samples(storage / "small", tmp_path / "out", N, "png", arm="gaussian")
    content = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert not re.search(rb"p-[0-9a-f]{12}", content)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--samples", "25", "--arm", "smote", "--allow-near-copies"),
         "--samples 25: smote has made 24 rows and makes no more without its training data"),
        (("--samples", "7", "--arm", "duplicate"),
         "no finished generator of arm 'duplicate' that was fitted here; it has gaussian, smote"),
        (("--samples", "1000000000", "--arm", "gaussian"), "--samples 1000000000: takes 12"),
        (("--format", "png"), "export: --format is of samples; give --samples N as well"),
        (("--samples", "0"), "Invalid value for '--samples'"),
    ],
)  # fmt: skip
def test_refusals(storage: Path, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    done = command(storage / "small", *options, "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["png", "nifti"])
def test_features_are_no_pictures(of_vectors: Path, tmp_path: Path, form: str) -> None:
    done = command(
        of_vectors, *GAUSSIAN, "--samples", "5", "--format", form, "--out", str(tmp_path / "out")
    )
    assert done.exit_code == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error == f"error: --format {form}: the rows of gaussian +24 are no images; use npz"


def test_rows_that_copy_patients_stay(storage: Path, tmp_path: Path) -> None:
    shutil.copytree(storage, tmp_path / "runs")
    folder = tmp_path / "runs" / "small"
    audited(folder, COPIES)
    done = command(folder, *GAUSSIAN, "--samples", "5", "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    assert "40.0% of the rows of gaussian +24 are near-copies" in done.stderr
    options = ("--samples", "5", "--out", str(tmp_path / "out"), "--allow-near-copies")
    assert command(folder, *GAUSSIAN, *options).exit_code == 0
    assert "**Exported all the same" in (tmp_path / "out" / "README.md").read_text()
