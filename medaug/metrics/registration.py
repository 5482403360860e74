"""Affine registration of image pairs, and their agreement scale by scale.

Warps follow ``torch.nn.functional.affine_grid``: a (2, 3) matrix takes the coordinates of the
fixed image (x to the right, y down, both from -1 to 1 over the image) to those of the moving one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

LONGEST_STEP = 0.1
"""Bound on one update of any matrix entry; keeps a bad start from running away."""
FARTHEST = 0.25
"""A pair whose warp moved further than this from the identity is not the same picture."""
SIGNAL = 0.05
"""An octave is compared when both images hold at least this share of their contrast in it."""


def identity(n: int) -> torch.Tensor:
    """(n, 2, 3) warps that move nothing."""
    return torch.eye(2, 3).repeat(n, 1, 1)


def warp(image_N1SS: torch.Tensor, theta_N23: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The image seen through ``theta`` and the mask of what lies inside it, both (N, 1, S, S)."""
    grid = F.affine_grid(theta_N23, list(image_N1SS.shape), align_corners=False)
    seen = F.grid_sample(image_N1SS, grid, padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1).all(dim=-1).unsqueeze(1)
    return seen, inside.to(seen.dtype)


def register(
    fixed_N1SS: torch.Tensor, moving_N1SS: torch.Tensor, theta_N23: torch.Tensor, iterations: int
) -> torch.Tensor:
    """Warps of ``moving`` that match ``fixed`` up to gain and offset, from the start ``theta``.

    Inverse compositional Gauss-Newton (Baker & Matthews 2004, IJCV 56): the fixed image's
    linearisation ``a f + b + a J delta`` is factored once and reused by every iteration; gain
    ``a`` and offset ``b`` are unknowns of the same least squares, which makes the fit blind to
    brightness and contrast as the enhanced correlation coefficient is.
    """
    if iterations == 0:
        return theta_N23
    n, _, size, _ = fixed_N1SS.shape
    y, x = _coordinates(size)
    f = fixed_N1SS.flatten(1)
    f_x, f_y = _gradient(fixed_N1SS)
    model = torch.stack(
        [f, torch.ones_like(f), f_x * x, f_x * y, f_x, f_y * x, f_y * y, f_y], dim=1
    )
    weighted = model * _taper(size)
    normal = weighted @ model.transpose(1, 2)
    ridge = 1e-4 * normal.diagonal(dim1=1, dim2=2) + 1e-6
    solver = torch.linalg.solve(normal + torch.diag_embed(ridge), weighted)
    for _ in range(iterations):
        seen, _ = warp(moving_N1SS, theta_N23)
        fit = (solver @ seen.flatten(1).unsqueeze(2)).squeeze(2)
        step = (fit[:, 2:] / fit[:, :1].clamp(min=0.1)).clamp(-LONGEST_STEP, LONGEST_STEP)
        theta_N23 = _compose_with_inverse(theta_N23, step.view(n, 2, 3))
    return theta_N23


def agreement(
    fixed_N1SS: torch.Tensor, moving_N1SS: torch.Tensor, theta_N23: torch.Tensor
) -> torch.Tensor:
    """Correlation of registered pairs in the octave of their grid (:func:`octave`); (N,).

    Pictures have unit variance. NaN where one of the two holds no signal in this octave, 0 where
    the warp strayed.
    """
    seen, inside = warp(moving_N1SS, theta_N23)
    weight = inside.flatten(1) * _taper(fixed_N1SS.shape[-1])
    weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-12)
    a, b = octave(fixed_N1SS).flatten(1), octave(seen).flatten(1)
    a = a - (weight * a).sum(dim=1, keepdim=True)
    b = b - (weight * b).sum(dim=1, keepdim=True)
    sd_a, sd_b = (weight * a * a).sum(dim=1).sqrt(), (weight * b * b).sum(dim=1).sqrt()
    r = (weight * a * b).sum(dim=1) / (sd_a * sd_b).clamp(min=1e-12)
    r[torch.minimum(sd_a, sd_b) < SIGNAL] = torch.nan
    strayed = (theta_N23 - identity(len(r))).abs().amax(dim=(1, 2)) > FARTHEST
    return torch.where(strayed, 0.0, r)


def octave(picture_N1SS: torch.Tensor) -> torch.Tensor:
    """Difference of Gaussians of sigma 1 and 2 pixels: the detail that this grid adds."""
    return gaussian_blur(picture_N1SS, 1) - gaussian_blur(picture_N1SS, 2)


def gaussian_blur(image_N1SS: torch.Tensor, sigma: float) -> torch.Tensor:
    """Separable Gaussian filter, edges repeated."""
    radius = int(3 * sigma + 0.5)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    rows = F.conv2d(F.pad(image_N1SS, (radius, radius, 0, 0), mode="replicate"), kernel)
    columns = F.pad(rows, (0, 0, radius, radius), mode="replicate")
    return F.conv2d(columns, kernel.transpose(2, 3))


def _compose_with_inverse(theta_N23: torch.Tensor, step_N23: torch.Tensor) -> torch.Tensor:
    """theta o (identity + step)^-1."""
    last_row = torch.tensor([0.0, 0.0, 1.0]).expand(len(theta_N23), 1, 3)
    moved = torch.cat([identity(len(step_N23)) + step_N23, last_row], dim=1)
    return theta_N23 @ torch.linalg.inv(moved)


def _coordinates(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    centre = (torch.arange(size) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    return y.flatten(), x.flatten()


def _gradient(image_N1SS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Central differences per unit of coordinate (half the image), flattened: d/dx, d/dy."""
    size = image_N1SS.shape[-1]
    wide = F.pad(image_N1SS, (1, 1, 1, 1), mode="replicate")
    x = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) * (size / 4)
    y = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) * (size / 4)
    return x.flatten(1), y.flatten(1)


def _taper(size: int) -> torch.Tensor:
    """Weights that fall to zero at the border, which a cropped copy does not have; flattened."""
    distance = 1 - ((torch.arange(size) + 0.5) * (2 / size) - 1).abs()
    side = (distance / 0.2).clamp(max=1)
    return torch.outer(side, side).flatten()
