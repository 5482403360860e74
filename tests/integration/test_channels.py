"""A study of four sequences and one in colour, from scans to report: every stage on all channels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medaug.results.report.document import write_report
from medaug.spec import StudySpec, build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import Artifacts
from tests.data.sequences import SEQUENCES, colour_folders, four_sequences
from tests.integration.in_process import Ended, run_here
from tests.integration.small_study import medaug

SWEEP = {"n_synthetic": [16], "seeds": [0]}
GAN = {"epochs": 1, "filter": "none", "precision": "fp32"}


def glioma(root: Path, storage: Path, **changes: object) -> StudySpec:
    """Study A on four sequences."""
    body = {
        "name": "four",
        "data": {
            "layout": "brats",
            "root": str(root),
            "classes": ["LGG", "HGG"],
            "channel": ";".join(SEQUENCES),
            "image_size": 32,
        },
        "split": {"folds": 2},
        "segmenter": {"base": 2, "init": "kaiming", "epochs": 1, "pretrain": None},
        "features": {"tap": "conv4"},
        "arms": {
            "none": {},
            "classical": {},
            "gaussian": {"components": 3},
            "acgan": {"ngf": 4, "ndf": 4, **GAN},
            "acgan_image": {"ngf": 4, "ndf": 4, "image_size": 32, **GAN},
        },
        "classifier": {"kind": "probe"},
        "controls": "none",
        "sweep": SWEEP,
        "storage": str(storage),
    }
    return build_study(body | changes, ARM_CONFIGS)


def colours(root: Path, storage: Path, **changes: object) -> StudySpec:
    """Pictures in colour, as they are."""
    body = {
        "name": "colour",
        "data": {
            "layout": "class_folders",
            "root": str(root),
            "classes": ["benign", "malignant"],
            "image_size": 32,
        },
        "split": {"folds": 2},
        "arms": {
            "none": {},
            "classical": {},
            "smote": {},
            "gaussian": {"components": 3},
            "flow": {"epochs": 1},
            "acgan_image": {"ngf": 4, "ndf": 4, "image_size": 32, **GAN},
            "dcgan": {"networks": "dcgan32", "width": 4, "epochs": 1, "precision": "fp32"},
        },
        "classifier": {"kind": "probe"},
        "controls": "none",
        "sweep": SWEEP,
        "storage": str(storage),
    }
    return build_study(body | changes, ARM_CONFIGS)


def made(results: list[Ended], storage: Path) -> dict[str, torch.Tensor]:
    """The rows of each arm."""
    stores = {
        each.config.arm: Artifacts(storage).open_store(each.result.output)
        for each in results
        if each.config.stage == "generate"
    }
    return {arm: store.read().x.float() for arm, store in stores.items()}


def test_four_sequences_through_every_stage(tmp_path: Path) -> None:
    four_sequences(tmp_path / "in", 10)
    study = glioma(tmp_path / "in", tmp_path / "runs")
    study.storage.mkdir()
    board, results, slices = run_here(study)
    assert slices.schema.shape == (4, 32, 32)
    assert {row.title for row in board.rows} == {
        "none",
        *(f"{a} +16" for a in study.arms if a != "none"),
    }
    unet = next(each for each in results if each.config.stage == "segment")
    weights, about = Artifacts(study.storage).load_model(unet.result.output)
    assert weights["conv1.0.weight"].shape[1] == 4
    assert np.shape(about["normalisation"]) == (2, 4)
    for arm, x in made(results, study.storage).items():
        assert x.shape[1:] == (16, 4, 4), arm
        assert torch.isfinite(x).all()
    assert {e.result.lineage for e in results if e.config.stage == "classify"} == {"proven"}
    page = write_report(study.storage / study.name).read_text()
    assert "Each image has 4 channels, flair, t1, t1ce, t2, normalised one by one." in page
    assert 'id="overlays"' in page
    assert 'id="montage"' in page


def test_colours_through_every_arm(tmp_path: Path) -> None:
    colour_folders(tmp_path / "in", 16)
    study = colours(tmp_path / "in", tmp_path / "runs")
    study.storage.mkdir()
    board, results, slices = run_here(study)
    assert slices.schema.shape == (3, 32, 32)
    rows = made(results, study.storage)
    assert {*rows} == {*study.arms} - {"none"}
    real = slices.read().x
    for arm, x in rows.items():
        assert x.shape[1:] == (3, 32, 32), arm
        assert torch.isfinite(x).all()
        assert not torch.equal(x[:, 0], x[:, 1]), arm
    # A transformed picture has the colour of a picture of its class.
    near = (rows["classical"].mean((2, 3))[:, None] - real.mean((2, 3))[None]).norm(dim=2).amin(1)
    assert near.median() < 0.1
    by_title = {row.title: row for row in board.rows}
    assert by_title["none"].mean > 0.9, "the colour tells the classes apart"
    page = write_report(study.storage / study.name).read_text()
    assert "Each image has 3 channels, red, green and blue, normalised one by one." in page
    montage = next((study.storage / study.name / "figures").rglob("montage.png"))
    pixels = np.asarray(Image.open(montage).convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=2) > 30).mean() > 0.2, "most of it is in colour"


def test_an_encoder_says_what_it_makes_of_four_sequences(tmp_path: Path) -> None:
    four_sequences(tmp_path / "in", 10)
    study = glioma(
        *(tmp_path / "in", tmp_path / "runs"),
        segmenter=None,
        features=None,
        encoder={"kind": "pixels_pca", "components": 3},
        arms={"none": {}},
    )
    study.storage.mkdir()
    run_here(study)
    page = write_report(study.storage / study.name).read_text()
    assert "The encoder sees the mean of the 4 channels." in page


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["four", "colour"])
def test_medaug_runs_it(kind: str, tmp_path: Path) -> None:
    if kind == "four":
        four_sequences(tmp_path / "in", 10)
        pretrain = {"phantom": {"patients": 4, "slices": [3, 4], "seed": 1}, "epochs": 1}
        segmenter = {"base": 2, "init": "kaiming", "epochs": 1, "pretrain": pretrain}
        study = glioma(tmp_path / "in", tmp_path / "runs", segmenter=segmenter)
    else:
        colour_folders(tmp_path / "in", 16)
        study = colours(tmp_path / "in", tmp_path / "runs")
    body = study.canonical() | {"controls": "auto"}
    spec = tmp_path / "s.yaml"
    spec.write_text(json.dumps(body))
    done = medaug("run", spec, "--storage", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert f"Each image has {4 if kind == 'four' else 3} channels" in done.stdout + done.stderr
    assert (tmp_path / "runs" / study.name / "report.html").exists()
