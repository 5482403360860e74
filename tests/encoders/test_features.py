"""A slice store through an encoder: what the feature store holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from medaug.arms.pca import PcaSpace
from medaug.encoders import encode_store, encoder_of
from medaug.errors import UserError
from medaug.models.classifiers import CLASSIFIERS
from medaug.spec.encoder import EfficientNetLite0Spec, ImageEncoderSpec, PixelsPcaSpec
from medaug.store import Store
from medaug.train.scaling import FeatureScale
from medaug.train.world import World
from tests.encoders.image_stores import MADE, slice_store

HERE = World.single()
LITE = EfficientNetLite0Spec(image_size=32)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return slice_store(tmp_path_factory.mktemp("images") / "slices")


def encoded(
    spec: ImageEncoderSpec, slices: Store, out: Path, stop_after: int | None = None, **how: object
) -> Store:
    loop = encode_store(
        encoder_of(spec), slices, out, HERE, provenance=MADE, shard_bytes=64 << 10, **how  # type: ignore[arg-type]
    )  # fmt: skip
    for progress in loop:
        if progress.epoch == stop_after:
            loop.close()  # type: ignore[attr-defined]
    if stop_after is None:
        assert progress.result == out
        return Store.open(out)
    return slices


def test_rows_are_what_the_encoder_makes_of_the_slices(slices: Store, tmp_path: Path) -> None:
    made = encoded(LITE, slices, tmp_path / "out")
    assert made.schema.shape == (1808, 1, 1)
    assert made.schema.dtype == "float32"
    shown = slices.select(~np.isin(slices.patients, ("p-7", "p-8")))
    encoder = encoder_of(LITE).open(slices, HERE)
    assert torch.equal(made.read().x.flatten(1), encoder.encode(shown.read().x))
    for column in ("labels", "patients", "volumes", "slice_index", "tumour_pixels"):
        np.testing.assert_array_equal(getattr(made, column), getattr(shown, column))
    assert made.splits == slices.splits
    assert made.classes == slices.classes
    assert made.provenance.encoder == encoder.name
    assert made.provenance.parents == MADE.parents
    assert made.provenance.fitted_on == ()
    about = made.manifest["extra"]["encoder"]
    assert about["lineage"] == "public: ImageNet-1k, sha256 579344248a93"
    assert about["intensity"] == "unit"
    assert EfficientNetLite0Spec.model_validate(about["config"]) == LITE


def test_sealed_patients_are_encoded_when_they_are_asked_for_alone(
    slices: Store, tmp_path: Path
) -> None:
    sealed = encoded(LITE, slices, tmp_path / "sealed", rows=slices.split("test"))
    assert set(sealed.patients) == {"p-7", "p-8"}
    expected = encoder_of(LITE).open(slices, HERE).encode(slices.split("test").read().x)
    assert torch.equal(sealed.read().x.flatten(1), expected)


def test_sealed_patients_decide_nothing(slices: Store, tmp_path: Path) -> None:
    """Intensities of theirs beyond 1 do not change how the others are read."""
    from medaug.store import StoreWriter

    x = slices.read().x.clone()
    x[np.isin(slices.patients, ("p-7", "p-8"))] *= 900
    with StoreWriter(
        tmp_path / "slices", slices.schema, provenance=slices.provenance,
        classes=slices.classes, splits=slices.splits,
    ) as writer:  # fmt: skip
        columns = {"label": slices.labels, "patient": slices.patients}
        columns |= {"volume": slices.volumes, "slice_index": slices.slice_index}
        writer.write(x, **columns)
    changed = encoded(LITE, Store.open(tmp_path / "slices"), tmp_path / "out")
    assert torch.equal(changed.read().x, encoded(LITE, slices, tmp_path / "same").read().x)


def test_a_fitted_encoder_has_seen_the_folds_training_patients(
    slices: Store, tmp_path: Path
) -> None:
    spec = PixelsPcaSpec(components=4)
    stores = [encoded(spec, slices, tmp_path / str(k), fold=k) for k in (0, 1)]
    assert [s.provenance.fitted_on for s in stores] == [
        ("p-0", "p-1", "p-2", "p-3"),
        ("p-3", "p-4", "p-5", "p-6"),
    ]
    assert [s.manifest["extra"]["encoder"]["fold"] for s in stores] == [0, 1]
    assert not torch.equal(stores[0].read().x, stores[1].read().x)
    # Nothing is refitted on what is scored: its training rows have mean 0, others need not.
    train = stores[0].split("train", 0).read().x
    torch.testing.assert_close(train.mean(0), torch.zeros(4, 1, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("stop_after", [1, 7, 19])
def test_goes_on_where_it_was_stopped_and_ends_with_the_same_bytes(
    slices: Store, tmp_path: Path, stop_after: int
) -> None:
    encoded(LITE, slices, tmp_path / "whole")
    encoded(LITE, slices, tmp_path / "cut", stop_after=stop_after)
    assert not Store.exists(tmp_path / "cut")
    encoded(LITE, slices, tmp_path / "cut")
    digests = [
        {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
        for folder in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert digests[0] == digests[1]


def test_too_few_rows_for_components(tmp_path: Path) -> None:
    slices = slice_store(tmp_path / "slices")
    one = slices.select(np.flatnonzero(np.isin(slices.patients, ("p-0", "p-5")))[[0, -1]])
    with pytest.raises(UserError, match="pixels_pca: 1 training rows"):
        encoded(PixelsPcaSpec(), one, tmp_path / "out", fold=0)


def test_what_takes_a_unets_block_takes_these_rows(slices: Store, tmp_path: Path) -> None:
    """Arms, their scaling and the pooling classifier know rows as (C, h, w)."""
    made = encoded(LITE, slices, tmp_path / "out")
    space, scores = PcaSpace.fit(made, 5, 0, torch.device("cpu"))
    assert space.decode(scores).shape == made.read().x.shape
    scale = FeatureScale.fit(made, "standardise", HERE)
    x = scale.encode(made.read().x)
    torch.testing.assert_close(scale.decode(x), made.read().x, rtol=1e-4, atol=1e-4)
    logits = CLASSIFIERS["linear"](made.schema.shape, 2, 0.0).eval()(x)  # type: ignore[arg-type]
    assert logits.shape == (len(made), 2)
