"""Flow matching against its closed form: between Gaussians everything about it is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medaug.models.flow_matching import (
    follow_field,
    guided_velocity,
    velocity_loss,
    without_class,
)

MEAN, SPREAD = 3.0, 0.5


def exact(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """E[x1 - x0 | x_t] for x0 ~ N(0, 1) and x1 ~ N(MEAN, SPREAD^2): the regression of one jointly
    Gaussian number on another."""
    t = t.view(-1, *(1,) * (x.ndim - 1))
    covariance = t * SPREAD**2 - (1 - t)
    variance = (1 - t) ** 2 + (t * SPREAD) ** 2
    return MEAN + covariance / variance * (x - t * MEAN)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
def test_loss_of_the_exact_field_is_what_no_field_can_know(t: float) -> None:
    source = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 100_000, 2, generator=source)
    x1 = MEAN + SPREAD * x1
    times, label = torch.full((len(x0),), t), torch.zeros(len(x0), dtype=torch.int64)
    left = SPREAD**2 + 1 - (t * SPREAD**2 - (1 - t)) ** 2 / ((1 - t) ** 2 + (t * SPREAD) ** 2)
    assert float(velocity_loss(exact, x0, x1, times, label)) == pytest.approx(left, rel=0.02)


def test_loss_of_rest_is_the_mean_square_of_the_way() -> None:
    x0, x1 = torch.randn(2, 5, 3, 4, 4)
    t, label = torch.rand(5), torch.zeros(5, dtype=torch.int64)
    seen: list[Tensor] = []

    def rest(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    assert torch.equal(velocity_loss(rest, x0, x1, t, label), (x1 - x0).square().mean())
    for row in range(5):
        assert torch.allclose(seen[0][row], (1 - t[row]) * x0[row] + t[row] * x1[row], atol=1e-6)


def test_the_exact_field_leads_from_noise_to_the_rows() -> None:
    """Between two Gaussians the way of x0 ends at mean + spread x0."""
    x0 = torch.randn(50, 1, 2, 2)
    label = torch.zeros(50, dtype=torch.int64)
    ends = {n: follow_field(exact, x0, label, 1, guidance=1, steps=n) for n in (10, 20, 80)}
    off = {n: float((x - (MEAN + SPREAD * x0)).abs().max()) for n, x in ends.items()}
    assert off[80] < 2e-3
    assert off[20] < off[10] / 3, "of second order"


def test_guidance() -> None:
    calls: list[list[int]] = []

    def field(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        calls.append(label.tolist())
        return x * t[:, None] + label[:, None]

    x, label = torch.randn(3, 2), torch.tensor([0, 1, 0])
    plain = field(x, torch.full((3,), 0.5), label)
    free = field(x, torch.full((3,), 0.5), torch.full((3,), 2))
    calls.clear()
    assert torch.equal(guided_velocity(field, x, 0.5, label, 2, 1.0), plain), "bit for bit"
    assert calls == [[0, 1, 0]], "in one pass"
    assert torch.equal(guided_velocity(field, x, 0.5, label, 2, 0.0), free)
    more = guided_velocity(field, x, 0.5, label, 2, 3.0)
    assert torch.allclose(more, free + 3 * (plain - free), atol=1e-6)
    hidden = torch.tensor([True, False, False])
    assert without_class(label, hidden, 2).tolist() == [2, 1, 0]
