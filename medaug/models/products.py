"""Convolutions on small maps as matrix products, where the library's own kernels fall behind.

On a CPU in bfloat16 oneDNN computes the weight gradient of a convolution with many channels and few
pixels at a fifth of the speed of a matrix product (8x8 to 4x4, 512 to 1024 channels: 105 ms against
24), and the whole of a transposed convolution that begins at one pixel at less than a tenth. Both
are products of rows that lie side by side when channels are innermost in memory. Everywhere else
(a GPU, float32, large maps, a second derivative) the layers here are those of torch, whose
parameters, state and results they share.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEW_PIXELS = 64
"""Of the smaller of the two maps: the product writes each pixel's surroundings out, k*k times."""
MANY_CHANNELS = 128
"""Of the smaller map; with fewer the product is not faster. Both measured: docs/benchmarks.md."""


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` whose weight gradient is a product where that is faster."""

    def forward(self, input: Tensor) -> Tensor:
        if not _lowers(self, input):
            return super().forward(input)
        how = (self.stride, self.padding, (0, 0), False)
        return _Convolution.apply(*_lowered(input, self), *how)


class ConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` as :class:`Conv2d`, and as one product where the map is one pixel."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not _lowers(self, input):
            return super().forward(input, output_size)
        if input.shape[2:] == (1, 1) and not any((*self.padding, *self.output_padding)):
            return _from_one_pixel(*_lowered(input, self))
        how = (self.stride, self.padding, self.output_padding, True)
        return _Convolution.apply(*_lowered(input, self), *how)


class _Convolution(torch.autograd.Function):
    """A convolution, or a transposed one, in bfloat16 on the CPU."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        output_padding: tuple[int, int],
        transposed: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias_shape = None if bias is None else list(bias.shape)
        ctx.how = stride, padding, (1, 1), transposed, output_padding, 1
        return torch.convolution(x, weight, bias, *ctx.how)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, _, transposed, *_ = ctx.how
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        # A transposed convolution is the other one backwards: the large map is its output.
        large, small = (grad, x) if transposed else (x, grad)
        pays = small[0, 0].numel() <= FEW_PIXELS and small.shape[1] >= MANY_CHANNELS
        wanted = (of_x, of_weight and not pays, of_bias)
        dx, dw, db = torch.ops.aten.convolution_backward(
            grad, x, weight, ctx.bias_shape, *ctx.how, wanted
        )
        if of_weight and pays:
            dw = weight_gradient(large, small, weight.shape[2:], stride, padding)
        return dx, dw, db, None, None, None, None


def weight_gradient(
    large: Tensor,
    small: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """Of a convolution of ``large`` (N, C, H, W), from the gradient ``small`` (N, K, h, w) of what
    it gives: (K, C, *kernel), channels innermost, in their dtype."""
    up, left = padding
    x_NHWC = F.pad(large, (left, left, up, up)).permute(0, 2, 3, 1)
    seen = x_NHWC.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])
    rows = seen.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)
    product = small.permute(0, 2, 3, 1).flatten(0, 2).mT @ rows
    return product.view(len(product), *kernel, -1).permute(0, 3, 1, 2)


def _from_one_pixel(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Transposed convolution of (N, C, 1, 1) with (C, K, h, w): (N, K, h, w), no padding."""
    rows = weight.permute(0, 2, 3, 1)
    y = (x.flatten(1) @ rows.flatten(1)).view(-1, *rows.shape[1:]).permute(0, 3, 1, 2)
    return y if bias is None else y + bias[:, None, None]


def _lowers(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> bool:
    """Whether autocast would have ``layer`` run in bfloat16 on the CPU, and it is known here.

    It does not look at the weight: where that is spectrally normalised, each look is an iteration.
    """
    if x.device.type != "cpu" or x.ndim != 4 or layer.groups != 1 or layer.dilation != (1, 1):
        return False
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return False
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
    return autocast is torch.bfloat16 and x.dtype in (torch.float32, torch.bfloat16)


def _lowered(
    x: Tensor, layer: nn.Conv2d | nn.ConvTranspose2d
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The rows, weight and bias, rounded as autocast would."""
    bias = None if layer.bias is None else layer.bias.bfloat16()
    return x.bfloat16(), layer.weight.bfloat16(), bias
