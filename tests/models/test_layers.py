"""Dropout by coins, and the class in the latent."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medaug.models.layers import Dropout, conditioned, one_hot

SHAPES = [(64, 33, 15, 15), (100, 999), (7,)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_is_kept_and_doubled(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype).requires_grad_()
    y = Dropout(0.5)(x)
    kept = y != 0
    torch.testing.assert_close(y, torch.where(kept, 2 * x, 0), rtol=0, atol=0)
    assert y.dtype == dtype
    y.sum().backward()
    torch.testing.assert_close(x.grad, 2 * kept.to(dtype), rtol=0, atol=0)
    if x.numel() > 1000:
        assert kept.float().mean().item() == pytest.approx(0.5, abs=3 * 0.5 * x.numel() ** -0.5)


def test_coins_are_independent() -> None:
    """Of the place in a byte, of their neighbours, and of the call before: four sigma each."""
    torch.manual_seed(0)
    ones, net = torch.ones(4096, 64), Dropout(0.5)
    one, other = (net(ones) - 1 for _ in range(2))  # 1 and -1
    assert one.mean(0).abs().max() < 4 / 4096**0.5
    neighbours = (one @ one.mT / 64).fill_diagonal_(0)
    assert neighbours.pow(2).mean().sqrt().item() == pytest.approx(1 / 8, rel=0.02)
    places = (one.mT @ one / 4096).fill_diagonal_(0)
    assert places.abs().max() < 5 / 64
    assert (one * other).mean().abs() < 4 / one.numel() ** 0.5


def test_coins_follow_the_layout_of_the_rows() -> None:
    x = torch.ones(4, 6, 5, 5).to(memory_format=torch.channels_last)
    y = Dropout(0.5)(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert Dropout(0.5)(x[:, :, ::2]).shape == (4, 6, 3, 5)


def test_same_seed_same_coins_and_none_in_evaluation() -> None:
    net, x = Dropout(0.5), torch.randn(3, 100)
    drawn = []
    for _ in range(2):
        torch.manual_seed(1)
        drawn.append((net(x), net(x)))
    torch.testing.assert_close(*drawn, rtol=0, atol=0)
    assert not torch.equal(*drawn[0])
    assert net.eval()(x) is x


def test_other_rates_are_torchs() -> None:
    x = torch.randn(3, 100)
    torch.manual_seed(1)
    y = Dropout(0.3)(x)
    torch.manual_seed(1)
    torch.testing.assert_close(y, nn.Dropout(0.3)(x), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_label_overwrites_the_beginning_of_the_latent(dtype: torch.dtype) -> None:
    z, label = torch.randn(5, 7).to(dtype), torch.tensor([2, 0, 1, 1, 2])
    rows = one_hot(label, 3, dtype)
    assert rows.dtype == dtype
    assert torch.equal(rows, F.one_hot(label, 3).to(dtype))
    assert torch.equal(conditioned(z, label, 3), torch.cat((rows, z[:, 3:]), dim=1))
