"""What keeps a discriminator from learning few rows by heart: augmentation of all that it sees, and
a bound on how sure it gets.

Augmentations are differentiable, the same for real and generated rows, and drawn row by row; they
use products and comparisons only, so no step waits for the device and a gradient has one value.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medaug.train.draws import Draws

SHIFT = 0.125
"""Of the side: largest translation (Zhao et al. 2020)."""
CUTOUT = 0.5
"""Side of the square that is cut out, of the side (Zhao et al. 2020)."""
CHANNELS_DROPPED = 0.1
"""Of a feature's channels: our choice, there is none to follow."""
FEW_CHANNELS = 8
"""Maps with fewer channels are images; the others are features."""
ADA_TARGET = 0.6
"""Of the mean sign of the discriminator on real rows (Karras et al. 2020)."""
ADA_ROWS = 5_000
"""So many rows take the probability from 0 to 1; the paper's 500,000 are more than a small study
trains on."""
ADA_MOST = 0.85
"""Augmentations leak into what is generated when hardly a row goes without (there, fig. 4)."""
LECAM_DECAY = 0.99


def augmented(x: Tensor, probability: Tensor, draws: Sequence[Draws], what: str) -> Tensor:
    """Rows (K*n, …) of K replicates, each row changed with ``probability`` (K,) by each of: colour,
    translation, cutout (images, Zhao et al. 2020); flips, translation, channel dropout (features);
    dropout of entries (vectors).

    ``what`` names the draw: real and generated rows draw apart.
    """
    u = torch.cat([each.uniform(what, 9) for each in draws])
    chosen = probability.repeat_interleave(len(x) // len(draws), output_size=len(x))
    column = lambda i: u[:, i].view(-1, *[1] * (x.ndim - 1))  # noqa: E731
    applies = column(8) < chosen.view(-1, *[1] * (x.ndim - 1))
    y = x.float()
    if x.ndim == 2 or x.shape[1] >= FEW_CHANNELS:
        dropped = torch.cat([each.uniform(f"{what}, channels", x.shape[1]) for each in draws])
        kept = (dropped >= CHANNELS_DROPPED).view(*dropped.shape, *[1] * (x.ndim - 2))
        y = y * kept
        if x.ndim == 4:
            y = _moved(y, column, flips=True)
    else:
        mean = y.mean((2, 3), keepdim=True)
        y = (y - mean) * (column(4) + 0.5) + mean + (column(5) - 0.5)
        y = _cut_out(_moved(y, column, flips=False), column)
    return torch.where(applies, y, x.float()).to(x.dtype)


def _moved(y: Tensor, column, *, flips: bool) -> Tensor:
    """Translated by whole pixels, zeros moved in; flipped by the toss of a coin."""
    for axis, (at, coin) in ((2, (0, 2)), (3, (1, 3))):
        side = y.shape[axis]
        most = round(SHIFT * side)
        shift = ((2 * most + 1) * column(at)[:, 0, 0]).floor() - most  # (n, 1)
        pixel = torch.arange(side, device=y.device, dtype=y.dtype)
        source = pixel - shift  # (n, side): where each pixel comes from
        if flips:
            source = torch.where(column(coin)[:, 0, 0] < 0.5, side - 1 - source, source)
        matrix = (source[:, :, None] == pixel).to(y.dtype)[:, None]  # (n, 1, side, side)
        y = matrix @ y if axis == 2 else y @ matrix.mT
    return y


def _cut_out(y: Tensor, column) -> Tensor:
    inside = torch.ones_like(y[:, :1], dtype=torch.bool)
    for axis, at in ((2, 6), (3, 7)):
        side = y.shape[axis]
        shape = [1, 1, -1, 1] if axis == 2 else [1, 1, 1, -1]
        pixel = torch.arange(side, device=y.device, dtype=y.dtype).view(shape)
        inside = inside & ((pixel + 0.5 - side * column(at)).abs() < CUTOUT * side / 2)
    return y * ~inside


def adapted(probability: Tensor, real_adv: Tensor, rows: int) -> Tensor:
    """ADA's next probability (K,) (Karras et al. 2020, sec. 3.1): up while the discriminator's mean
    sign on real rows (K,) is above the target, down while it is below."""
    step = torch.sign(real_adv - ADA_TARGET) * (rows / ADA_ROWS)
    return (probability + step).clamp(0, ADA_MOST)


def lecam(real: Tensor, fake: Tensor, anchor_real: Tensor, anchor_fake: Tensor) -> Tensor:
    """LeCam regularisation (Tseng et al. 2021, eq. 4) of logits (K, n), one-sided as in its
    reference code: real rows may not be much more real than generated ones were on average
    (``anchor_fake``, (K,)), and the other way round."""
    above = (real.float() - anchor_fake[:, None]).relu().square().mean(-1)
    below = (anchor_real[:, None] - fake.float()).relu().square().mean(-1)
    return above + below
