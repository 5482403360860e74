"""What study A names as future work runs in its job, at toy size: larger blocks, tumour crops,
an InfoGAN, an ACGAN of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from medaug.spec import load_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import Artifacts
from tests.integration.in_process import run_here

GLIOMA = Path(__file__).parents[2] / "jobs" / "glioma.yaml"
GANS = ("acgan", "infogan", "acgan_image")
TINY: dict[str, Any] = {
    "data.layout": "phantom",
    "controls": "none",
    "classifiers": {},
    "data.image_size": 64,
    "data.phantom": {"patients": 10, "slices": [3, 4]},
    "split.folds": 2,
    "segmenter.base": 4,
    "segmenter.init": "kaiming",
    "segmenter.epochs": 1,
    "segmenter.pretrain": None,
    "segmenter.precision": "fp32",
    "features.precision": "fp32",
    "classifier.epochs": 1,
    "sweep.n_synthetic": [16],
    "sweep.grid": {},
    "sweep.tie": [],
    "sweep.seeds": [0],
    **{
        f"arms.{arm}.{key}": v for arm in GANS for key, v in {"epochs": 1, "filter": "none"}.items()
    },
    **{f"arms.{arm}.{key}": 8 for arm in GANS for key in ("ngf", "ndf")},
    **{f"arms.{arm}.precision": "fp32" for arm in GANS},
}


@pytest.mark.parametrize(
    ("tap", "shape", "crop"),
    [
        ("uconv4", (32, 8, 8), "predicted_tumour"),
        ("uconv3", (16, 16, 16), "none"),
        ("uconv2", (8, 32, 32), "none"),
    ],
)
def test_what_the_paper_wished_for_is_one_setting_away(
    tap: str, shape: tuple[int, ...], crop: str, tmp_path: Path
) -> None:
    settings = TINY | {"features.tap": tap, "features.crop": crop, "storage": str(tmp_path)}
    study = load_study(GLIOMA, ARM_CONFIGS, [f"{k}={json.dumps(v)}" for k, v in settings.items()])
    arms = {name: arm for name, arm in study.arms.items() if name in ("none", *GANS)}
    board, results, _ = run_here(study.model_copy(update={"arms": arms}))
    assert {row.title for row in board.rows} == {"none", *(f"{arm} +16" for arm in GANS)}
    made = [result for result in results if result.config.stage == "generate"]
    assert {result.config.arm for result in made} == set(GANS)
    for result in made:
        rows = Artifacts(tmp_path).open_store(result.result.output)
        assert rows.schema.shape == shape
        assert torch.isfinite(rows.read().x.float()).all()
        assert result.result.extractor == "gap+gmp"
    assert {r.result.lineage for r in results if r.config.stage == "classify"} == {"proven"}
