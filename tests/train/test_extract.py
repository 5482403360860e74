from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medaug.errors import UserError
from medaug.models.unet import UNet
from medaug.spec.study import FeatureSpec
from medaug.store import Provenance, Store
from medaug.train.extract import crop_to_tumour, encoder, extract_features
from medaug.train.parts import REPORTS
from medaug.train.world import World
from tests.train.cohorts import slices

NORMALISATION = (110.0, 35.0)
MADE = Provenance(
    "extract", "a" * 12, ("slices", "unet"), ("p-1",), synthetic=False, encoder="unet"
)
ROWS = 35


LARGE = {"tap": "uconv1", "dtype": "float32", "batch_size": 3}
"""64 KiB a row, so four rows a shard; batches do not end where shards do."""


def unet() -> UNet:
    torch.manual_seed(0)
    return UNet(1, 16, init="kaiming")


def spec(**changes: Any) -> FeatureSpec:
    return FeatureSpec.model_validate({"tap": "conv3", "batch_size": 4} | changes)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slices") / "store"
    slices(path, 7)
    return path


def extract(
    world: World, images: Path, out: Path, settings: FeatureSpec, stop_after: int | None = None
) -> list[float]:
    done = []
    loop = extract_features(
        unet(), settings, Store.open(images), NORMALISATION, out, world,
        provenance=MADE, shard_bytes=256 << 10,
    )  # fmt: skip
    for progress in loop:
        done.append(progress.metrics["rows"])
        if progress.epoch == stop_after:
            loop.close()
    return done


def digest(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.parametrize("tap", ["conv5", "uconv3", "deconv4"])
def test_rows_are_the_unets_block_for_the_same_slices(
    images: Path, tmp_path: Path, tap: str
) -> None:
    done = extract(World.single(), images, tmp_path / "out", spec(tap=tap))
    assert len(done) == REPORTS
    assert done == sorted(done)
    assert done[-1] == ROWS
    source, made = Store.open(images), Store.open(tmp_path / "out")
    with torch.inference_mode():
        x = (source.read().x - 110.0) / 35.0
        expected = unet().features(x, tap)
    assert made.schema.dtype == "float16"
    torch.testing.assert_close(made.read().x.float(), expected, rtol=2e-3, atol=2e-3)
    for column in ("labels", "patients", "volumes", "slice_index", "tumour_pixels"):
        np.testing.assert_array_equal(getattr(made, column), getattr(source, column))
    assert made.classes == source.classes
    assert made.provenance == MADE


@pytest.mark.parametrize("stop_after", [1, 8, 13, REPORTS - 1])
def test_goes_on_where_it_was_stopped_and_ends_with_the_same_bytes(
    images: Path, tmp_path: Path, stop_after: int
) -> None:
    extract(World.single(), images, tmp_path / "whole", spec(**LARGE))
    extract(World.single(), images, tmp_path / "cut", spec(**LARGE), stop_after=stop_after)
    assert not Store.exists(tmp_path / "cut")
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cut").glob("*.arrow")}
    assert bool(kept) == (stop_after > 2)
    extract(World.single(), images, tmp_path / "cut", spec(**LARGE))
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    for name, written in kept.items():
        assert (tmp_path / "cut" / name).stat().st_mtime_ns == written


def test_two_ranks_write_their_parts_of_one_store(two_ranks, images: Path, tmp_path: Path) -> None:
    extract(World.single(), images, tmp_path / "one", spec(**LARGE))
    both = two_ranks(extract, images, tmp_path / "two", spec(**LARGE))
    assert both[0] == both[1]
    assert len(both[0]) == REPORTS
    one, two = Store.open(tmp_path / "one"), Store.open(tmp_path / "two")
    np.testing.assert_array_equal(one.volumes, two.volumes)
    np.testing.assert_array_equal(one.slice_index, two.slice_index)
    torch.testing.assert_close(one.read().x, two.read().x)
    two_ranks(extract, images, tmp_path / "cut", spec(**LARGE), 9)
    two_ranks(extract, images, tmp_path / "cut", spec(**LARGE))
    assert digest(tmp_path / "cut") == digest(tmp_path / "two")


def test_memory_does_not_grow_with_the_rows(images: Path, tmp_path: Path) -> None:
    rows = Store.open(images).select(np.arange(ROWS * 50) % ROWS)
    settings = spec(tap="conv1", dtype="float32", batch_size=16)  # 64 KiB a row, 115 MB in all
    loop = extract_features(
        unet(), settings, rows, NORMALISATION, tmp_path / "out", World.single(),
        provenance=MADE, shard_bytes=1 << 20,
    )  # fmt: skip
    private_kib = [private_memory_kib() for _ in loop]
    assert Store.open(tmp_path / "out").manifest["bytes"] > 110e6
    assert max(private_kib) - private_kib[0] < 32 << 10


def private_memory_kib() -> int:
    """Memory that is not a file's: RssAnon."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def test_a_feature_too_large_for_fp16_is_refused(images: Path, tmp_path: Path) -> None:
    loop = extract_features(
        unet(), spec(), Store.open(images), (0.0, 1e-6), tmp_path / "out", World.single(),
        provenance=MADE,
    )  # fmt: skip
    with pytest.raises(UserError, match="float16"):
        list(loop)
    assert not Store.exists(tmp_path / "out")


def test_the_encoder_makes_what_is_stored(images: Path, tmp_path: Path) -> None:
    for crop in ("none", "predicted_tumour"):
        settings = spec(crop=crop, dtype="float32")
        extract(World.single(), images, tmp_path / crop, settings)
        encode = encoder(unet(), settings, NORMALISATION, World.single())
        made = encode(Store.open(images).read().x)
        torch.testing.assert_close(Store.open(tmp_path / crop).read().x, made)
    assert not torch.equal(
        *(Store.open(tmp_path / crop).read().x for crop in ("none", "predicted_tumour"))
    )


def test_bf16_features_are_near_those_of_fp32(images: Path) -> None:
    x = Store.open(images).read().x
    fp32, bf16 = (
        encoder(unet(), spec(precision=p), NORMALISATION, World.single())(x)
        for p in ("fp32", "bf16")
    )
    assert bf16.dtype == torch.float32
    assert 0 < (fp32 - bf16).norm() < 0.02 * fp32.norm()


def test_a_crop_is_the_tumours_square_at_full_size() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)  # the value of a cell is its column
    features = torch.cat([ramp, ramp.mT], 1)
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 8:16, 12:20] = True  # rows 2 to 4 and columns 3 to 5 of the 8 x 8 map
    found = crop_to_tumour(features, mask)
    step = torch.arange(8.0) / 4 + 1 / 8 - 0.5  # cell centres, four samples a cell
    torch.testing.assert_close(found[0, 0], (3 + step).expand(8, 8))
    torch.testing.assert_close(found[0, 1], (2 + step)[:, None].expand(8, 8))


def test_a_crop_without_a_tumour_is_the_whole_map() -> None:
    features = torch.randn(2, 3, 8, 8)
    mask = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    mask[1, 0, 0, 0] = True
    found = crop_to_tumour(features, mask)
    torch.testing.assert_close(found[0], features[0])
    # One pixel becomes one cell around its centre, half of it beyond the corner's cell centre.
    assert (found[1] - features[1]).abs().max() > 0.1
    assert found.shape == features.shape
