"""The velocity field of flow matching on images: MONAI's diffusion U-Net.

The network is Rombach et al.'s (2022) as MONAI keeps it; what is ours is the split into patches in
front of it, which makes large images affordable, and the time that it is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

PATCHES = (4, 2, 1)
SMALLEST_GRID = 16
"""Patches a side that are left, at least, where nobody says how large they are."""
TIMES = 1000
"""The network's sinusoidal time embedding is made for step numbers of so many steps."""
GROUPS, HEAD_CHANNELS = 8, 32
"""Most groups of group norm, and most channels of an attention head."""
CHANNELS_PER_GROUP = 4
"""Fewest: time and class are added channel by channel, and a norm of one channel takes that off."""


class VelocityUNet(nn.Module):
    """v(x, t, class): (N, C, S, S), (N,) in [0, 1], (N,) int64 -> (N, C, S, S).

    Class ``n_classes`` means "no class". Attention is in the middle and on the coarsest of
    ``len(channels)`` levels, each with ``blocks`` residual blocks. The output starts at zero.

    Raises:
        ValueError: S is not divisible by ``patch`` times 2 for every halving.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        n_classes: int,
        channels: Sequence[int],
        blocks: int,
        patch: int | None,
    ) -> None:
        super().__init__()
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        n, side, _ = shape
        self.patch = patch or patch_of(n, side, channels)
        if side % (self.patch * coarsest(channels)):
            raise ValueError(side_problem(side, self.patch, channels))
        maps = n * self.patch**2
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=maps,
            out_channels=maps,
            num_res_blocks=blocks,
            channels=tuple(channels),
            attention_levels=tuple(i + 1 == len(channels) for i in range(len(channels))),
            norm_num_groups=groups_of(channels),
            num_head_channels=math.gcd(channels[-1], HEAD_CHANNELS),
            num_class_embeds=n_classes + 1,
        )

    def forward(self, x_NCHW: Tensor, t_N: Tensor, label_N: Tensor) -> Tensor:
        x = pixel_unshuffle(x_NCHW, self.patch)
        velocity = self.unet(x, TIMES * t_N, class_labels=label_N)
        return pixel_shuffle(velocity, self.patch)


def groups_of(channels: Sequence[int]) -> int:
    """How many groups group norm has, on every level."""
    most = min(GROUPS, max(1, min(channels) // CHANNELS_PER_GROUP))
    return max(n for n in range(1, most + 1) if all(c % n == 0 for c in channels))


def coarsest(channels: Sequence[int]) -> int:
    """Patches a side that become one on the coarsest level."""
    return 1 << (len(channels) - 1)


def patch_of(n_channels: int, side: int, channels: Sequence[int]) -> int:
    """The largest patch that leaves a fine enough grid and whose pixels the first level can hold:
    a velocity is as long as the noise in it, and noise has no shorter description."""
    return next(
        (
            patch
            for patch in PATCHES
            if side % (patch * coarsest(channels)) == 0
            and side // patch >= SMALLEST_GRID
            and n_channels * patch**2 <= channels[0]
        ),
        1,
    )


def side_problem(side: int, patch: int, channels: Sequence[int]) -> str:
    """What is wrong with images of ``side`` pixels, and what helps."""
    unit = patch * coarsest(channels)
    return (
        f"images of {side}x{side} pixels cannot be halved {len(channels) - 1} times in patches of "
        f"{patch}; use an image_size divisible by {unit}, or fewer channels"
    )
