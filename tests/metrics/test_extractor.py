"""The fixed image extractor: the same numbers everywhere, and eyes for what pooling cannot see."""

import numpy as np
import pytest
import torch

from medaug.metrics.extractor import image_features
from medaug.metrics.generative import Projection, frechet_distance, gap_gmp
from medaug.seeding import generator


def images(n: int, size: int = 32, channels: int = 1) -> torch.Tensor:
    """Discs in the upper half of noise, (n, channels, size, size)."""
    noise = torch.randn(n, channels, size, size, generator=generator("images", size))
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    disc = (row - size / 4) ** 2 + (column - size / 2) ** 2 < (size / 5) ** 2
    strength = torch.rand(n, 1, 1, 1, generator=generator("strength"))
    return 0.1 * noise + (1 + strength) * disc


def test_these_numbers_belong_to_this_name() -> None:
    """Other numbers need another IMAGE_EXTRACTOR: distances on different ones do not compare."""
    ramp = torch.arange(64.0).outer(torch.arange(64.0))[None, None] / 4096
    features = image_features(ramp)
    first = [0.0105008, 0.0565724, 0.0555156, 0.2615621]
    np.testing.assert_allclose(features[0, :4], first, rtol=1e-4)
    assert features.sum() == pytest.approx(56.36058, rel=1e-4)


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (32, 1), (128, 3)])
def test_any_size_and_channels_give_512_numbers(size: int, channels: int) -> None:
    features = image_features(images(3, size, channels))
    assert features.shape == (3, 512)
    assert features.dtype == np.float32


def test_a_row_does_not_depend_on_its_batch_and_scales_with_its_units() -> None:
    x = images(6)
    features = image_features(x)
    np.testing.assert_allclose(image_features(x[4:5]), features[4:5], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(image_features(255 * x), 255 * features, rtol=1e-4)


def test_no_feature_is_dead() -> None:
    assert (image_features(images(20)).std(axis=0) > 0).all()


@pytest.mark.parametrize("wrong", ["upside down", "blurred"])
def test_it_sees_what_pooled_pixels_do_not(wrong: str) -> None:
    x = images(200)
    real, unseen = x[:100], x[100:]
    smooth = torch.nn.functional.avg_pool2d(unseen, 3, 1, 1)
    fake = unseen.flip(2) if wrong == "upside down" else smooth

    def distance(features, other: torch.Tensor) -> float:
        space = Projection(features(real), 8)
        return frechet_distance(space(features(real)), space(features(other)))

    assert distance(image_features, fake) > 10 * distance(image_features, unseen)
    if wrong == "upside down":
        assert distance(gap_gmp, fake) == pytest.approx(distance(gap_gmp, unseen))
