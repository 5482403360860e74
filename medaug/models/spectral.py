"""Spectral norms (Miyato et al. 2018) of all layers of a network at once, or of several networks.

The numbers and the state are those of ``torch.nn.utils.parametrizations.spectral_norm``, which
takes each layer by itself: some 13 operations in a pass and as many backwards, most of them on a
handful of numbers. Here each layer has its products of a matrix and a vector to itself; the vectors
of all layers lie in one padded tensor, so that what is done to them is done once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.parametrizations import spectral_norm

from medaug.models.foreach import addcmul_, copy_, div

SMALLEST = 1e-24
"""A vector that is shorter is not normalised. Torch's is 1e-12, for vectors as long as the singular
value; here one of them is as long as its square."""


class SpectralNorm(nn.Module):
    """A weight over its largest singular value, estimated by one power iteration a pass in training
    mode: the parametrization that torch's ``spectral_norm`` registers, with its state."""

    _u: Tensor
    _v: Tensor

    def __init__(self, u: Tensor, v: Tensor) -> None:
        super().__init__()
        self.register_buffer("_u", u)
        self.register_buffer("_v", v)
        self.ready: Tensor | None = None
        """The normalised weight, where it has been made for a pass with those of other layers."""
        self.turns: dict[Hashable, _Turns] = {}
        """Of layers that are taken at once, of which this is the first, by how they lie."""

    def forward(self, weight: Tensor) -> Tensor:
        if self.ready is not None:
            return self.ready
        return normalised([[self]], [weight], [None])[0][0]


def spectrally_normalise(module: nn.Module) -> None:
    """Spectral norm on every convolution, linear layer and embedding."""
    for part in list(module.modules()):
        if isinstance(part, nn.Conv2d | nn.Linear | nn.Embedding):
            (parametrizations,) = spectral_norm(part).parametrizations.values()  # type: ignore[operator]
            parametrizations[0] = SpectralNorm(*parametrizations[0].buffers())


def normalised(
    norms: Sequence[Sequence[SpectralNorm]],
    weights: Sequence[Tensor],
    dtypes: Sequence[torch.dtype | None],
) -> list[Tensor]:
    """The weights (K, o, …) of each layer, K networks' side by side, over their spectral norms.

    Args:
        norms: of each layer, those of the K networks; all in training mode, or none.
        weights: (o, …) each, layer by layer, and of a layer network by network.
        dtypes: of each layer's result, if not the weights' own, in which all is computed.
    """
    k = len(norms[0])
    layouts = [_layout(weight.shape, weight.stride()) for weight in weights[::k]]
    in_order = all(layout.in_order for layout in layouts)
    turns = None if in_order else _turns(norms[0][0], weights[::k])
    return list(_Normalised.apply(norms, layouts, turns, dtypes, *weights))


class _Layout:
    """How a weight (o, …) lies in memory, which is the order in which its matrix (o, n) is read."""

    def __init__(self, shape: torch.Size, stride: tuple[int, ...]) -> None:
        axes = range(1, len(shape))
        self.order = sorted(axes, key=lambda axis: stride[axis], reverse=True)
        self.in_order = self.order == list(axes)
        self.rest, self.inner = shape[1:], [shape[axis] for axis in self.order]
        self.back = [2 + self.order.index(axis) for axis in axes]

    def matrix(self, weight: Tensor) -> Tensor:
        """(K, o, *rest) as (K, o, n): a view if it lies so."""
        if self.in_order:
            return weight.flatten(2)
        return weight.permute(0, 1, *(1 + axis for axis in self.order)).flatten(2)

    def weight(self, matrix: Tensor) -> Tensor:
        """The view (K, o, *rest) of a matrix (K, o, n)."""
        return matrix.view(*matrix.shape[:2], *self.inner).permute(0, 1, *self.back)

    def by_memory(self, row: Tensor) -> Tensor:
        """A row (n,) in the order of the axes, in that of memory."""
        return row.view(self.rest).permute([axis - 1 for axis in self.order]).flatten()


@cache
def _layout(shape: torch.Size, stride: tuple[int, ...]) -> _Layout:
    return _Layout(shape, stride)


class _Turns(NamedTuple):
    """Right singular vectors are kept in the order of the axes, and used in that of memory: numbers
    (L, 1, most) by which those of L layers are gathered."""

    to_memory: Tensor
    to_axes: Tensor


def _turns(first: SpectralNorm, weights: Sequence[Tensor]) -> _Turns:
    """Made once, and kept with the first layer: made in every pass they would save nothing."""
    device = weights[0].device
    key = device, *((weight.shape, weight.stride()) for weight in weights)
    if key not in first.turns:
        layouts = [_layout(weight.shape, weight.stride()) for weight in weights]
        lengths = [weight.numel() // len(weight) for weight in weights]
        most = max(*lengths, *map(len, weights))
        as_they_are = torch.arange(most, device=device).repeat(len(weights), 1, 1)
        to_memory = as_they_are.clone()
        for row, layout, n in zip(to_memory.unbind(), layouts, lengths, strict=True):
            row[0, :n] = layout.by_memory(row[0, :n])
        to_axes = torch.empty_like(to_memory).scatter_(-1, to_memory, as_they_are)
        first.turns[key] = _Turns(to_memory, to_axes)
    return first.turns[key]


class _Normalised(torch.autograd.Function):
    """Products have an ``out``, which is what keeps autocast from narrowing them."""

    @staticmethod
    def forward(
        ctx: Any,
        norms: Sequence[Sequence[SpectralNorm]],
        layouts: Sequence[_Layout],
        turns: _Turns | None,
        dtypes: Sequence[torch.dtype | None],
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        matrices = _matrices(layouts, weights, len(norms[0]))
        u, v, sigma = _singular(norms, turns, matrices)
        outs = []
        for matrix, dtype, s in zip(matrices, dtypes, sigma[..., None, None].unbind(), strict=True):
            outs.append(torch.div(matrix, s, out=torch.empty_like(matrix, dtype=dtype)))
        ctx.save_for_backward(u, v, sigma, *matrices)
        ctx.layouts = layouts
        return tuple(layout.weight(out) for layout, out in zip(layouts, outs, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """dW = (g - <g, W / sigma> u v^T) / sigma, u and v being constants."""
        u, v, sigma, *matrices = ctx.saved_tensors
        each = zip(ctx.layouts, grads, strict=True)
        of_matrices = [layout.matrix(grad).contiguous() for layout, grad in each]
        scaled = div(of_matrices, sigma[..., None, None].unbind())
        inner = torch.empty_like(sigma)
        for g, matrix, out in zip(scaled, matrices, inner[..., None, None].unbind(), strict=True):
            torch.bmm(g.flatten(1).unsqueeze(1), matrix.flatten(1).unsqueeze(2), out=out)
        us, vs = _rows(u * (inner / sigma)[..., None], v, matrices)
        addcmul_(scaled, [u.unsqueeze(2) for u in us], [v.unsqueeze(1) for v in vs], value=-1)
        each = zip(ctx.layouts, scaled, strict=True)
        return None, None, None, None, *(w for layout, g in each for w in layout.weight(g).unbind())


def _matrices(layouts: Sequence[_Layout], weights: Sequence[Tensor], k: int) -> list[Tensor]:
    """(K, o, n) of each layer, columns in the order of memory; of one network a view."""
    each = [layouts[i // k].matrix(weight[None]) for i, weight in enumerate(weights)]
    if k == 1:
        return each
    joined = [matrix.new_empty(k, *matrix.shape[1:]) for matrix in each[::k]]
    copy_([row for matrix in joined for row in matrix.split(1)], each)
    return joined


def _rows(u: Tensor, v: Tensor, matrices: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """(K, o) and (K, n) of each layer: views of (L, K, most) without what is padded."""
    of_u, of_v = (zip(x.unbind(), matrices, strict=True) for x in (u, v))
    us = [row.narrow(1, 0, matrix.shape[1]) for row, matrix in of_u]
    return us, [row.narrow(1, 0, matrix.shape[2]) for row, matrix in of_v]


def _singular(
    norms: Sequence[Sequence[SpectralNorm]], turns: _Turns | None, matrices: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors (L, K, most) padded with zeros, and values (L, K), of L layers.

    In training mode u and v of the last pass are improved by one power iteration, and kept.
    """
    most = max(length for matrix in matrices for length in matrix.shape[1:])
    both = matrices[0].new_zeros(2, len(norms), len(norms[0]), most)
    u, v = both[0], both[1]
    us, vs = _rows(u, v, matrices)
    kept_u, kept_v = ([getattr(n, x) for each in norms for n in each] for x in ("_u", "_v"))
    training = norms[0][0].training
    assert all(n.training is training for each in norms for n in each), "norms in both modes"
    copy_(_each(vs), kept_v)
    last_v = v if turns is None else v.gather(-1, turns.to_memory.expand_as(v))
    last_vs = _rows(u, last_v, matrices)[1]
    if not training:
        copy_(_each(us), kept_u)
        product = torch.zeros_like(u)
        _times(matrices, last_vs, _rows(product, v, matrices)[0])
        return u, last_v, (u * product).sum(-1)
    # Lengths are taken when both are there: W v, and of that W^T, sigma times as long.
    _times(matrices, last_vs, us)
    for matrix, one, other in zip(matrices, us, vs, strict=True):
        torch.bmm(one.unsqueeze(1), matrix, out=other.unsqueeze(1))
    lengths = both.norm(dim=-1)
    divisors = lengths.clamp_min(SMALLEST)
    sigma = lengths[1] / divisors[0]  # u^T W v, as v is going to be W^T u over its length
    both /= divisors[..., None]
    by_axes = v if turns is None else v.gather(-1, turns.to_axes.expand_as(v))
    copy_(kept_u + kept_v, _each(us) + _each(_rows(u, by_axes, matrices)[1]))
    return u, v, sigma


def _each(rows: Sequence[Tensor]) -> list[Tensor]:
    """Of each layer (K, …), network by network."""
    return [row for of_layer in rows for row in of_layer.unbind()]


def _times(matrices: Sequence[Tensor], vs: Sequence[Tensor], outs: Sequence[Tensor]) -> None:
    """Each of ``outs`` (K, o) = W v of (K, o, n) and (K, n)."""
    for matrix, v, out in zip(matrices, vs, outs, strict=True):
        torch.bmm(matrix, v.unsqueeze(2), out=out.unsqueeze(2))
