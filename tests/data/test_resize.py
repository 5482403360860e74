"""One size for all slices: areas are averaged exactly, equal sizes stay untouched."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medaug.data.resize import fit_images, fit_masks

RNG = np.random.default_rng(0)


def test_equal_sizes_are_the_identity():
    x = RNG.random((2, 20, 20), dtype=np.float32)
    np.testing.assert_array_equal(fit_images(x, 20), x)
    mask = (x > 0.5).astype(np.uint8)
    np.testing.assert_array_equal(fit_masks(mask, 20), mask)


@pytest.mark.parametrize(("side", "size"), [(20, 10), (21, 7), (30, 20), (16, 15), (31, 17)])
def test_areas_are_averaged_exactly(side, size):
    """Against the definition: blow both grids up to a common one, where areas are whole pixels."""
    x = RNG.random((3, side, side))
    fine = np.kron(x, np.ones((1, size, size)))
    wanted = fine.reshape(3, size, side, size, side).mean(axis=(2, 4))
    got = fit_images(x.astype(np.float32), size)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    np.testing.assert_allclose(got.mean(axis=(1, 2)), x.mean(axis=(1, 2)), atol=1e-6)
    mask = (x > 0.6).astype(np.uint8)
    share = np.kron(mask, np.ones((1, size, size))).reshape(3, size, side, size, side)
    np.testing.assert_array_equal(fit_masks(mask, size), share.mean(axis=(2, 4)) >= 0.5 - 1e-9)


@pytest.mark.parametrize(("side", "size"), [(10, 20), (7, 9), (16, 45)])
def test_smaller_slices_are_interpolated_as_torch_does(side, size):
    x = RNG.random((2, side, side), dtype=np.float32)
    wanted = F.interpolate(torch.from_numpy(x)[None], (size, size), mode="bilinear")[0].numpy()
    np.testing.assert_allclose(fit_images(x, size), wanted, atol=1e-5)
    mask = (x > 0.5).astype(np.uint8)
    nearest = F.interpolate(
        torch.from_numpy(mask)[None].float(), (size, size), mode="nearest-exact"
    )
    np.testing.assert_array_equal(fit_masks(mask, size), nearest[0].numpy())


@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (12, 7)])
def test_oblongs_are_padded_around_their_centre_with_background(shape):
    x = RNG.random((2, *shape), dtype=np.float32) - 3
    square = fit_images(x, 12)
    before = [(12 - n) // 2 for n in shape]
    inside = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    np.testing.assert_array_equal(square[:, *inside], x)
    outside = np.ones((12, 12), bool)
    outside[inside] = False
    assert (square[:, outside] == x.min()).all()
    assert fit_masks(np.ones((2, *shape), np.uint8), 12)[:, outside].sum() == 0
