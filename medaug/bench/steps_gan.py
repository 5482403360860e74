"""Steps of the ACGAN and of the DCGANs against the reference step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medaug.bench.result import Figure
from medaug.bench.workbench import Bench, reference_step
from medaug.models.acgan import AcganDiscriminator, AcganGenerator
from medaug.models.dcgan import DCGANS
from medaug.models.layers import Dropout
from medaug.models.products import Conv2d, ConvTranspose2d
from medaug.spec.arms import AcganSpec, DcganSpec
from medaug.spec.gan import GanSpec
from medaug.train.captured import recorded
from medaug.train.gan_batch import StepDraw
from medaug.train.gan_run import GanTask, Replicate
from medaug.train.gan_step import GanStep
from medaug.train.rows import MemoryRows
from medaug.train.world import World

BATCH = 16
WIDTHS = (64, 256, 512)
TARGET_CPU = {64: 1.7, 256: 2.3, 512: 2.8}
TARGET_GPU = 2.0
SHARE_GPU = {64: 0.03, 256: 0.10, 512: 0.15}

OF_TORCH: dict[type[nn.Module], type[nn.Module]] = {
    Conv2d: nn.Conv2d,
    ConvTranspose2d: nn.ConvTranspose2d,
    Dropout: nn.Dropout,
}
"""The reference step has the layers that the public implementation has."""

Build = Callable[[], tuple[nn.Module, nn.Module]]


class Ours:
    """Replicates of a GAN, one step a call, as ``medaug.train.gan`` takes them."""

    def __init__(
        self,
        spec: GanSpec,
        build: Build,
        rows: Sequence[MemoryRows],
        world: World,
        seeds: Sequence[int] = (0,),
    ) -> None:
        pairs = zip(rows, seeds, strict=True)
        tasks = [GanTask(spec, build, each, seed) for each, seed in pairs]
        self.replicates = [Replicate(task, world) for task in tasks]
        spec, n_classes = self.replicates[0].task.spec, self.replicates[0].n_classes
        step = GanStep(spec, self.replicates, n_classes, world, fused=len(rows) > 1)
        self.taker = recorded(step)
        for replicate in self.replicates:
            replicate.begin_epoch()

    def __call__(self) -> None:
        self.taker.take([self._next(replicate) for replicate in self.replicates])
        for replicate in self.replicates:
            replicate.training.step += 1

    def _next(self, replicate: Replicate) -> StepDraw:
        draw = replicate.next_draw()
        if draw is None:
            replicate.begin_epoch()
            draw = replicate.next_draw()
        assert draw is not None
        return draw

    def weights(self) -> list[Tensor]:
        """All parameters, replicate by replicate."""
        return [
            parameter.detach()
            for replicate in self.replicates
            for network in (replicate.generator, replicate.discriminator)
            for parameter in network.parameters()
        ]


def random_rows(shape: tuple[int, int, int], n: int, seed: int = 0) -> MemoryRows:
    """ReLU of noise, two classes in turn."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=source).relu()
    return MemoryRows(x, np.arange(n) % 2, ("a", "b"))


def acgan_pair(
    shape: tuple[int, int, int],
    width: int,
    norm: str = "bn",
    rule: str = "pyramid",
    dropout: float = 0.5,
) -> Build:
    """The published networks, in the widths that the targets are stated for."""

    def build() -> tuple[nn.Module, nn.Module]:
        widths: dict[str, Any] = {"width_rule": rule}
        how: dict[str, Any] = {**widths, "norm": norm, "dropout": dropout}
        generator = AcganGenerator(shape, 2, width, **widths)
        return generator, AcganDiscriminator(shape, 2, width, **how)

    return build


def as_torch_has_it(network: nn.Module) -> nn.Module:
    """``network`` with torch's layers in the place of our faster ones, in place: same weights."""
    for layer in network.modules():
        for own, plain in OF_TORCH.items():
            if type(layer) is own:
                layer.__class__ = plain
    return network


def acgan_figures(bench: Bench) -> list[Figure]:
    """Step time, ratio to the reference step, and share of the bf16 peak, by width."""
    figures = []
    shape = bench.sized((1024, 15, 15), (1024, 15, 15), (8, 8, 8))
    for width in bench.sized(WIDTHS, WIDTHS, (4,)):
        spec = AcganSpec(
            preset="as_published", width_rule="pyramid", batch_size=BATCH, precision=bench.narrow
        )
        rounds = bench.sized(15, {64: 9, 256: 5}.get(width, 3), 1)
        build = acgan_pair(shape, width)
        figures += _against_reference(bench, f"acgan {width}", spec, build, shape, rounds)
        if not bench.tiny:
            target = TARGET_GPU if bench.on_gpu else TARGET_CPU[width]
            figures[-2] = replace(figures[-2], target=target)
        if bench.on_gpu and not bench.tiny:
            figures[-1] = replace(figures[-1], target=SHARE_GPU[width])
    return figures


def dcgan_figures(bench: Bench) -> list[Figure]:
    """The pairs of studies B and D, as published but for the precision."""
    figures = []
    for name, size, channels in bench.sized(
        (("dcgan32", 32, 1), ("dcgan128", 128, 3)), (("dcgan32", 32, 1),), (("dcgan32", 16, 1),)
    ):
        sizes: dict[str, Any] = {"channels": channels, "size": size}
        if bench.tiny:
            sizes["width"] = 4
        made, judged = DCGANS[name]
        spec = DcganSpec(preset="as_published", batch_size=BATCH, precision=bench.narrow)

        def build(
            made: Any = made, judged: Any = judged, sizes: dict[str, Any] = sizes
        ) -> tuple[nn.Module, nn.Module]:
            return made(**sizes), judged(**sizes)

        shape = (channels, size, size)
        figures += _against_reference(bench, name, spec, build, shape, bench.sized(9, 5, 1))
    return figures


def _against_reference(
    bench: Bench,
    part: str,
    spec: GanSpec,
    build: Build,
    shape: tuple[int, int, int],
    rounds: int,
) -> list[Figure]:
    """Our step next to the reference's, and what share of the device's peak ours reaches."""
    device = bench.world.device
    rows = random_rows(shape, 4 * BATCH)
    ours = Ours(spec, build, [rows], bench.world)
    torch.manual_seed(0)
    reference = reference_step()(*(as_torch_has_it(network).to(device) for network in build()), 2)
    batches = cycle(
        [
            (rows.x[i : i + BATCH].to(device), torch.from_numpy(rows.labels[i : i + BATCH]))
            for i in range(0, len(rows), BATCH)
        ]
    )

    def step() -> None:
        x, label = next(batches)
        reference(x, label.to(device))

    timing = bench.time({"ours": ours, "reference": step}, rounds)
    seconds = bench.seconds(timing["ours"])
    flops = bench.flops(ours)
    share = flops / seconds / bench.peak_flops
    return [
        Figure(
            part=part,
            subject=f"medaug {spec.precision}",
            value=1e3 * seconds,
            unit="ms/step",
            ratio=bench.ratio(timing["ours"], timing["reference"]),
            against="reference step fp32",
            note=f"{flops / 1e9:.3g} GFLOP",
        ),
        Figure(part, f"medaug {spec.precision}", share, "share of bf16 peak"),
    ]
