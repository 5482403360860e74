"""K networks of one architecture, computed in one pass.

Replicates of a configuration differ in seed and data only, so each of their layers can be one
kernel: convolutions become grouped, linear layers batched products, batch norm has K times as many
channels (horizontal fusion: HFTA, Wang et al. 2021). The K networks stay what they are: a pass
reads their parameters, moves their buffers, and gives each its own gradients, so that optimisers,
averages and checkpoints need not know.

Rows of all networks lie end to end, network after network, which lets the networks' own ``forward``
run unchanged: whatever has no weights works row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from medaug.models.foreach import add_, copy_
from medaug.models.layers import PartedBatchNorm2d

T = TypeVar("T")


def fuse(networks: Sequence[nn.Module], generators: Sequence[torch.Generator]) -> nn.Module:
    """One module that computes all ``networks``: arguments and results are (K*N, …), in order.

    ``generators``: network k's dropout draws from number k what it would draw alone from torch's
    default generator in the same state.

    Raises:
        ValueError: a layer that cannot be fused.
    """
    first = networks[0]
    for kind in type(first).__mro__:
        if kind in _LAYERS:
            return _LAYERS[kind](networks, generators)
    own = [*first.parameters(recurse=False), *first.buffers(recurse=False)]
    if own or first._forward_hooks:
        raise ValueError(f"{type(first).__name__} cannot be fused; train replicates separately")
    # The container's own code runs, on fused children; its hyperparameters are those of the first.
    shell = first.__new__(type(first))
    # A compiled first network would take its compiled code along, and be the only one to learn.
    own_state = {k: v for k, v in first.__dict__.items() if k != "_compiled_call_impl"}
    shell.__dict__ = {**own_state, "_modules": {}}
    for name, _ in first.named_children():
        children = [network.get_submodule(name) for network in networks]
        shell._modules[name] = fuse(children, generators)
    return shell


class _Fused(nn.Module):
    """The same layer of all networks, in a tuple, for they own it: torch must not register it."""

    def __init__(self, layers: Sequence[nn.Module], generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.layers: tuple[Any, ...] = tuple(layers)
        self.generators = tuple(generators)

    def fold(self, x: Tensor) -> Tensor:
        """(K*N, C, …) to (N, K*C, …), channels innermost in memory where there is a map."""
        x = x.unflatten(0, (len(self.layers), -1))
        if x.ndim < 5:
            return x.transpose(0, 1).flatten(1, 2)
        return x.permute(1, 3, 4, 0, 2).flatten(3).permute(0, 3, 1, 2)

    def unfold(self, x: Tensor) -> Tensor:
        """What :meth:`fold` undoes."""
        x = x.unflatten(1, (len(self.layers), -1))
        if x.ndim < 5:
            return x.transpose(0, 1).flatten(0, 1)
        return x.permute(1, 0, 3, 4, 2).flatten(0, 1).permute(0, 3, 1, 2)

    def joined(self, name: str) -> Tensor | None:
        """A parameter of all layers, joined along its first axis."""
        each = [getattr(layer, name) for layer in self.layers]
        return None if each[0] is None else torch.cat(each)

    def weights(self) -> Tensor:
        """(K, …) weights, spectrally normalised where the layers are."""
        first = self.layers[0]
        if not is_parametrized(first, "weight"):
            return torch.stack([layer.weight for layer in self.layers])
        parametrizations = [layer.parametrizations.weight for layer in self.layers]
        original = torch.stack([each.original for each in parametrizations])
        return _spectrally_normal(original, [each[0] for each in parametrizations])


def _spectrally_normal(weight: Tensor, norms: Sequence[Any]) -> Tensor:
    """``torch.nn.utils.parametrizations.spectral_norm`` of (K, …) weights by a batched product.

    Outside of autocast, which narrows batched products but not the products of one matrix that
    torch's own takes: a fused replicate would divide by another norm than one alone.
    """
    first = norms[0]
    axis = first.dim + 1  # the first is K
    matrix = weight.movedim(axis, 1).flatten(2)
    u, v = (torch.stack([getattr(norm, name) for norm in norms]) for name in ("_u", "_v"))
    with torch.autocast(weight.device.type, enabled=False):
        if first.training:
            with torch.no_grad():
                for _ in range(first.n_power_iterations):
                    u = F.normalize((matrix @ v[..., None])[..., 0], dim=1, eps=first.eps)
                    v = F.normalize((u[:, None] @ matrix)[:, 0], dim=1, eps=first.eps)
            copy_([norm._u for norm in norms] + [norm._v for norm in norms], [*u, *v])
        sigma = torch.einsum("ko,koi,ki->k", u, matrix, v)
        return weight / sigma.view(-1, *[1] * (weight.ndim - 1))


class _Conv2d(_Fused):
    def forward(self, x: Tensor) -> Tensor:
        one, k = self.layers[0], len(self.layers)
        weight = self.weights().flatten(0, 1).contiguous(memory_format=torch.channels_last)
        bias = self.joined("bias")
        how = (one.stride, one.padding, one.dilation, k * one.groups)
        return self.unfold(F.conv2d(self.fold(x), weight, bias, *how))


class _ConvTranspose2d(_Fused):
    def forward(self, x: Tensor) -> Tensor:
        one, k = self.layers[0], len(self.layers)
        weight = self.weights().flatten(0, 1).contiguous(memory_format=torch.channels_last)
        bias = self.joined("bias")
        how = (one.stride, one.padding, one.output_padding, k * one.groups, one.dilation)
        return self.unfold(F.conv_transpose2d(self.fold(x), weight, bias, *how))


class _Linear(_Fused):
    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(0, (len(self.layers), -1))
        weight = self.weights().mT
        if self.layers[0].bias is None:
            return torch.bmm(x, weight).flatten(0, 1)
        bias = torch.stack([layer.bias for layer in self.layers])
        return torch.baddbmm(bias[:, None], x, weight).flatten(0, 1)


class _Embedding(_Fused):
    def forward(self, index: Tensor) -> Tensor:
        rows = self.layers[0].num_embeddings
        k = torch.arange(len(self.layers), device=index.device)
        shifted = index.unflatten(0, (len(self.layers), -1)) + rows * k[:, None]
        return F.embedding(shifted.flatten(), self.weights().flatten(0, 1))


class _BatchNorm(_Fused):
    """A channel of each network is a channel of its own here, with its own statistics."""

    def forward(self, x: Tensor, parts: int = 1) -> Tensor:
        one, k = self.layers[0], len(self.layers)
        if parts > 1 and one.training:  # see PartedBatchNorm2d: each part by itself, in turn
            each = x.chunk(k * parts)
            done = [self(torch.cat(each[part::parts])).chunk(k) for part in range(parts)]
            # Joined rather than stacked: that keeps channels innermost.
            return torch.cat([of_part[i] for i in range(k) for of_part in done])
        mean, variance = self.joined("running_mean"), self.joined("running_var")
        affine = (self.joined("weight"), self.joined("bias"))
        use_batch = one.training or mean is None
        y = F.batch_norm(
            self.fold(x), mean, variance, *affine, use_batch, one.momentum or 0.0, one.eps
        )
        if one.training and mean is not None and variance is not None:
            kept = [n.running_mean for n in self.layers] + [n.running_var for n in self.layers]
            copy_(kept, [*mean.chunk(k), *variance.chunk(k)])
            add_([norm.num_batches_tracked for norm in self.layers], 1)
        return self.unfold(y)


class _PartedBatchNorm(_BatchNorm):
    takes_parts = True


class _Dropout(_Fused):
    """Each network's mask is the one that it would draw alone."""

    def forward(self, x: Tensor) -> Tensor:
        one = self.layers[0]
        if not (one.training and one.p):
            return x
        rows = zip(x.chunk(len(self.layers)), self.generators, strict=True)
        return torch.cat([drawing_from(g, partial(one, x)) for x, g in rows])


def drawing_from(generator: torch.Generator, draw: Callable[[], T]) -> T:
    """``draw()`` with ``generator`` in the place of torch's default one on its device."""
    device = generator.device
    default = (
        torch.default_generator
        if device.type == "cpu"
        else torch.cuda.default_generators[device.index or 0]
    )
    default.set_state(generator.get_state())
    drawn = draw()
    generator.set_state(default.get_state())
    return drawn


_LAYERS: dict[type, type[_Fused]] = {
    nn.Conv2d: _Conv2d,
    nn.ConvTranspose2d: _ConvTranspose2d,
    nn.Linear: _Linear,
    nn.Embedding: _Embedding,
    nn.BatchNorm1d: _BatchNorm,
    nn.BatchNorm2d: _BatchNorm,
    PartedBatchNorm2d: _PartedBatchNorm,
    nn.Dropout: _Dropout,
}
