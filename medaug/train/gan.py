"""Training a GAN: rows in, a generator that makes more of them out.

A step draws one batch of real rows and one of generated ones, and passes it to the phases in turn:
the discriminator's, then the generator's (every ``n_critic`` steps). Phases are data. The
generator learns from the same generated rows that the discriminator has just seen, as in the
reference code of study A, which saves a pass.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from medaug.errors import UserError
from medaug.seeding import generator, seed_of
from medaug.spec.gan import GanSpec
from medaug.store import Batch, balanced_weights
from medaug.train.average import follow
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.loop import Guard, Training, autocast, run_epochs
from medaug.train.objective import Draws, JointPass, Objective, Turn, Values
from medaug.train.rows import RowSource
from medaug.train.scaling import FeatureScale
from medaug.train.tally import ClassSpread, Tally
from medaug.train.world import World, check_batch_size, convert_batchnorm, distribute

EVAL_BLOCK = 64
SMALLEST = 1e-12
COLLAPSED_SPREAD = 0.05
"""Within-class deviation of generated rows, relative to real ones, below which modes are lost."""
COLLAPSED_LOSS = 1e-3
"""Discriminator loss below which the generator has nothing to learn from."""


class Quality(Protocol):
    """Judges generated rows during training; it must be cheap."""

    labels: Tensor
    """(N,) int64: the classes of the rows that it wants."""

    def summary(self, x: Tensor) -> Tensor:
        """Generated rows (n, *shape), in the units of the training rows, to vectors (n, d)."""
        ...

    def score(self, summary_ND: Tensor) -> dict[str, float]:
        """Scores, named ``val/…``, of the summaries of N rows."""
        ...


@dataclass(frozen=True)
class Gan:
    """A trained pair in evaluation mode, and the scaling of its rows."""

    generator: nn.Module
    """The averaged weights, where the configuration asks for them."""
    discriminator: nn.Module
    scale: FeatureScale

    def __post_init__(self) -> None:
        self.generator.eval()
        self.discriminator.eval()

    @torch.inference_mode()
    def generate(self, z_Nnz: Tensor, label_N: Tensor) -> Tensor:
        """Rows (N, *shape) float32 in the units of the training rows."""
        return self.scale.decode(self.generator(z_Nnz, label_N))

    @torch.inference_mode()
    def generate_judged(self, z_Nnz: Tensor, label_N: Tensor) -> tuple[Tensor, Tensor]:
        """Rows as :meth:`generate` makes them, and the class (N,) that the discriminator sees.

        It judges in evaluation mode: with batch norm in training mode its answer would depend on
        which other rows share the batch, and a row would pass a filter or not by chance. With
        running statistics it does not, but those mix real and generated rows, so the answer can
        still be poor: filter with a discriminator that has no batch norm.
        """
        y = self.generator(z_Nnz, label_N)
        class_logits: Callable[..., Tensor] = self.discriminator.class_logits  # type: ignore[assignment]
        predicted = class_logits(self.discriminator(y, label_N)).argmax(1)
        return self.scale.decode(y), predicted


def train_gan(
    spec: GanSpec,
    build: Callable[[], tuple[nn.Module, nn.Module]],
    train: RowSource,
    world: World,
    seed: int,
    *,
    quality: Quality | None = None,
    teacher: Callable[[Tensor], Tensor] | None = None,
    resume: Checkpoint | None = None,
) -> Iterator[Progress]:
    """Train on the rows of ``train``; the last Progress carries a :class:`Gan`.

    ``build()`` makes a fresh (generator, discriminator); weights are drawn from torch's global
    generator, which is seeded before. ``quality`` is asked every ``eval_every`` epochs;
    ``teacher``: see :class:`Objective`. Metrics per epoch: ``train/d_loss``, ``train/g_loss``,
    ``train/d_real`` and ``train/d_fake`` (mean probability of being real), with a class head
    ``train/class_acc_real`` and ``train/class_acc_fake``, ``train/diversity`` (within-class
    deviation of generated over real rows), ``collapsed`` (0 or 1), and the scores of ``quality``.

    Without batch norm N ranks equal one rank with the same global batch up to rounding; batch
    norm is synchronised, which makes them equal too.

    Raises:
        UserError: rows without a label, or fewer rows in a batch than ranks.
        Diverged: see :class:`medaug.train.loop.Guard`.
    """
    check_batch_size(min(spec.batch_size, len(train)), world, f"{spec.kind}.batch_size")
    if (train.labels < 0).any():
        raise UserError(f"{spec.kind}: {(train.labels < 0).sum()} rows have no label; drop them")
    run = _Run(spec, build, train, world, seed, quality, teacher, resume)
    yield from run_epochs(run.training, world, seed, spec.epochs, run.one_epoch, run.finish)


@dataclass(frozen=True)
class _Phase:
    """One player's part of a step: its objective, its optimiser, and how often it moves."""

    interval: int
    optimizer: torch.optim.Optimizer
    loss: Callable[[Turn], tuple[Tensor, Values]]
    frozen: nn.Module | None = None
    """A network that the loss runs through but that must not get gradients."""
    after: Callable[[], None] = lambda: None


class _Run:
    """The state of one training, for :func:`medaug.train.loop.run_epochs`."""

    def __init__(
        self,
        spec: GanSpec,
        build: Callable[[], tuple[nn.Module, nn.Module]],
        train: RowSource,
        world: World,
        seed: int,
        quality: Quality | None,
        teacher: Callable[[Tensor], Tensor] | None,
        resume: Checkpoint | None,
    ) -> None:
        self.spec, self.train, self.world, self.seed = spec, train, world, seed
        self.quality = quality
        self.n_classes = len(train.classes)
        self.batch_size = min(spec.batch_size, len(train))
        self.weights = balanced_weights(train.labels) if spec.sampler == "balanced" else None

        torch.manual_seed(seed_of(seed, "networks"))
        self.generator, self.discriminator = (_prepared(network, world) for network in build())
        self.nz: int = self.generator.nz  # type: ignore[assignment]
        modules = {"generator": self.generator, "discriminator": self.discriminator}
        if spec.ema:
            modules["average"] = copy.deepcopy(self.generator).requires_grad_(False)
        adam = partial(torch.optim.Adam, betas=spec.betas, fused=True)
        optimizers: dict[str, torch.optim.Optimizer] = {
            "discriminator": adam(self.discriminator.parameters(), lr=spec.lr_d),
            "generator": adam(self.generator.parameters(), lr=spec.lr_g),
        }
        self.training = Training(modules, optimizers, Guard(world))
        if resume is None:
            self.scale = FeatureScale.fit(train, spec.feature_scale, world)
            self.training.extra = self.scale.tensors()
        else:
            self.training.restore(resume)
            self.scale = FeatureScale.of(self.training.extra)

        if spec.compile:
            self.generator.compile()
            self.discriminator.compile()
        self.generate = distribute(self.generator, world)
        joint = distribute(JointPass(self.discriminator), world)
        objective = Objective(spec, self.discriminator, self.n_classes, teacher)
        self.phases = (
            _Phase(
                interval=1,
                optimizer=optimizers["discriminator"],
                loss=partial(objective.of_discriminator, joint),
            ),
            _Phase(
                interval=spec.n_critic,
                optimizer=optimizers["generator"],
                loss=objective.of_generator,
                frozen=self.discriminator,
                after=self._average,
            ),
        )

    def one_epoch(self, epoch: int) -> dict[str, float]:
        tallies = [Tally(self.world) for _ in self.phases]
        spread = {name: ClassSpread(self.n_classes, self.world) for name in ("real", "fake")}
        batches = self.train.batches(
            self.world,
            self.batch_size,
            seed=self.seed,
            epoch=epoch,
            weights=self.weights,
            steps=self.spec.steps_per_epoch,
        )
        for batch in batches:
            turn = self._turn(batch)
            for phase, tally in zip(self.phases, tallies, strict=True):
                if self._is_due(phase):
                    taken = self._move(phase, tally, turn)
            spread["real"].add(turn.real, turn.real_label, taken)
            spread["fake"].add(turn.fake, turn.fake_label, taken)
            self.training.step += 1

        metrics = {f"train/{k}": v for tally in tallies for k, v in tally.means().items()}
        real = max(spread["real"].deviation(), SMALLEST)
        metrics["train/diversity"] = spread["fake"].deviation() / real
        metrics["collapsed"] = float(_has_collapsed(metrics, self.spec))
        due = (epoch + 1) % self.spec.eval_every == 0 or epoch + 1 == self.spec.epochs
        if self.quality is not None and due and all(map(math.isfinite, metrics.values())):
            metrics |= self._judged(self.quality)
        return metrics

    def finish(self) -> Gan:
        average = self.training.modules.get("average", self.generator)
        return Gan(average, self.discriminator, self.scale)

    def _turn(self, batch: Batch) -> Turn:
        """One step's rows on the device; generated ones with a graph if the generator is due."""
        spec, device = self.spec, self.world.device
        draws = Draws(self.seed, self.training.step, self.batch_size, self.world)
        # Rows are kept as the first layer wants them: autocast would round them so in any case.
        dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
        layout = torch.channels_last if batch.x.ndim == 4 else torch.preserve_format
        real = self.scale.encode(batch.x.to(device)).to(dtype, memory_format=layout)
        real_label = batch.label.to(device)
        z = draws.normal("latent", self.nz)
        same = spec.adv == "wgan_gp"
        fake_label = real_label if same else draws.labels("label", self.n_classes)
        with (
            torch.set_grad_enabled(self._is_due(self.phases[1])),
            autocast(self.world, spec.precision),
        ):
            fake = self.generate(z, fake_label).to(dtype)
        return Turn(real, real_label, fake, fake_label, z, draws)

    def _is_due(self, phase: _Phase) -> bool:
        return (self.training.step + 1) % phase.interval == 0

    def _move(self, phase: _Phase, tally: Tally, turn: Turn) -> Tensor:
        """Move one player; returns whether the guard let the step pass (a bool scalar)."""
        if phase.frozen is not None:
            phase.frozen.requires_grad_(False)
        with autocast(self.world, self.spec.precision):
            loss, values = phase.loss(turn)
        phase.optimizer.zero_grad(set_to_none=True)
        # DDP averages over ranks; shares of a global batch may differ by a row.
        rows = len(turn.real)
        (loss * (rows * self.world.size / self.batch_size)).backward()
        taken = self.training.guard.step(phase.optimizer)
        tally.add(values, rows, taken)
        if phase.frozen is not None:
            phase.frozen.requires_grad_(True)
        phase.after()
        return taken

    def _average(self) -> None:
        if average := self.training.modules.get("average"):
            follow(average, self.generator, self.spec.ema)

    def _judged(self, quality: Quality) -> dict[str, float]:
        """Scores of rows from latents that are the same at every epoch."""
        world, label = self.world, quality.labels
        modes = [(module, module.training) for module in (self.generator, self.discriminator)]
        gan = self.finish()
        source = generator(self.seed, "quality", device=world.device)
        z = torch.randn(len(label), self.nz, generator=source, device=world.device)
        share = world.share(len(label))
        blocks = zip(z[share].split(EVAL_BLOCK), label[share].split(EVAL_BLOCK), strict=True)
        summaries = [quality.summary(gan.generate(*block)) for block in blocks]
        for module, mode in modes:
            module.train(mode)
        scores = quality.score(world.gather(torch.cat(summaries)))
        # The ranks' processors may round differently: all take the first one's word.
        values = torch.tensor(list(scores.values()), dtype=torch.float64, device=world.device)
        values = world.reduce_sum(values if world.is_main else torch.zeros_like(values))
        return dict(zip(scores, values.tolist(), strict=True))


def _prepared(network: nn.Module, world: World) -> nn.Module:
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return convert_batchnorm(network.to(world.device), world)


def _has_collapsed(metrics: dict[str, float], spec: GanSpec) -> bool:
    beaten = spec.adv != "wgan_gp" and metrics.get("train/d_adversarial", 1.0) < COLLAPSED_LOSS
    return beaten or metrics["train/diversity"] < COLLAPSED_SPREAD
