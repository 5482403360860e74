"""One GAN in training: its networks, its rows, its checkpoint. How it moves is in ``gan_step``."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from medaug.errors import UserError
from medaug.models.layers import channels_innermost
from medaug.seeding import generator, seed_of
from medaug.spec.gan import GanSpec
from medaug.store import balanced_weights
from medaug.store.sampler import Order
from medaug.train.adam import FusedAdam
from medaug.train.checkpoint import Checkpoint
from medaug.train.draws import Draws
from medaug.train.gan_batch import GanBatch, StepDraw
from medaug.train.gan_step import GanStep
from medaug.train.judging import Quality, judged
from medaug.train.loop import Collapsed, Guard, Training, dropout_seed
from medaug.train.precision import settle
from medaug.train.rows import RowSource
from medaug.train.scaling import FeatureScale
from medaug.train.tally import ClassSpread, Tally
from medaug.train.training_rows import TrainingRows
from medaug.train.world import World, check_batch_size, convert_batchnorm

PROBED_ROWS = 8
"""Rows on which the two precisions are compared."""
SMALLEST = 1e-12
COLLAPSED_SPREAD = 0.05
"""Within-class deviation of generated rows, relative to real ones, below which modes are lost."""
COLLAPSED_LOSS = 1e-3
"""Discriminator loss below which the generator has nothing to learn from."""


@dataclass(frozen=True)
class Gan:
    """A trained pair in evaluation mode, and the scaling of its rows."""

    generator: nn.Module
    """The averaged weights, where the configuration asks for them."""
    discriminator: nn.Module
    scale: FeatureScale
    precision: str = "fp32"
    """What it was trained in; rows are made in float32."""

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


@dataclass(frozen=True)
class GanTask:
    """One GAN to train.

    ``build()`` makes a fresh (generator, discriminator); weights are drawn from torch's global
    generator, which is seeded before. ``quality`` is asked every ``eval_every`` epochs;
    ``teacher``: scaled rows -> class logits, frozen; its cross-entropy joins the generator's loss.
    """

    spec: GanSpec
    build: Callable[[], tuple[nn.Module, nn.Module]]
    train: RowSource
    seed: int
    quality: Quality | None = None
    teacher: Callable[[Tensor], Tensor] | None = None
    resume: Checkpoint | None = None


class Replicate:
    """One GAN in training: its networks, its rows, its checkpoint."""

    def __init__(self, task: GanTask, world: World) -> None:
        spec, train = task.spec, task.train
        _check(task, world)
        self.task, self.world = task, world
        self.n_classes = len(train.classes)
        self.batch_size = min(spec.batch_size, len(train))
        self.weights = balanced_weights(train.labels) if spec.sampler == "balanced" else None
        self.masks = torch.Generator(world.device)
        self.teacher = task.teacher

        torch.manual_seed(seed_of(task.seed, "networks"))
        self.generator, self.discriminator = (_prepared(network, world) for network in task.build())
        if spec.accumulate > 1 and _has_batch_norm(self.discriminator):
            raise UserError(
                f"{spec.kind}.accumulate: {spec.accumulate} parts would each be normalised alone "
                "by the discriminator's batch norm; use d_norm sn or none, or accumulate 1"
            )
        self.nz: int = self.generator.nz  # type: ignore[assignment]
        modules = {"generator": self.generator, "discriminator": self.discriminator}
        if spec.ema:
            modules["average"] = copy.deepcopy(self.generator).requires_grad_(False)
        adam = partial(FusedAdam, betas=spec.betas)
        optimizers: dict[str, torch.optim.Optimizer] = {
            "discriminator": adam(self.discriminator.parameters(), lr=spec.lr_d),
            "generator": adam(self.generator.parameters(), lr=spec.lr_g),
        }
        self.training = Training(modules, optimizers, Guard(world))
        if task.resume is None:
            self.scale = FeatureScale.fit(train, spec.feature_scale, world)
            begun = {
                "ada": float(spec.d_aug == "diffaugment"),
                "lecam_real": 0.0,
                "lecam_fake": 0.0,
            }
            numbers = {k: torch.tensor(v, device=world.device) for k, v in begun.items()}
            self.training.extra = self.scale.tensors() | numbers
        else:
            self.training.restore(task.resume)
            self.scale = FeatureScale.of(self.training.extra)
        self.trained = self.training.epoch - 1
        """The last epoch that was begun."""
        self._settle_precision()
        self.rows = TrainingRows(train, self.scale, self.task.spec.precision, world)

    def _settle_precision(self) -> None:
        """The configuration's ``auto`` becomes what is faster here, or what was begun with."""
        spec, world, device = self.task.spec, self.world, self.world.device
        networks = {"generator": self.generator, "discriminator": self.discriminator}

        def one_pass(copies: dict[str, nn.Module]) -> Callable[[], None]:
            n = min(PROBED_ROWS, self.batch_size)
            z, label = torch.randn(n, self.nz, device=device), torch.arange(n, device=device)
            label = label % self.n_classes

            def run() -> None:
                out = copies["discriminator"](copies["generator"](z, label), label)
                heads = [head.float().square().mean() for head in out if head is not None]
                torch.stack(heads).sum().backward()

            return run

        facts, no_fp16 = self.training.facts, None
        if spec.has_penalty:
            no_fp16 = "the penalty on gradients is half of a step, and is float32"
        elif spec.feature_scale == "none":
            no_fp16 = "rows that are not scaled may be larger than 65,504"
        precision = settle(spec.precision, networks, one_pass, world, facts, no_fp16=no_fp16)
        self.training.scale_losses(precision)
        self.task = replace(self.task, spec=spec.model_copy(update={"precision": precision}))

    @property
    def phase(self) -> int:
        """Where in a round of ``n_critic`` steps the replicate is."""
        return self.training.step % self.task.spec.n_critic

    @property
    def resident(self) -> bool:
        """Whether its training rows lie on the device."""
        return self.rows.kept is not None

    def begin_epoch(self) -> None:
        """Make ready for the epoch that comes next."""
        task, epoch = self.task, self.training.epoch
        self.trained = epoch
        self.masks.manual_seed(dropout_seed(task.seed, epoch, self.world))
        order: Order = {
            "seed": task.seed,
            "epoch": epoch,
            "weights": self.weights,
            "steps": task.spec.steps_per_epoch,
        }
        self._drawn = self.rows.draws(self.batch_size, **order)

    def next_draw(self) -> StepDraw | None:
        """What the epoch's next step is made from; None at its end."""
        if (rows := next(self._drawn, None)) is None:
            return None
        draws = Draws(self.task.seed, self.training.step, self.batch_size, self.world)
        return StepDraw(rows, draws)

    def batch(self, drawn: StepDraw) -> GanBatch:
        """The rows that were drawn, on the device, with the step's latents."""
        real, real_label = self.rows.take(drawn.rows)
        spec, draws = self.task.spec, drawn.draws
        same = spec.adv == "wgan_gp"
        fake_label = real_label if same else draws.labels("label", self.n_classes)
        return GanBatch(real, real_label, fake_label, draws.normal("latent", self.nz), draws)

    def end_epoch(self, steps: Sequence[GanStep]) -> dict[str, float]:
        """Metrics of the epoch, which ``steps`` have counted."""
        spec, epoch, quality = self.task.spec, self.training.epoch, self.task.quality
        mine = [(step, step.replicates.index(self)) for step in steps]
        metrics: dict[str, float] = {}
        for player in ("discriminator", "generator"):
            tally = Tally.of_one([(step.tallies[player], i) for step, i in mine], self.world)
            metrics |= {f"train/{name}": value for name, value in tally.means().items()}
        real, fake = ClassSpread.deviations([(step.spread, i) for step, i in mine], self.world)
        metrics["train/diversity"] = fake / max(real, SMALLEST)
        metrics["collapsed"] = float(_has_collapsed(metrics, spec))
        due = (epoch + 1) % spec.eval_every == 0 or epoch + 1 == spec.epochs
        if quality is not None and due and all(map(math.isfinite, metrics.values())):
            metrics |= self._judged(quality)
        return metrics

    def check_modes(self) -> None:
        """Raise Collapsed where rows had no variety in the last epochs, as many as the patience,
        all of them in the second half of the training: in the first, variety may be to come."""
        spec, done = self.task.spec, self.training.epoch
        patience = spec.collapse_patience
        if not patience or done - patience <= spec.epochs // 2:
            return
        last = [each["train/diversity"] for each in self.training.history[-patience:]]
        if max(last) < COLLAPSED_SPREAD:
            raise Collapsed(
                self.training.epoch,
                f"for {patience} epochs its rows had below {COLLAPSED_SPREAD} of the real ones'"
                f" within-class deviation, now {last[-1]:.2g}",
            )

    def finish(self) -> Gan:
        average = self.training.modules.get("average", self.generator)
        return Gan(average, self.discriminator, self.scale, self.task.spec.precision)

    def _judged(self, quality: Quality) -> dict[str, float]:
        """Scores of rows from latents that are the same at every epoch."""
        world = self.world
        modes = [(module, module.training) for module in (self.generator, self.discriminator)]
        gan = self.finish()
        source = generator(self.task.seed, "quality", device=world.device)
        z = torch.randn(len(quality.labels), self.nz, generator=source, device=world.device)
        scores = judged(quality, lambda rows, label: gan.generate(z[rows], label), world)
        for module, mode in modes:
            module.train(mode)
        return scores


def _check(task: GanTask, world: World) -> None:
    spec, train = task.spec, task.train
    batch_size = min(spec.batch_size, len(train))
    check_batch_size(batch_size, world, f"{spec.kind}.batch_size")
    if batch_size // world.size < spec.accumulate:
        raise UserError(
            f"{spec.kind}.accumulate: a batch of {batch_size} rows on {world.size} ranks has no "
            f"{spec.accumulate} parts; lower it or raise batch_size"
        )
    if (train.labels < 0).any():
        raise UserError(f"{spec.kind}: {(train.labels < 0).sum()} rows have no label; drop them")


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())


def _prepared(network: nn.Module, world: World) -> nn.Module:
    return convert_batchnorm(channels_innermost(network).to(world.device), world)


def _has_collapsed(metrics: dict[str, float], spec: GanSpec) -> bool:
    beaten = spec.adv != "wgan_gp" and metrics.get("train/d_adversarial", 1.0) < COLLAPSED_LOSS
    return beaten or metrics["train/diversity"] < COLLAPSED_SPREAD
