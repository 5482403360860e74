"""The U-Net of study A, whose hidden layers are the features that medaug augments.

Architecture of zsdonghao/u-net-brain-tumor (``u_net`` in its ``model.py``), which Mehra, Soliman
and Sahoo (arXiv 2209.14097) fine-tune: no batch norm, no dropout, ReLU, linear up-convolutions.
With ``base=64`` and one output it has 34,512,193 parameters for one input channel and 34,513,921
for four.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from medaug.spec.study import TAPS

LEVELS = 5

_WALK = (
    *(f"conv{level}" for level in range(1, LEVELS + 1)),
    *(f"{part}{level}" for level in range(LEVELS - 1, 0, -1) for part in ("deconv", "uconv")),
)
"""The blocks in the order in which they run."""
assert set(_WALK) == set(TAPS)


def tap_shape(tap: str, base: int, image_size: int) -> tuple[int, int, int]:
    """Shape (C, S, S) of a feature tap for square images of ``image_size`` pixels.

    Raises:
        ValueError: unknown tap, or an image size that four poolings do not divide.
    """
    _check_tap(tap)
    _check_size(image_size)
    halvings = int(tap[-1]) - 1
    return base << halvings, image_size >> halvings, image_size >> halvings


class UNet(nn.Module):
    """U-Net with named blocks ``conv1..5``, ``deconv4..1`` and ``uconv4..1`` (NETWORKS 1.1).

    Args:
        in_channels: image channels.
        base: width of the first level; each further level doubles it.
        n_out: output maps (1: tumour against rest).
        init: ``tl``, the reference's truncated normal (standard deviation .02, cut at two) with
            zero bias; at learning rate 1e-4 its Dice loss can stick at 1, for which its README
            says to start again. ``kaiming`` (He et al. 2015) starts at unit gain.
    """

    def __init__(
        self,
        in_channels: int = 1,
        base: int = 64,
        n_out: int = 1,
        init: Literal["tl", "kaiming"] = "tl",
    ) -> None:
        super().__init__()
        width = [base << level for level in range(LEVELS)]
        for level in range(1, LEVELS + 1):
            channels_in = in_channels if level == 1 else width[level - 2]
            self.add_module(f"conv{level}", _double_conv(channels_in, width[level - 1]))
        for level in range(LEVELS - 1, 0, -1):
            half = width[level - 1]
            # TensorFlow's SAME transposed convolution differs by one pixel of shift: it is
            # padding=0 with the last row and column cut off.
            up = nn.ConvTranspose2d(2 * half, half, 3, stride=2, padding=1, output_padding=1)
            self.add_module(f"deconv{level}", up)
            self.add_module(f"uconv{level}", _double_conv(2 * half, half))
        self.out = nn.Conv2d(base, n_out, 1)
        self.pool = nn.MaxPool2d(2)
        self._initialise(init)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Logits (N, n_out, H, W) of images (N, in_channels, H, W); H, W multiples of 16."""
        return self.out(self.features(x_NCHW, "uconv1"))

    def features(self, x_NCHW: Tensor, tap: str) -> Tensor:
        """Output of the block ``tap``, running only the blocks that it needs.

        Shape: see :func:`tap_shape`. ``conv*`` and ``uconv*`` are >= 0 (they end in a ReLU),
        ``deconv*`` (before the skip is joined) are linear.
        """
        for size in x_NCHW.shape[2:]:
            _check_size(size)
        blocks = self.blocks(tap)
        skips: dict[str, Tensor] = {}  # held only for a decoder that runs: extraction stays small
        h = x_NCHW
        for name in blocks:
            part, level = name[:-1], name[-1]
            if part == "conv" and level != "1":
                h = self.pool(h)
            elif part == "uconv":
                h = torch.cat((h, skips.pop(level)), dim=1)
            h = self.get_submodule(name)(h)
            if part == "conv" and f"uconv{level}" in blocks:
                skips[level] = h
        return h

    @staticmethod
    def blocks(tap: str) -> tuple[str, ...]:
        """Names of the blocks that run for ``tap``, in order; ``conv5`` is the whole encoder."""
        _check_tap(tap)
        return _WALK[: _WALK.index(tap) + 1]

    @torch.no_grad()
    def _initialise(self, init: str) -> None:
        if init not in ("tl", "kaiming"):
            raise ValueError(f"init: unknown '{init}'; use tl or kaiming")
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                assert module.bias is not None
                nn.init.zeros_(module.bias)
                if init == "tl":
                    nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                else:
                    # A transposed 3x3 stride-2 kernel meets a pixel 9/4 times, from twice as many
                    # channels as the fan_in computed here counts: gain 1, right for a linear map.
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def adapt_input(
    state_dict: Mapping[str, Tensor],
    how: Literal["slice_conv1", "replicate", "zero_pad"],
    channels: int = 1,
) -> dict[str, Tensor]:
    """Weights of a U-Net as weights of one for images of another number of ``channels``.

    How study A fed FLAIR alone to its four-channel network is not stated; each way of feeding an
    image is the same function as a network with these filters:

    - ``slice_conv1``: channels are matched by their place (FLAIR, T1, T1ce, T2). Filters of what
      the images lack are left out, and what only the images have starts without effect, at 0.
      ``zero_pad`` (missing channels are zero, the mean of a normalised image) is the same function,
      with no gradient to the filters left out.
    - ``replicate``: the mean of the images stands in for every channel, so the filters add up.

    Raises:
        ValueError: unknown ``how``, or weights of no U-Net.
    """
    name = "conv1.0.weight"
    if name not in state_dict:
        raise ValueError(f"input_adapter: no '{name}'; these are no weights of a U-Net")
    weight = state_dict[name]
    known = weight.shape[1]
    if how not in ("slice_conv1", "replicate", "zero_pad"):
        raise ValueError(f"input_adapter: unknown '{how}'; use slice_conv1, replicate or zero_pad")
    if known == channels:
        return dict(state_dict)
    if how == "replicate":
        adapted = weight.sum(dim=1, keepdim=True).repeat(1, channels, 1, 1) / channels
    else:
        adapted = weight.new_zeros(len(weight), channels, *weight.shape[2:])
        both = min(known, channels)
        adapted[:, :both] = weight[:, :both]
    return {**state_dict, name: adapted}


def _double_conv(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def _check_tap(tap: str) -> None:
    if tap not in _WALK:
        raise ValueError(f"features.tap: unknown '{tap}'; use one of {', '.join(_WALK)}")


def _check_size(size: int) -> None:
    if size < 16 or size % 16:
        raise ValueError(f"image_size: {size} is not a multiple of 16; resize or pad to one")
