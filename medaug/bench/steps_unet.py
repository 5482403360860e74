"""The U-Net in training and extraction, and the classifier, against the plain ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medaug.bench.result import Figure
from medaug.bench.steps_gan import random_rows
from medaug.bench.timing import Timing
from medaug.bench.workbench import Bench
from medaug.models.classifiers import CLASSIFIERS, class_logits
from medaug.models.losses import soft_dice_loss
from medaug.models.unet import UNet
from medaug.spec.classifier import NetworkSpec
from medaug.spec.study import FeatureSpec, SegmenterSpec
from medaug.train import network, segment
from medaug.train.extract import encoder
from medaug.train.scaling import channels_last

TRAINING, EXTRACTION = 2.4, 6.0
MEAN, DEVIATION = 100.0, 30.0


def training_figures(bench: Bench) -> list[Figure]:
    """Training steps in bf16 against float32 in NCHW with plain Adam."""
    x, ours, naive = _unets(bench)
    mask = (x > MEAN + DEVIATION).float()
    steps = {"ours": lambda: ours.learn(x, mask), "naive": lambda: naive.learn(x, mask)}
    timing = bench.time(steps, bench.sized(3, 3, 1))
    return _figures(bench, "training", x, timing, "fp32 NCHW, plain Adam", TRAINING, steps["ours"])


def extraction_figures(bench: Bench) -> list[Figure]:
    """Extraction of conv5 in bf16 against a hook on the whole network in float32."""
    x, ours, naive = _unets(bench)
    features = FeatureSpec(tap="conv5", precision=bench.narrow)
    encode = encoder(ours.unet, features, (MEAN, DEVIATION), bench.world)
    steps = {"ours": lambda: encode(x), "naive": lambda: naive.extract(x)}
    timing = bench.time(steps, bench.sized(5, 3, 1))
    against = "whole network, fp32 NCHW"
    return _figures(bench, "extraction", x, timing, against, EXTRACTION, steps["ours"])


def _unets(bench: Bench) -> tuple[Tensor, segment.Run, _NaiveUNet]:
    """Raw images, and a network of ours and a plain one."""
    base, side, n = bench.sized((64, 240, 10), (32, 128, 4), (2, 32, 2))
    x = MEAN + DEVIATION * torch.randn(n, 1, side, side, device=bench.world.device)
    spec = SegmenterSpec(
        base=base, batch_size=n, precision=bench.narrow, init="kaiming", pretrain=None
    )
    rows = random_rows((1, side, side), n)
    ours = segment.Run(
        spec,
        rows,  # type: ignore[arg-type]
        rows,  # type: ignore[arg-type]
        (MEAN, DEVIATION),
        bench.world,
        0,
        None,
        spec.lr,
    )
    return x, ours, _NaiveUNet(base, spec.lr, bench.world.device)


def _figures(
    bench: Bench,
    what: str,
    x: Tensor,
    timing: Mapping[str, Timing],
    against: str,
    target: float,
    step: Callable[[], object],
) -> list[Figure]:
    """Time and ratio, and what share of the device's peak ours reaches."""
    seconds = bench.seconds(timing["ours"])
    flops = bench.flops(step)
    part = f"unet {what} {x.shape[-1]}x{x.shape[-1]}"
    return [
        Figure(
            part=part,
            subject="medaug bf16",
            value=1e3 * seconds / len(x),
            unit="ms/image",
            ratio=bench.ratio(timing["ours"], timing["naive"]),
            against=against,
            target=target if bench.options.size == "full" else None,
            note=f"{flops / len(x) / 1e9:.3g} GFLOP",
        ),
        Figure(part, "medaug bf16", flops / seconds / bench.peak_flops, "share of bf16 peak"),
    ]


class _NaiveUNet:
    """The same network as one would first write it: float32, NCHW, a hook for the features."""

    def __init__(self, base: int, lr: float, device: torch.device) -> None:
        self.unet = UNet(1, base, init="kaiming").to(device)
        self.adam = torch.optim.Adam(self.unet.parameters(), lr=lr)
        self.seen: list[Tensor] = []
        block = self.unet.get_submodule("conv5")
        block.register_forward_hook(lambda module, inputs, output: self.seen.append(output))

    def learn(self, x: Tensor, mask: Tensor) -> float:
        loss = soft_dice_loss(self.unet((x - MEAN) / DEVIATION).sigmoid(), mask)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.seen.clear()
        return loss.item()

    @torch.no_grad()
    def extract(self, x: Tensor) -> Tensor:
        self.unet((x - MEAN) / DEVIATION)
        return self.seen.pop().cpu()


def classifier_figures(bench: Bench) -> list[Figure]:
    """The feature CNN on 1024x15x15 in float32 and bf16 against eager NCHW with a host sync."""
    shape = bench.sized((1024, 15, 15), (1024, 15, 15), (8, 8, 8))
    spec = NetworkSpec()
    device = bench.world.device
    rows = random_rows(shape, 4 * spec.batch_size)
    batches = [
        (
            rows.x[i : i + spec.batch_size].to(device),
            torch.from_numpy(rows.labels[i : i + spec.batch_size]).to(device),
        )
        for i in range(0, len(rows), spec.batch_size)
    ]
    torch.manual_seed(0)
    plain = CLASSIFIERS[spec.kind](shape, 2, spec.dropout).to(device)
    precisions = sorted({"fp32", bench.narrow}, reverse=True)
    subjects: dict[str, Callable[[Tensor, Tensor], object]] = {
        precision: _classifier(bench, spec.model_copy(update={"precision": precision}), shape)
        for precision in precisions
    }
    takes: dict[str, Callable[[], object]] = {}
    for name, step in {**subjects, "naive": _naive_classifier(plain, spec.lr)}.items():
        takes[name] = _in_turn(step, batches)
    timing = bench.time(takes, bench.sized(15, 9, 1))
    return [
        Figure(
            part=f"classifier {spec.kind}",
            subject=f"medaug {precision}",
            value=1e3 * bench.seconds(timing[precision]),
            unit="ms/step",
            ratio=bench.ratio(timing[precision], timing["naive"]),
            against="fp32 NCHW, plain Adam",
        )
        for precision in subjects
    ]


def _in_turn(
    step: Callable[[Tensor, Tensor], object], batches: list[tuple[Tensor, Tensor]]
) -> Callable[[], object]:
    turn = cycle(batches)
    return lambda: step(*next(turn))


def _classifier(
    bench: Bench, spec: NetworkSpec, shape: tuple[int, int, int]
) -> Callable[[Tensor, Tensor], object]:
    store = random_rows(shape, 2 * spec.batch_size)
    run = network.Run(spec, store, store, store, bench.world, 0, None)  # type: ignore[arg-type]
    run.network.train()

    def step(x: Tensor, label: Tensor) -> object:
        return run.learn(channels_last(run.scale.encode(x)), label)

    return step


def _naive_classifier(network: nn.Module, lr: float) -> Callable[[Tensor, Tensor], float]:
    adam = torch.optim.Adam(network.parameters(), lr=lr)

    def step(x: Tensor, label: Tensor) -> float:
        loss = F.cross_entropy(class_logits(network(x)), label)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.item()

    return step
