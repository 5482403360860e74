"""Classical augmentation of images and their masks, on tensors.

What happens to a sample is a pure function of its own seed: not of its place in the batch, the
rank that holds it, or the image size (a seed bends a 60-pixel image as it bends a 240-pixel one).
All geometry of a batch becomes one sampling grid, so every pixel is interpolated once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from medaug.spec.study import AugmentSpec

NO_CHANGE = AugmentSpec(
    hflip=0, vflip=0, elastic_alpha=0, rotation_deg=0, shift=0, shear=0, zoom=(1, 1)
)
STUDY_A = AugmentSpec()
"""Table 1 of Mehra et al. (arXiv 2209.14097)."""
STUDY_D_EACH = {
    "flip": NO_CHANGE.model_copy(update={"hflip": 0.5}),
    "crop": NO_CHANGE.model_copy(update={"crop": 0.2}),
    "clip": NO_CHANGE.model_copy(update={"clip": 0.1}),
    "brightness": NO_CHANGE.model_copy(update={"brightness": 0.2}),
    "contrast": NO_CHANGE.model_copy(update={"contrast": 0.2}),
}
"""The five rivals of the GAN in Kora Venu and Ravula (2021). The paper names them and gives no
strengths: these are our choice."""
STUDY_D = NO_CHANGE.model_copy(
    update={"hflip": 0.5, "crop": 0.2, "clip": 0.1, "brightness": 0.2, "contrast": 0.2}
)
"""The five of study D together."""

REFERENCE_PIXELS = 240.0
"""Elastic alpha and sigma count pixels of an image this wide (study A's)."""
_KNOTS_PER_SIGMA = 6.0


def augment(
    x_NCHW: torch.Tensor,
    mask_NHW: torch.Tensor | None,
    spec: AugmentSpec,
    seeds: Sequence[int],
    *,
    fill: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Transform each image, and its mask alike, at random.

    Args:
        x_NCHW: square images, floating point, on any device; any intensity scale.
        mask_NHW: label maps of any integer type, sampled to the nearest pixel; 0 outside.
        seeds: one per image.
        fill: intensity of what is moved in from outside the image.

    Returns:
        Tensors of the same shapes, types and devices; the arguments are never written to.

    Raises:
        ValueError: images are not square, or there is not one seed per image.
    """
    n, _, height, width = x_NCHW.shape
    if height != width:
        raise ValueError(f"images are {height}x{width}; pad or resize them to a square first")
    if len(seeds) != n:
        raise ValueError(f"{n} images but {len(seeds)} seeds; give one seed per image")
    if n == 0:
        return x_NCHW.clone(), None if mask_NHW is None else mask_NHW.clone()
    u, noise = _draw(spec, seeds, width, x_NCHW.device)
    x, mask = x_NCHW.float(), mask_NHW
    x = _flip_and_turn(spec, u, x)
    if mask is not None:
        mask = _flip_and_turn(spec, u, mask)
    if _resamples(spec):
        grid = F.affine_grid(_affine(spec, u), [n, 1, width, width], align_corners=False)
        if noise is not None:
            grid = grid + _elastic(spec, noise, width)
        # Zero padding is the only constant that grid_sample knows: move `fill` to zero and back.
        x = F.grid_sample(x - fill, grid, "bilinear", align_corners=False) + fill
        if mask is not None:
            sampled = F.grid_sample(mask[:, None].float(), grid, "nearest", align_corners=False)
            mask = sampled[:, 0].to(mask.dtype)
    return _intensity(spec, u, x).to(x_NCHW.dtype), mask


def times_four(x: torch.Tensor) -> torch.Tensor:
    """Study C's fourfold set: originals, left-right flips, up-down flips, quarter turns.

    ``x`` is (N, ..., S, S), images or masks; the result is (4N, ..., S, S), copy after copy, so
    the labels are ``label.repeat(4)``.

    Raises:
        ValueError: images are not square.
    """
    if x.shape[-1] != x.shape[-2]:
        raise ValueError(f"images are {x.shape[-2]}x{x.shape[-1]}; pad or resize to a square first")
    return torch.cat([x, x.flip(-1), x.flip(-2), x.rot90(1, (-2, -1))])


Uniform = dict[str, torch.Tensor]

_PURPOSES = (
    *("hflip", "vflip", "quarters", "rotation", "shear", "shift_x", "shift_y", "zoom_x", "zoom_y"),
    *("crop", "crop_x", "crop_y", "clip", "contrast", "brightness"),
)


def _draw(
    spec: AugmentSpec, seeds: Sequence[int], size: int, device: torch.device
) -> tuple[Uniform, torch.Tensor | None]:
    """Purpose -> (N,) in [0, 1), drawn whether used or not; elastic noise (N, 2, knots, knots).

    Drawn on the CPU, where a seed gives the same numbers beside any GPU, and sent in two copies
    that nobody waits for; all that is made of them is computed on ``device``.
    """
    knots = 0
    if spec.elastic_alpha > 0:
        # Enough knots to carry a field of this smoothness, but no more than there are pixels.
        wanted = _KNOTS_PER_SIGMA * REFERENCE_PIXELS / max(spec.elastic_sigma, 1.0)
        knots = min(size, math.ceil(wanted))
    uniform, noise = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        uniform.append(torch.rand(len(_PURPOSES), generator=generator))
        noise.append(torch.rand(2, knots, knots, generator=generator))
    columns = torch.stack(uniform).to(device, non_blocking=True).unbind(1)
    field = torch.stack(noise).to(device, non_blocking=True) if knots else None
    return dict(zip(_PURPOSES, columns, strict=True)), field


def _signed(u: torch.Tensor) -> torch.Tensor:
    """[0, 1) to [-1, 1)."""
    return 2 * u - 1


def _flip_and_turn(spec: AugmentSpec, u: Uniform, x: torch.Tensor) -> torch.Tensor:
    """The transforms that only move pixels, without interpolation; ``x`` is (N, ..., S, S)."""

    def where(chosen: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        return torch.where(chosen.view(-1, *[1] * (x.dim() - 1)), moved, x)

    if spec.hflip:
        x = where(u["hflip"] < spec.hflip, x.flip(-1))
    if spec.vflip:
        x = where(u["vflip"] < spec.vflip, x.flip(-2))
    if spec.rot90:
        # 0 to 3 quarter turns, as a half turn and a quarter turn that each happen or not.
        quarters = torch.floor(4 * u["quarters"])
        x = where(quarters >= 2, x.rot90(2, (-2, -1)))
        x = where(quarters % 2 == 1, x.rot90(1, (-2, -1)))
    return x


def _resamples(spec: AugmentSpec) -> bool:
    """Whether pixels are interpolated. It must not depend on the draws: neighbours in a batch
    would otherwise change the last bits of each other."""
    continuous = (spec.elastic_alpha, spec.rotation_deg, spec.shift, spec.shear, spec.crop)
    return any(continuous) or spec.zoom != (1, 1)


def _affine(spec: AugmentSpec, u: Uniform) -> torch.Tensor:
    """(N, 2, 3): output to input coordinates, both [-1, 1] from edge to edge."""
    angle = _signed(u["rotation"]) * math.radians(spec.rotation_deg)
    matrix = _matrix(angle.cos(), -angle.sin(), 0, angle.sin(), angle.cos(), 0)
    matrix = _matrix(1, spec.shear * _signed(u["shear"]), 0, 0, 1, 0) @ matrix
    low, high = spec.zoom
    zoom_x, zoom_y = (low + (high - low) * u[key] for key in ("zoom_x", "zoom_y"))
    # A shift of 10 % of the width is 0.2 of the coordinates' range of 2.
    shift_x, shift_y = (2 * spec.shift * _signed(u[key]) for key in ("shift_x", "shift_y"))
    matrix = _matrix(1 / zoom_x, 0, shift_x, 0, 1 / zoom_y, shift_y) @ matrix
    cut = spec.crop * u["crop"]
    crop_x, crop_y = (cut * _signed(u[key]) for key in ("crop_x", "crop_y"))
    return (_matrix(1 - cut, 0, crop_x, 0, 1 - cut, crop_y) @ matrix)[:, :2]


def _matrix(*rows: torch.Tensor | float) -> torch.Tensor:
    """Homogeneous (N, 3, 3) from the six upper entries, numbers or (N,) tensors."""
    one = next(entry for entry in rows if isinstance(entry, torch.Tensor))
    entries = [
        entry.float() if isinstance(entry, torch.Tensor) else torch.full_like(one, entry)
        for entry in (*rows, 0, 0, 1)
    ]
    n = len(one)
    return torch.stack(entries, dim=1).reshape(n, 3, 3)


def _elastic(spec: AugmentSpec, noise: torch.Tensor, size: int) -> torch.Tensor:
    """Displacements (N, S, S, 2) after Simard et al. (2003): smoothed uniform noise times alpha.

    The noise lives on a lattice of knots and is smoothed there, by sigma in knots; alpha shrinks
    likewise, which gives the displacement that noise in every pixel would give.
    """
    knots = noise.shape[-1]
    knots_per_pixel = knots / REFERENCE_PIXELS
    two_variances = 2 * max(spec.elastic_sigma * knots_per_pixel, 1e-3) ** 2
    position = torch.arange(knots, device=noise.device)
    kernel = torch.exp(-((position[:, None] - position) ** 2) / two_variances)
    # Weights sum to 1 in the middle; at the border the field fades, as with zero padding.
    around = torch.arange(-4 * knots, 4 * knots + 1, device=noise.device)
    kernel /= torch.exp(-(around**2) / two_variances).sum()
    knots_moved = spec.elastic_alpha * knots_per_pixel**2 * (kernel @ _signed(noise) @ kernel.T)
    field = F.interpolate(knots_moved, (size, size), mode="bilinear", align_corners=False)
    return field.permute(0, 2, 3, 1) * (2 / knots)


def _intensity(spec: AugmentSpec, u: Uniform, x: torch.Tensor) -> torch.Tensor:
    """Clipping, contrast, brightness; strengths are shares of each image's own range."""
    if not (spec.clip or spec.contrast or spec.brightness):
        return x
    cut, factor, offset = (u[key].view(-1, 1, 1, 1) for key in _PURPOSES[-3:])
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    span, mean = high - low, x.mean((1, 2, 3), keepdim=True)
    cut = min(spec.clip, 0.5) * cut * span
    x = torch.clamp(x, low + cut, high - cut)
    factor = (1 + spec.contrast * _signed(factor)).clamp(min=0)
    return mean + factor * (x - mean) + spec.brightness * _signed(offset) * span
