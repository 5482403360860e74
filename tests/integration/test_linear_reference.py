"""The yardstick measures right, and what it says of real stores through our encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from medaug.data.slices import ingest
from medaug.encoders import encode_store, encoder_of, unsealed
from medaug.spec.encoder import EfficientNetLite0Spec
from medaug.spec.study import DataSpec, SplitSpec
from medaug.store import Provenance, Store
from medaug.train.world import World
from tests.integration.linear_reference import few_rows, grouped_folds, reference

DATA = Path(__file__).parents[3] / "shared" / "data"


def gaussians(n: int, distance: float, dim: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Two classes ``distance`` deviations apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    x = rng.standard_normal((n, dim))
    x[:, 2] += distance * labels
    return x * [1, 10, 1, 1, 100], labels


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0])
def test_it_finds_the_best_that_can_be_reached(distance: float) -> None:
    """Phi(d' / 2) for two Gaussians, .5 without signal."""
    x, labels = gaussians(6000, distance)
    found = reference(x, labels, grouped_folds(labels, np.arange(6000), repeats=1))
    assert found.balanced_accuracy == pytest.approx(norm.cdf(distance / 2), abs=0.02)
    assert found.auroc == pytest.approx(norm.cdf(distance / 2**0.5), abs=0.02)


def test_folds_keep_groups_together_and_few_rows_are_of_each_class() -> None:
    groups = np.arange(300) // 4
    labels = groups % 3
    folds = grouped_folds(labels, groups)
    assert len(folds) == 15
    for train, scored in folds:
        assert not set(groups[train]) & set(groups[scored])
        assert len(train) + len(scored) == 300
    for few, whole in zip(few_rows(folds, labels, 60), folds, strict=True):
        assert np.bincount(labels[few[0]]).tolist() == [20, 20, 20]
        assert set(few[0]) <= set(whole[0])


def test_head_cts_are_seen_by_the_encoder(tmp_path: Path) -> None:
    """Pixels say .6 on unseen groups of head CTs, EfficientNet-Lite0's blocks above .78."""
    folder = DATA / "head_ct_hemorrhage"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: the real data are not here")
    data = DataSpec.model_validate(
        {
            "root": str(folder), "layout": "head_ct",
            "classes": ["normal", "hemorrhage"], "image_size": 128,
        }
    )  # fmt: skip
    path, out = tmp_path / "runs" / "slices", tmp_path / "runs" / "features"
    ingest(data, SplitSpec(test_fraction=0.0), path, workers=1)
    slices = unsealed(Store.open(path))
    made = Provenance("encode", "0" * 12, (slices.name,), (), synthetic=False)
    for _ in encode_store(
        encoder_of(EfficientNetLite0Spec()), slices, out, World.single(), provenance=made
    ):
        pass
    features = Store.open(out)
    assert features.manifest["extra"]["encoder"]["intensity"] == "unit"
    folds = grouped_folds(features.labels, features.patients)
    seen = reference(features.read().x.numpy(), features.labels, folds)
    pixels = reference(slices.read().x.numpy(), slices.labels, folds)
    assert seen.balanced_accuracy > 0.78
    assert seen.auroc > 0.88
    assert seen.balanced_accuracy > pixels.balanced_accuracy + 0.1
