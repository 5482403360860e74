"""Spectral norms of many layers at once are torch's, layer by layer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from medaug.models.acgan import AcganDiscriminator, AcganGenerator
from medaug.models.at_once import AtOnce
from medaug.models.fused import fuse
from medaug.models.layers import channels_innermost
from medaug.models.spectral import SpectralNorm, normalised, spectrally_normalise

EXACT: dict[str, float] = {"rtol": 1e-10, "atol": 1e-12}
"""In float64; in float32 rounding hides what a wrong formula would do."""


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(5, 16, 3), nn.Tanh(), nn.Conv2d(16, 8, 3, bias=False))
        self.head = nn.Linear(8 * 16, 3)
        self.embed = nn.Embedding(2, 7)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.head(self.maps(x).flatten(1))
        return torch.cat([h, self.embed(label)], 1)


def _torchs(network: nn.Module) -> None:
    for part in list(network.modules()):
        if isinstance(part, nn.Conv2d | nn.Linear | nn.Embedding):
            spectral_norm(part)


def _networks(seed: int = 0, innermost: bool = True) -> tuple[nn.Module, nn.Module]:
    """Ours and torch's, from one seed."""
    networks = []
    for how in (spectrally_normalise, _torchs):
        torch.manual_seed(seed)
        network = Layers().double()
        how(network)
        networks.append(channels_innermost(network) if innermost else network)
    return networks[0], networks[1]


def _inputs(n: int = 4) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 5, 8, 8, dtype=torch.float64), torch.arange(n) % 2


def _learn(forward: Any, network: nn.Module, *given: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    forward(*given).pow(3).sum().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def test_state_is_torchs_from_the_start() -> None:
    """So checkpoints of earlier versions, whose norms were torch's, are read, and the other way."""
    ours, torchs = _networks()
    assert ours.state_dict().keys() == torchs.state_dict().keys()
    assert sum(isinstance(m, SpectralNorm) for m in ours.modules()) == 4
    for name, tensor in torchs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    _learn(torchs, torchs, *_inputs())
    ours.load_state_dict(torchs.state_dict())
    given = _inputs()
    torch.testing.assert_close(ours.eval()(*given), torchs.eval()(*given), **EXACT)


@pytest.mark.parametrize("innermost", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_values_gradients_and_iterations_are_torchs(
    at_once: bool, training: bool, innermost: bool
) -> None:
    ours, torchs = (network.train(training) for network in _networks(innermost=innermost))
    forward = AtOnce(ours) if at_once else ours
    for _ in range(3):
        given = _inputs()
        got, expected = _learn(forward, ours, *given), _learn(torchs, torchs, *given)
        assert got.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(got[name], gradient, **EXACT, msg=name)
            assert got[name].stride() == ours.get_parameter(name).stride(), name
        for name, tensor in torchs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], tensor, **EXACT, msg=name)


@pytest.mark.parametrize("size", [0.0, 1e-10, 1e10])
def test_weights_of_any_size(size: float) -> None:
    """Where nothing is left to divide by, torch's are NaN as well, and its vectors 0."""
    ours, torchs = _networks()
    given = _inputs()
    with torch.no_grad():
        for network in (ours, torchs):
            for name, parameter in network.named_parameters():
                if "original" in name:
                    parameter.mul_(size)
    for network, forward in ((ours, AtOnce(ours)), (torchs, torchs)):
        out = forward(*given)
        assert out.isfinite().all() == (size > 0), network
    torch.testing.assert_close(ours.state_dict(), torchs.state_dict(), **EXACT)
    got, expected = AtOnce(ours.eval())(*given), torchs.eval()(*given)
    torch.testing.assert_close(got, expected, **EXACT, equal_nan=True)


@pytest.mark.parametrize("training", [True, False])
def test_norms_of_several_networks_are_those_of_each(training: bool) -> None:
    pairs = [_networks(seed) for seed in range(3)]
    fused = fuse([ours.train(training) for ours, _ in pairs], [torch.Generator()] * 3)
    given = [_inputs() for _ in pairs]
    x, label = (torch.cat(each) for each in zip(*given, strict=True))
    fused(x, label).pow(3).sum().backward()
    for (ours, torchs), mine in zip(pairs, given, strict=True):
        for name, gradient in _learn(torchs.train(training), torchs, *mine).items():
            got = ours.get_parameter(name).grad
            torch.testing.assert_close(got, gradient, **EXACT, msg=name)
        for name, tensor in torchs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], tensor, **EXACT, msg=name)


@pytest.mark.parametrize("k", [1, 2])
def test_a_copy_has_weights_and_norms_of_its_own(k: int) -> None:
    """A deep copy, which then learns, leaves the first as it is, and is no other than it."""
    networks = [_networks(seed)[0] for seed in range(k)]
    whole = AtOnce(networks[0]) if k == 1 else fuse(networks, [torch.Generator()] * k)
    given = _inputs(4 * k)
    twin, state = copy.deepcopy(whole), [copy.deepcopy(n.state_dict()) for n in networks]
    parameters = {id(p) for network in networks for p in network.parameters()}
    listed = [p for w in (*twin.plain, *twin.normal) for p in w.parameters]  # type: ignore[union-attr, operator]
    assert listed
    assert not parameters & {id(p) for p in listed}
    out = twin(*given)
    out.pow(3).sum().backward()
    for network, before in zip(networks, state, strict=True):
        assert all(p.grad is None for p in network.parameters())
        torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(whole(*given), out)


def test_weights_that_are_read_or_laid_otherwise_later_are_those_of_the_next_pass() -> None:
    (ours, torchs), (other, _) = _networks(), _networks(seed=5)
    forward = AtOnce(ours)
    given = _inputs()
    forward(*given)
    for network in (ours, torchs):
        network.load_state_dict(other.state_dict())
    torch.testing.assert_close(forward(*given), torchs(*given), **EXACT)
    ours.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    torch.testing.assert_close(forward(*given), torchs(*given), **EXACT)
    # The norms that were written last are those of torch's own.
    torch.testing.assert_close(ours.state_dict(), torchs.state_dict(), **EXACT)


def test_gradients_add_up_and_a_freed_graph_says_so() -> None:
    ours, torchs = _networks()
    for network in (ours, torchs):
        network.eval()  # parts of a batch see the same weights
    forward = AtOnce(ours)
    x, label = _inputs(6)
    out = None
    for rows in (slice(0, 2), slice(2, 6)):
        out = forward(x[rows], label[rows]).pow(3).sum()
        out.backward()
    for name, gradient in _learn(torchs, torchs, x, label).items():
        torch.testing.assert_close(ours.get_parameter(name).grad, gradient, **EXACT, msg=name)
    assert out is not None
    with pytest.raises(RuntimeError, match="second time"):
        out.backward()


def test_a_weight_that_moved_before_its_gradient_is_refused() -> None:
    """Saved matrices are views of the weights: nothing is copied, and nothing goes unnoticed."""
    ours, _ = _networks()
    loss = AtOnce(ours)(*_inputs()).sum()
    with torch.no_grad():
        ours.head.parametrizations.weight.original.add_(1)  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="modified inplace"):
        loss.backward()


def test_frozen_layers_and_unused_ones() -> None:
    ours, torchs = _networks()
    for network in (ours, torchs):
        network.head.requires_grad_(False)  # type: ignore[union-attr]
    x, label = _inputs()
    for network, forward in ((ours, AtOnce(ours)), (torchs, torchs)):
        network.zero_grad()
        forward(x, label)[:, :3].pow(3).sum().backward()  # the embedding is not asked
    assert ours.head.bias.grad is None  # type: ignore[union-attr]
    for (name, p), q in zip(ours.named_parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(
            torch.zeros_like(p) if p.grad is None else p.grad,
            torch.zeros_like(q) if q.grad is None else q.grad,
            **EXACT,
            msg=name,
        )


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_only_what_autocast_narrows_is_narrowed(narrow: torch.dtype) -> None:
    """Layer by layer: one in float64 stays, in whatever order they come."""

    class Mixed(nn.Module):
        def __init__(self, wide_first: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            layers = {"a": nn.Linear(3, 3).double(), "b": nn.Linear(3, 3)}
            for name in sorted(layers, reverse=not wide_first):
                self.add_module(name, layers[name])

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.get_submodule("a"), self.get_submodule("b")
            return torch.cat([a(x.double()), b(x).double()])

    for wide_first in (True, False):
        ours, plain = Mixed(wide_first), Mixed(wide_first)
        x = torch.randn(4, 3)
        with torch.autocast("cpu", narrow):
            got, expected = AtOnce(ours)(x), plain(x)
        assert torch.equal(got, expected)
        for y in (got, expected):
            y.sum().backward()
        for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
            assert p.grad is not None
            assert q.grad is not None
            assert p.grad.dtype == p.dtype
            torch.testing.assert_close(p.grad, q.grad, rtol=0.02, atol=0.02)


def test_norms_in_two_modes_are_refused() -> None:
    """One power iteration for some and none for others is nobody's spectral norm."""
    ours, _ = _networks()
    next(m for m in ours.modules() if isinstance(m, SpectralNorm)).eval()
    with pytest.raises(AssertionError, match="both modes"):
        AtOnce(ours)(*_inputs())


def test_norms_are_not_narrowed_by_autocast() -> None:
    """Torch's are not: it narrows products of matrices, not those with one vector."""
    torch.manual_seed(0)
    alone = [spectral_norm(nn.Conv2d(16, 32, 3)) for _ in range(2)]
    twins = copy.deepcopy(alone)
    lists = [twin.parametrizations.weight for twin in twins]
    norms = [SpectralNorm(*each[0].buffers()) for each in lists]  # type: ignore[index, union-attr]
    originals = [each.original for each in lists]  # type: ignore[union-attr]
    with torch.autocast("cpu", torch.bfloat16):
        (together,) = normalised([norms], originals, [None])  # type: ignore[arg-type]
        expected = torch.stack([layer.weight for layer in alone])
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("k", [1, 2])
def test_weights_narrowed_at_once_are_those_that_layers_narrow(k: int) -> None:
    def generators() -> list[nn.Module]:
        torch.manual_seed(0)
        return [channels_innermost(AcganGenerator((4, 15, 15), 2, 8)) for _ in range(k)]

    ours, plain = generators(), generators()
    forward = AtOnce(ours[0]) if k == 1 else fuse(ours, [torch.Generator()] * k)
    z, label = torch.randn(k * 4, 110), torch.arange(k * 4) % 2
    with torch.autocast("cpu", torch.bfloat16):
        got = forward(z, label)
        halves = zip(plain, z.chunk(k), label.chunk(k), strict=True)
        expected = torch.cat([network(*half) for network, *half in halves])
    close: dict[str, float] = {"rtol": 0, "atol": 0} if k == 1 else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(got, expected, **close)
    for y in (got, expected):
        y.float().square().sum().backward()
    for one, other in zip(ours, plain, strict=True):
        for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
            assert p.grad is not None
            assert q.grad is not None
            assert p.grad.dtype == torch.float32
            scale = float(q.grad.abs().max())
            bound = close["atol"] * scale
            torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=bound, msg=name)


def test_a_pass_leaves_its_weights_nowhere_even_if_it_fails() -> None:
    network = AcganDiscriminator((4, 15, 15), 2, 8, norm="sn", dropout=0.0)
    forward = AtOnce(network)
    weights = {name: id(p) for name, p in network.named_parameters()}
    with torch.autocast("cpu", torch.bfloat16):
        forward(torch.randn(2, 4, 15, 15))
        with pytest.raises(RuntimeError):
            forward(torch.randn(2, 3, 15, 15))
    assert {name: id(p) for name, p in network.named_parameters()} == weights
    assert all(m.ready is None for m in network.modules() if isinstance(m, SpectralNorm))


@pytest.mark.parametrize("how", [_torchs, lambda network: weight_norm(network.head)])
@pytest.mark.parametrize("k", [1, 3])
def test_parametrizations_of_others_are_left_to_them(how: Any, k: int) -> None:
    networks = []
    for seed in range(k):
        torch.manual_seed(seed)
        networks.append(Layers().double())
        how(networks[-1])
    alone = copy.deepcopy(networks)
    together = AtOnce(networks[0]) if k == 1 else fuse(networks, [torch.Generator()] * k)
    x, label = _inputs(4 * k)
    together(x, label).pow(3).sum().backward()
    for ours, plain, *mine in zip(networks, alone, x.chunk(k), label.chunk(k), strict=True):
        for name, gradient in _learn(plain, plain, *mine).items():
            got = ours.get_parameter(name).grad
            torch.testing.assert_close(got, gradient, **EXACT, msg=name)
        torch.testing.assert_close(ours.state_dict(), plain.state_dict(), **EXACT)
