"""Flow matching with straight paths (Lipman et al. 2023; rectified flow, Liu et al. 2023).

x_t = (1 - t) x0 + t x1 leads from noise x0 ~ N(0, I) to a row x1; a field v(x_t, t, class) learns
its velocity x1 - x0, and rows come from following the field from t = 0 to 1. All functions take
rows of any number of axes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Field = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Rows (N, ...), times (N,) in [0, 1], classes (N,) int64, one after the last for "no class" ->
velocities (N, ...)."""


def velocity_loss(field: Field, x0: Tensor, x1: Tensor, t_N: Tensor, label_N: Tensor) -> Tensor:
    """Mean squared error of the velocity (Lipman et al. 2023, eq. 23 with sigma_min 0): scalar."""
    t = t_N.view(-1, *(1,) * (x1.ndim - 1))
    velocity = field(torch.lerp(x0, x1, t), t_N, label_N)
    return (velocity.float() - (x1 - x0)).square().mean()


def without_class(label_N: Tensor, hidden_N: Tensor, n_classes: int) -> Tensor:
    """Labels in which those that are ``hidden`` say "no class", which guidance needs."""
    return label_N.masked_fill(hidden_N, n_classes)


def guided_velocity(
    field: Field, x: Tensor, t: float, label_N: Tensor, n_classes: int, guidance: float
) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): v0 + guidance (v_class - v0), where v0 is
    that of no class. 1 is the conditional field itself, in one pass instead of two."""
    at = x.new_full((len(x),), t)
    velocity = field(x, at, label_N)
    if guidance == 1:
        return velocity
    free = field(x, at, torch.full_like(label_N, n_classes))
    return torch.lerp(free, velocity, guidance)


def follow_field(
    field: Field, x0: Tensor, label_N: Tensor, n_classes: int, *, guidance: float, steps: int
) -> Tensor:
    """Rows (N, ...) from noise, by Heun's method (second order) in ``steps`` equal steps."""
    x = x0
    for step in range(steps):
        t, dt = step / steps, 1 / steps
        slope = guided_velocity(field, x, t, label_N, n_classes, guidance)
        ahead = guided_velocity(field, x + dt * slope, t + dt, label_N, n_classes, guidance)
        x = x + dt * 0.5 * (slope + ahead)
    return x
