"""Replicates in shared passes against the same replicates one after the other."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medaug.bench.result import Figure
from medaug.bench.steps_gan import BATCH, Ours, acgan_pair, random_rows
from medaug.bench.workbench import Bench
from medaug.models.fused import fuse
from medaug.models.layers import JointPass
from medaug.spec.arms import AcganSpec

REPLICATES = (1, 4, 16)
EQUAL = 1e-10
"""Largest difference of a gradient in float64, as a share of its network's largest."""


def fused_figures(bench: Bench) -> list[Figure]:
    """Time per replicate and step, and the largest difference of a weight, for each K."""
    figures = []
    for k in REPLICATES:
        figures.append(_speed(bench, k))
        figures.append(_difference(bench, k))
    return figures


def _ours(bench: Bench, k: int, precision: str, seeds: range) -> Ours:
    shape = bench.sized((1024, 15, 15), (256, 15, 15), (8, 8, 8))
    width = bench.sized(64, 64, 4)
    spec = AcganSpec(batch_size=BATCH, precision=precision, width_rule="flat")  # type: ignore[arg-type]
    build = acgan_pair(shape, width, "sn", "flat", dropout=0.0)
    rows = [random_rows(shape, 2 * BATCH, seed) for seed in seeds]
    return Ours(spec, build, rows, bench.world, seeds=seeds)


def _speed(bench: Bench, k: int) -> Figure:
    precision: str = bench.narrow
    fused = _ours(bench, k, precision, range(k))
    alone = [_ours(bench, 1, precision, range(seed, seed + 1)) for seed in range(k)]

    def in_turn() -> None:
        for one in alone:
            one()

    rounds = bench.sized(9, max(2, 8 // k), 1)
    timing = bench.time({"fused": fused, "separate": in_turn}, rounds)
    return Figure(
        part=f"fused K={k}",
        subject=f"fused {precision}",
        value=1e3 * bench.seconds(timing["fused"]) / k,
        unit="ms/step of one",
        ratio=bench.ratio(timing["fused"], timing["separate"]),
        against="separate, in turn",
    )


def _difference(bench: Bench, k: int) -> Figure:
    """Of the gradients of both players, in float64. In float32 the two ways round differently, and
    now and then an activation at the kink of its ReLU falls on the other side."""
    shape = bench.sized((1024, 15, 15), (256, 15, 15), (8, 8, 8))
    build = acgan_pair(shape, bench.sized(64, 64, 4), "sn", "flat", dropout=0.0)
    pairs = []
    for seed in range(k):
        torch.manual_seed(seed)
        pairs.append([network.to(bench.world.device).double() for network in build()])
    copies = copy.deepcopy(pairs)
    masks = [torch.Generator(bench.world.device) for _ in range(k)]
    generator, discriminator = (fuse(same, masks) for same in zip(*pairs, strict=True))
    batches = [random_rows(shape, BATCH, seed) for seed in range(k)]
    real = torch.stack([rows.x for rows in batches]).to(bench.world.device).double()
    label = (torch.arange(BATCH) % 2).to(bench.world.device)
    z = torch.randn(k, BATCH, pairs[0][0].nz, dtype=torch.float64).to(bench.world.device)  # type: ignore[call-overload]
    _backward(generator, discriminator, real, z, label)
    for each, (g, d) in enumerate(copies):
        _backward(g, d, real[each : each + 1], z[each : each + 1], label)
    largest = 0.0
    for fused, alone in zip(pairs, copies, strict=True):
        for one, other in zip(fused, alone, strict=True):
            a, b = map(_gradient, (one, other))
            largest = max(largest, float((a - b).abs().max() / b.abs().max()))
    return Figure(
        part=f"fused K={k}",
        subject="fused fp64",
        value=largest,
        unit="largest difference of a gradient",
        target=EQUAL,
        better="lower",
    )


def _gradient(network: nn.Module) -> Tensor:
    """Of all parameters, as one vector."""
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def _backward(
    generator: nn.Module, discriminator: nn.Module, real: Tensor, z: Tensor, label: Tensor
) -> None:
    """One pass of K replicates: real (K, N, …), z (K, N, nz) and label (N,)."""
    k = len(real)
    fake = generator(z.flatten(0, 1), label.repeat(k)).unflatten(0, (k, -1))
    rows = torch.cat([real, fake], 1).flatten(0, 1)
    out = JointPass(discriminator)(rows, label.repeat(2 * k), 2)
    (F.softplus(-out.adv).sum() + out.cls.square().sum()).backward()
