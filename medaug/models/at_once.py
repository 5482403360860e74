"""A network's weights, made ready for each pass at once rather than layer by layer.

Under autocast every layer rounds its own weight and bias, and rounds their gradients back; a layer
with a spectral norm takes that by itself; and where networks are computed as one, each of its
layers gathers their weights. On a GPU each of these is a kernel that takes longer to launch than to
run. Here they are few operations on lists, and their gradients likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn.utils.parametrize import is_parametrized

from medaug.models.foreach import copy_
from medaug.models.spectral import SpectralNorm, normalised


class Layers(nn.Module):
    """The same layer of K networks. They own it, so here it is in a tuple: torch must not register
    it."""

    takes = ("weight", "bias")
    """Parameters that it reads."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers: tuple[Any, ...] = tuple(layers)
        self.ready: dict[str, Tensor] = {}
        """Name -> (K, …), for the time of a pass."""

    def parameter(self, name: str) -> Tensor | None:
        """(K, …), or None where the layers have none."""
        if name in self.ready:
            return self.ready[name]
        each = [getattr(layer, name) for layer in self.layers]
        return None if each[0] is None else torch.stack(each)


class _Wanted(NamedTuple):
    """A parameter of a pass: of one network's layer, or the same of K networks'."""

    name: str
    """In the network; of K, in the layer."""
    layers: Layers | None
    """Where it is one of K networks'."""
    parameters: tuple[Tensor, ...]
    norms: tuple[SpectralNorm, ...]
    """Of each, if it has them."""
    narrowed: bool
    """Whether autocast would have it in fewer bits."""


class AtOnce(nn.Module):
    """``network`` with its weights made ready at once; its arguments and results are the same.
    Weights with parametrizations of others are left to these.

    Gradients of all weights are done at once, too, after those of all rows: ranks that exchange
    large ones while the backward pass goes on had better not use it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        wanted = list(_wanted(network))
        self.plain = [w for w in wanted if not w.norms]
        self.normal = [w for w in wanted if w.norms]

    def compile(self, *args: Any, **keys: Any) -> None:
        """Compile the network; what makes its weights ready stays as it is."""
        self.network.compile(*args, **keys)

    def forward(self, *args: Any) -> Any:
        swapped: dict[str, Tensor] = {}
        ready = [*_plain(self.plain), *_normal(self.normal)]
        try:
            for w, tensor in ready:
                if w.layers is not None:
                    w.layers.ready[w.name] = tensor
                elif w.norms:
                    w.norms[0].ready = tensor.squeeze(0)
                else:
                    swapped[w.name] = tensor.squeeze(0)
            return functional_call(self.network, swapped, args, tie_weights=False)
        finally:
            for w, _ in ready:
                if w.layers is not None:
                    w.layers.ready.clear()
                elif w.norms:
                    w.norms[0].ready = None


def _wanted(network: nn.Module) -> Iterator[_Wanted]:
    for prefix, module in network.named_modules():
        several = module if isinstance(module, Layers) else None
        layers = [module] if several is None else several.layers
        first = layers[0]
        narrowed = isinstance(first, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        if several is None and not (narrowed or is_parametrized(first, "weight")):
            continue
        for name in ("weight", "bias") if several is None else several.takes:
            full = f"{prefix}.{name}" if several is None and prefix else name
            if is_parametrized(first, name):
                each = [layer.get_submodule(f"parametrizations.{name}") for layer in layers]
                if [type(norm) for one in each for norm in one] == [SpectralNorm] * len(each):
                    originals = tuple(one.original for one in each)
                    norms = tuple(one[0] for one in each)
                    yield _Wanted(full, several, originals, norms, narrowed)
            elif getattr(first, name, None) is not None:
                parameters = tuple(getattr(layer, name) for layer in layers)
                yield _Wanted(full, several, parameters, (), narrowed)


def _plain(wanted: Sequence[_Wanted]) -> Iterator[tuple[_Wanted, Tensor]]:
    """Each with (K, …); nothing of one network's that autocast does not narrow."""
    alike: dict[torch.dtype | None, list[_Wanted]] = {}  # a list of copies is one kernel if it is
    for w in wanted:
        dtype = _autocast_dtype(w)
        if w.layers is not None or dtype is not None:
            alike.setdefault(dtype, []).append(w)
    for dtype, these in alike.items():
        parameters = [p for w in these for p in w.parameters]
        yield from zip(
            these, _Gathered.apply(len(these[0].parameters), dtype, *parameters), strict=True
        )


def _normal(wanted: Sequence[_Wanted]) -> Iterator[tuple[_Wanted, Tensor]]:
    """Each with (K, …), over its spectral norm."""
    if wanted:
        dtypes = [_autocast_dtype(w) for w in wanted]
        parameters = [p for w in wanted for p in w.parameters]
        ready = normalised([w.norms for w in wanted], parameters, dtypes)
        yield from zip(wanted, ready, strict=True)


def _autocast_dtype(wanted: _Wanted) -> torch.dtype | None:
    """What autocast would narrow a parameter to; None where it does nothing."""
    parameter = wanted.parameters[0]
    device = parameter.device.type
    if not wanted.narrowed or parameter.dtype != torch.float32:
        return None
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


class _Gathered(torch.autograd.Function):
    """Parameters side by side, K networks' of each, in another dtype."""

    @staticmethod
    def forward(
        ctx: Any, k: int, dtype: torch.dtype | None, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        firsts = parameters[::k]
        ctx.lie = [(p.shape, p.stride(), p.dtype) for p in firsts]
        outs = tuple(
            p.new_empty_strided((k, *p.shape), (p.numel(), *p.stride()), dtype=dtype or p.dtype)
            for p in firsts
        )
        copy_([row for out in outs for row in out.unbind()], parameters)
        return outs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        outs, alike = [], []
        for g, (shape, stride, dtype) in zip(grads, ctx.lie, strict=True):
            lying = (shape.numel(), *stride)
            out = g.new_empty_strided((len(g), *shape), lying, dtype=dtype)
            outs.append(out)
            if g.stride() == lying:
                alike.append((out, g))
            else:  # in a list it would make a kernel of each of the others
                out.copy_(g)
        if alike:
            copy_([out for out, _ in alike], [g for _, g in alike])
        return None, None, *(one for out in outs for one in out.unbind())
