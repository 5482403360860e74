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

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medaug.models.at_once import AtOnce, Layers
from medaug.models.foreach import add_, copy_
from medaug.models.layers import PartedBatchNorm2d


def fuse(networks: Sequence[nn.Module], generators: Sequence[torch.Generator]) -> nn.Module:
    """One module that computes all ``networks``: arguments and results are (K*N, …), in order.

    ``generators``: network k's dropout draws from number k what it would draw alone from torch's
    default generator in the same state.

    Raises:
        ValueError: a layer that cannot be fused.
    """
    return AtOnce(_fused(networks, generators))


def _fused(networks: Sequence[nn.Module], generators: Sequence[torch.Generator]) -> nn.Module:
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
    if "inplace" in own_state:
        # Fused layers give views, and to change a view in place costs its gradient four copies.
        own_state["inplace"] = False
    shell.__dict__ = {**own_state, "_modules": {}}
    for name, _ in first.named_children():
        children = [network.get_submodule(name) for network in networks]
        shell._modules[name] = _fused(children, generators)
    return shell


class _Fused(Layers):
    """The same layer of all networks as one kernel."""

    def __init__(self, layers: Sequence[nn.Module], generators: Sequence[torch.Generator]) -> None:
        super().__init__(layers)
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
        each = self.parameter(name)
        return None if each is None else each.flatten(0, 1)

    def statistics(self, name: str) -> Tensor | None:
        """A buffer of all layers, end to end."""
        each = [getattr(layer, name) for layer in self.layers]
        return None if each[0] is None else torch.cat(each)


class _Conv2d(_Fused):
    def forward(self, x: Tensor) -> Tensor:
        one, k = self.layers[0], len(self.layers)
        weight, bias = self.joined("weight"), self.joined("bias")
        assert weight is not None
        how = (one.stride, one.padding, one.dilation, k * one.groups)
        return self.unfold(F.conv2d(self.fold(x), weight, bias, *how))


class _ConvTranspose2d(_Fused):
    def forward(self, x: Tensor) -> Tensor:
        one, k = self.layers[0], len(self.layers)
        weight, bias = self.joined("weight"), self.joined("bias")
        assert weight is not None
        how = (one.stride, one.padding, one.output_padding, k * one.groups, one.dilation)
        return self.unfold(F.conv_transpose2d(self.fold(x), weight, bias, *how))


class _Linear(_Fused):
    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(0, (len(self.layers), -1))
        weight, bias = self.parameter("weight"), self.parameter("bias")
        assert weight is not None
        if bias is None:
            return torch.bmm(x, weight.mT).flatten(0, 1)
        return torch.baddbmm(bias[:, None], x, weight.mT).flatten(0, 1)


class _Embedding(_Fused):
    def forward(self, index: Tensor) -> Tensor:
        rows = self.layers[0].num_embeddings
        k = torch.arange(len(self.layers), device=index.device)
        shifted = index.unflatten(0, (len(self.layers), -1)) + rows * k[:, None]
        weight = self.joined("weight")
        assert weight is not None
        return F.embedding(shifted.flatten(), weight)


class _BatchNorm(_Fused):
    """A channel of each network is a channel of its own here, with its own statistics."""

    def forward(self, x: Tensor, parts: int = 1) -> Tensor:
        one, k = self.layers[0], len(self.layers)
        if parts > 1 and one.training:  # see PartedBatchNorm2d: each part by itself, in turn
            each = x.chunk(k * parts)
            done = [self(torch.cat(each[part::parts])).chunk(k) for part in range(parts)]
            # Joined rather than stacked: that keeps channels innermost.
            return torch.cat([of_part[i] for i in range(k) for of_part in done])
        mean, variance = self.statistics("running_mean"), self.statistics("running_var")
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
        masked = []
        for rows, generator in zip(x.chunk(len(self.layers)), self.generators, strict=True):
            with drawing_from(generator):
                masked.append(one(rows))
        return torch.cat(masked)


@contextlib.contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Within it ``generator`` is in the place of torch's default one on its device."""
    if generator.device.type == "cpu":
        default = torch.default_generator
        default.set_state(generator.get_state())
        yield
        generator.set_state(default.get_state())
    else:
        # They share one state meanwhile, which a step that is recorded as a graph may do, too.
        default = torch.cuda.default_generators[generator.device.index or 0]
        before = default.graphsafe_get_state()
        default.graphsafe_set_state(generator)
        try:
            yield
        finally:  # out of memory, say: the next trial of this process draws from its own again
            default.graphsafe_set_state(before)


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
