"""One kernel for all weights against torch's plain Adam."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from medaug.train.adam import FusedAdam

SHAPES = [(8, 4, 3, 3), (6, 5, 1, 1), (1, 7, 4, 4), (9, 3), (5,)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def _laid(x: torch.Tensor, layout: torch.memory_format) -> torch.Tensor:
    return x.contiguous(memory_format=layout) if x.ndim == 4 else x


def _weights(layout: torch.memory_format) -> list[torch.nn.Parameter]:
    source = torch.Generator().manual_seed(0)
    drawn = [_laid(torch.randn(shape, generator=source), layout) for shape in SHAPES]
    return [torch.nn.Parameter(x) for x in drawn]


def _step(optimizer: Any, weights: list[torch.nn.Parameter], seed: int, layout: Any) -> None:
    source = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad = _laid(torch.randn(weight.shape, generator=source), layout)
    optimizer.step()


@pytest.mark.parametrize("of_gradients", LAYOUTS)
@pytest.mark.parametrize("of_weights", LAYOUTS)
def test_weights_and_gradients_in_any_layout(of_weights: Any, of_gradients: Any) -> None:
    own, plain = _weights(of_weights), _weights(of_weights)
    keys: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.01}
    pairs = [(FusedAdam(own, **keys), own), (torch.optim.Adam(plain, **keys), plain)]
    for seed in range(3):
        for optimizer, weights in pairs:
            _step(optimizer, weights, seed, of_gradients)
    torch.testing.assert_close(own, plain)
    state, expected = (optimizer.state_dict()["state"] for optimizer, _ in pairs)
    torch.testing.assert_close(state, expected)
    assert own[0].stride() == plain[0].stride()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_goes_on_from_moments_in_another_layout(layout: Any) -> None:
    whole, weights = _weights(torch.channels_last), _weights(torch.channels_last)
    begun = FusedAdam(whole, lr=0.1)
    _step(begun, whole, 0, torch.channels_last)
    for own, other in zip(weights, whole, strict=True):
        own.data.copy_(other.data)
    written = copy.deepcopy(begun.state_dict())
    for state in written["state"].values():
        state |= {name: _laid(x, layout) for name, x in state.items()}
    resumed = FusedAdam(weights, lr=0.1)
    resumed.load_state_dict(written)
    _step(resumed, weights, 1, torch.channels_last)
    _step(begun, whole, 1, torch.channels_last)
    torch.testing.assert_close(weights, whole, rtol=0, atol=0)


def test_a_step_that_is_found_infinite_is_skipped() -> None:
    weights = _weights(torch.channels_last)
    before = [weight.detach().clone() for weight in weights]
    optimizer = FusedAdam(weights, lr=0.1)
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    _step(optimizer, weights, 0, torch.channels_last)
    torch.testing.assert_close([weight.detach() for weight in weights], before, rtol=0, atol=0)
