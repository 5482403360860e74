"""The same operation on many tensors, in few kernels: names of torch that are not public.

Each has a plain loop beside it, so that a torch without the name is slower, not broken.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_NORM = getattr(torch, "_foreach_norm", None)
_LERP = getattr(torch, "_foreach_lerp_", None)
_COPY = getattr(torch, "_foreach_copy_", None)
_ADD = getattr(torch, "_foreach_add_", None)
_DIV = getattr(torch, "_foreach_div", None)
_ADDCMUL = getattr(torch, "_foreach_addcmul_", None)


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Euclidean norms: scalars, in order."""
    if _NORM is not None:
        return list(_NORM(tensors))
    return [tensor.norm() for tensor in tensors]


def lerp_(targets: Sequence[Tensor], sources: Sequence[Tensor], share: float) -> None:
    """Move each target by ``share`` of the way to its source."""
    if _LERP is not None:
        _LERP(targets, sources, share)
        return
    for target, source in zip(targets, sources, strict=True):
        target.lerp_(source, share)


def copy_(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Write each source over its target."""
    if _COPY is not None:
        _COPY(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def add_(targets: Sequence[Tensor], others: Sequence[Tensor] | float) -> None:
    """Add to each target its other, or to all one number."""
    if _ADD is not None:
        _ADD(targets, others)
        return
    for i, target in enumerate(targets):
        target.add_(others if isinstance(others, int | float) else others[i])


def div(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """Each tensor over its other, broadcast."""
    if _DIV is not None:
        return list(_DIV(tensors, others))
    return [tensor / other for tensor, other in zip(tensors, others, strict=True)]


def addcmul_(
    targets: Sequence[Tensor], ones: Sequence[Tensor], others: Sequence[Tensor], value: float
) -> None:
    """Add to each target ``value`` times its one times its other, broadcast."""
    if _ADDCMUL is not None:
        _ADDCMUL(targets, ones, others, value=value)
        return
    for target, one, other in zip(targets, ones, others, strict=True):
        target.addcmul_(one, other, value=value)
