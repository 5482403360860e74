"""Convolutions by products against torch's: values and gradients, in both modes and layouts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from medaug.models.products import Conv2d, ConvTranspose2d, weight_gradient

SMALL = [(8, 3, 2, 1), (8, 3, 1, 1), (9, 3, 2, 1), (7, 4, 2, 1), (6, 5, 2, 2), (5, 3, 2, 0), (3, 3, 1, 1)]  # fmt: skip
"""Size, kernel, stride and padding; some leave a row of the input unseen."""


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), SMALL)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weight_gradient_is_exact_in_float64(
    size: int, kernel: int, stride: int, padding: int, layout: torch.memory_format
) -> None:
    x = torch.randn(3, 5, size, size + 2, dtype=torch.float64).to(memory_format=layout)
    weight = torch.randn(4, 5, kernel, kernel, dtype=torch.float64, requires_grad=True)
    y = torch.conv2d(x, weight, None, stride, padding)
    grad = torch.randn_like(y)
    y.backward(grad)
    found = weight_gradient(x, grad, (kernel, kernel), (stride, stride), (padding, padding))
    torch.testing.assert_close(found, weight.grad)
    assert found.is_contiguous(memory_format=torch.channels_last)


def _passed(layer: nn.Module, x: Tensor, autocast: bool) -> tuple[Tensor, ...]:
    """The output, and the gradients of x, weight and bias."""
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    y.backward(grad.to(y.dtype))
    return y, x.grad, *(p.grad for p in layer.parameters())  # type: ignore[return-value]


def _twins(own: type[nn.Module], plain: type[nn.Module], *how: Any, **keys: Any) -> Any:
    torch.manual_seed(0)
    layer = own(*how, **keys)
    twin = plain(*how, **keys)
    twin.load_state_dict(layer.state_dict())
    return layer, twin


LAYERS = [
    (Conv2d, nn.Conv2d, (6, 128, 3, 2, 1), 8),  # a product
    (Conv2d, nn.Conv2d, (6, 128, 4, 2, 1), 15),
    (Conv2d, nn.Conv2d, (6, 128, 3, 1, 1), 9),  # too many pixels
    (Conv2d, nn.Conv2d, (6, 8, 3, 2, 1), 8),  # too few channels
    (ConvTranspose2d, nn.ConvTranspose2d, (128, 6, 4, 1, 0), 1),  # from one pixel
    (ConvTranspose2d, nn.ConvTranspose2d, (128, 6, 5, 2, 2, 1), 1),
    (ConvTranspose2d, nn.ConvTranspose2d, (128, 6, 3, 2, 1), 8),
    (ConvTranspose2d, nn.ConvTranspose2d, (128, 6, 5, 2, 2, 1), 4),
    (ConvTranspose2d, nn.ConvTranspose2d, (8, 6, 4, 2, 1), 5),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("own", "plain", "how", "size"), LAYERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_equal_torchs_in_bfloat16(
    own: Any, plain: Any, how: Any, size: int, bias: bool, layout: Any, dtype: torch.dtype
) -> None:
    layer, twin = _twins(own, plain, *how, bias=bias)
    layer, twin = layer.to(memory_format=layout), twin.to(memory_format=layout)
    x = torch.randn(4, how[0], size, size).to(dtype, memory_format=layout)
    exact = _passed(twin, x.float(), False)
    found, rounded = _passed(layer, x, True), _passed(copy.deepcopy(twin).requires_grad_(), x, True)
    assert len(found) == 3 + bias
    for ours, theirs, true in zip(found, rounded, exact, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert (ours - true).norm() < 0.01 * true.norm()


@pytest.mark.parametrize(("own", "plain", "how", "size"), LAYERS)
def test_in_float32_they_are_torchs(own: Any, plain: Any, how: Any, size: int) -> None:
    layer, twin = _twins(own, plain, *how)
    x = torch.randn(4, how[0], size, size)
    for ours, theirs in zip(_passed(layer, x, False), _passed(twin, x, False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_second_derivatives_exist_where_penalties_need_them() -> None:
    layer, _ = _twins(Conv2d, nn.Conv2d, 3, 128, 3, 2, 1)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert layer.weight.grad.norm() > 0


@pytest.mark.parametrize(("own", "plain", "how", "size"), [LAYERS[0], LAYERS[4], LAYERS[6]])
def test_a_frozen_layer_passes_gradients_on(own: Any, plain: Any, how: Any, size: int) -> None:
    layer, twin = _twins(own, plain, *how, bias=False)
    layer.requires_grad_(False), twin.requires_grad_(False)
    x = torch.randn(4, how[0], size, size)
    ours, theirs = (_passed(each, x, True) for each in (layer, twin))
    assert ours[2] is None
    torch.testing.assert_close(ours[:2], theirs[:2], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_pass_is_one_iteration_of_spectral_norm(autocast: bool) -> None:
    layer, twin = map(spectral_norm, _twins(Conv2d, nn.Conv2d, 3, 128, 3, 2, 1))
    twin.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 8, 8)
    for each in (layer, twin):
        _passed(each, x, autocast)
    torch.testing.assert_close(layer.state_dict(), twin.state_dict())
    if autocast:
        grads = [each.parametrizations.weight.original.grad for each in (layer, twin)]
        torch.testing.assert_close(*grads, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("keys", [{"groups": 2}, {"dilation": 2}, {"padding": "same"}])
def test_layers_that_are_not_known_here_are_left_to_torch(keys: dict[str, Any]) -> None:
    layer, twin = _twins(Conv2d, nn.Conv2d, 4, 128, 3, **keys)
    x = torch.randn(2, 4, 8, 8)
    for ours, theirs in zip(_passed(layer, x, True), _passed(twin, x, True), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_products_are_taken_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def noted(large: Tensor, *how: Any) -> Tensor:
        taken.append(len(large))
        return weight_gradient(large, *how)

    monkeypatch.setattr("medaug.models.products.weight_gradient", noted)
    counts = []
    for own, plain, how, size in LAYERS:
        taken.clear()
        _passed(_twins(own, plain, *how)[0], torch.randn(4, how[0], size, size), True)
        counts.append(len(taken))
    assert counts == [1, 1, 0, 0, 0, 1, 1, 1, 0]
