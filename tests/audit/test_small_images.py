"""Studies at 32 pixels are scanned for copies at a size that tells patients apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medaug.audit.leakage import leakage_of
from medaug.audit.scan import scan
from medaug.data.privacy import KEY_ENV
from medaug.spec import load_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import Artifacts
from medaug.study import look_for_leaks, make_slices
from medaug.sweep.display import Silent

CHEST_XRAY = Path(__file__).parents[2] / "jobs" / "chest_xray.yaml"
PATIENTS, SIDE = 20, 160


def head(patient: int) -> Image.Image:
    """The same oval for everybody, and a texture of their own that 32 pixels cannot hold."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    oval = 120.0 * ((x / 0.7) ** 2 + (y / 0.9) ** 2 < 1)
    texture = gaussian_filter(np.random.default_rng(patient).standard_normal((SIDE, SIDE)), 1.0)
    return Image.fromarray((60 + oval + 16 * texture / texture.std()).clip(0, 255).astype(np.uint8))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """One image each of 20 patients, the last of whom is the first under another name."""
    for patient in range(PATIENTS):
        name = f"IM-{patient:04d}-0001.png" if patient % 2 else f"person{patient}_virus_1.png"
        folder = tmp_path / "scans" / "train" / ("NORMAL" if patient % 2 else "PNEUMONIA")
        folder.mkdir(parents=True, exist_ok=True)
        copied = patient == PATIENTS - 1
        image = head(0 if copied else patient)
        # One grey level brighter: other bytes, and to the eye the same picture.
        image.point(lambda grey, copied=copied: grey + copied).save(folder / name)
    return tmp_path / "scans"


def test_small_images_are_compared_larger(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, str(tmp_path / "site.key"))
    settings = {
        "data.root": str(folders),
        "data.image_size": 32,
        "split.folds": 2,
        "storage": str(tmp_path / "runs"),
    }
    options = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    study = load_study(CHEST_XRAY, ARM_CONFIGS, options)
    run = tmp_path / "runs" / "small"
    run.mkdir(parents=True)
    slices, _ = make_slices(study, Silent())
    look_for_leaks(study, slices, run, Silent())
    found = leakage_of(run)
    assert found is not None
    assert (found.rows, len(found.leaks)) == (PATIENTS, 1)
    assert found.leaks[0].similarity > 0.99
    as_trained_on = scan(Artifacts(study.storage).open_store(slices))
    assert len(as_trained_on.leaks) > PATIENTS, "at 32 pixels they are all one head"
