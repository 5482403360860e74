"""What becomes of intensities, channels and sizes before a network sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from medaug.encoders.intensity import depth_of, intensity_of, resized, three_channels, to_unit
from tests.encoders.image_stores import slice_store


def test_an_8_bit_image_becomes_its_pixels_over_255() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    expected = torch.arange(256).view(1, 1, 16, 16) / 255
    assert torch.equal(to_unit(pixels, "unit"), expected)
    # As a slice store holds it, see medaug.data.images.
    read = torch.from_numpy(np.arange(256, dtype=np.uint8).astype(np.float32) / np.float32(255))
    assert torch.equal(to_unit(read.view(1, 1, 16, 16), "unit"), expected)


def test_auto_is_unit_where_all_slices_are(tmp_path: Path) -> None:
    assert intensity_of(slice_store(tmp_path / "a"), "auto") == "unit"
    assert intensity_of(slice_store(tmp_path / "b", dtype="uint8"), "auto") == "unit"
    beyond = slice_store(tmp_path / "c", high=1.5)
    assert intensity_of(beyond, "auto") == "image"
    # Area averages of 1 come out as 1.0000001.
    assert intensity_of(slice_store(tmp_path / "d", high=1.00001), "auto") == "unit"
    assert intensity_of(beyond, (0.0, 2.0)) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("highest", "bits"), [(1023, 10), (1024, 12), (4095, 12), (4096, 14), (16383, 14)]
)
def test_white_is_at_the_depth_that_pictures_need(highest: int, bits: int) -> None:
    found = depth_of(highest / 65535)
    assert found == (0.0, (2**bits - 1) / 65535)
    x = torch.tensor([0.0, highest / 65535]).view(1, 1, 1, 2)
    assert to_unit(x, found).max() == pytest.approx(highest / (2**bits - 1))


def test_auto_brightens_pictures_of_fewer_bits_than_their_files_only(tmp_path: Path) -> None:
    assert depth_of(16384 / 65535) is None
    assert depth_of(0.0) is None, "nothing is in them"
    dark = slice_store(tmp_path, high=4095 / 65535)
    assert intensity_of(dark, "auto") == (0.0, 4095 / 65535)
    assert intensity_of(dark, "unit") == "unit"


def test_image_goes_by_percentiles_and_ignores_scale_and_shift() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(100, 30, (3, 2, 60, 60)).astype(np.float32))
    x[0, 0, 0, 0] = 1e6  # a metal clip
    unit = to_unit(x, "image")
    for i in range(3):
        for c in range(2):
            flat = np.sort(x[i, c].numpy().ravel())
            low, high = (flat[round(at * (len(flat) - 1))] for at in (0.005, 0.995))
            expected = np.clip((x[i, c].numpy() - low) / (high - low), 0, 1)
            np.testing.assert_allclose(unit[i, c].numpy(), expected, atol=1e-6)
    torch.testing.assert_close(to_unit(3 * x - 70, "image"), unit, rtol=0, atol=1e-4)
    alone = torch.cat([to_unit(x[i : i + 1], "image") for i in range(3)])
    assert torch.equal(alone, unit)


def test_image_with_hardly_anything_in_it_keeps_its_extremes() -> None:
    x = torch.zeros(2, 1, 100, 100)
    x[0, 0, 50, 50:60] = 7.0
    unit = to_unit(x, "image")
    assert unit[0].max() == 1
    assert torch.equal(unit[1], torch.zeros(1, 100, 100))


def test_window_is_cut_off_at_its_ends() -> None:
    x = torch.tensor([-1000.0, 0.0, 40.0, 80.0, 3000.0]).view(1, 1, 1, 5)
    assert to_unit(x, (0.0, 80.0)).flatten().tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels(channels: int) -> None:
    x = torch.rand(2, channels, 5, 5)
    out = three_channels(x)
    assert out.shape == (2, 3, 5, 5)
    expected = x if channels == 3 else x.mean(1, keepdim=True).repeat(1, 3, 1, 1)
    assert torch.equal(out, expected)


def test_making_smaller_is_antialiased_as_in_pillow() -> None:
    x = torch.rand(1, 1, 100, 100)
    picture = Image.fromarray(x[0, 0].numpy(), mode="F").resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(resized(x, 32)[0, 0].numpy(), np.asarray(picture), atol=2e-3)
    plain = F.interpolate(x, size=(32, 32), mode="bilinear")
    assert float((plain - resized(x, 32)).abs().max()) > 0.05
    assert resized(x, 100) is x
