"""Training the velocity field of a flow matching model: rows in, a model that makes more out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medaug.errors import UserError
from medaug.models.flow_matching import follow_field, velocity_loss, without_class
from medaug.models.layers import channels_innermost
from medaug.seeding import generator, seed_of
from medaug.spec.arms import FlowImageSpec
from medaug.store import balanced_weights
from medaug.train.adam import FusedAdam
from medaug.train.average import follow
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.draws import Draws
from medaug.train.judging import Quality, judged
from medaug.train.loop import Guard, Training, run_epochs
from medaug.train.precision import autocast, settle
from medaug.train.rows import RowSource
from medaug.train.scaling import FeatureScale
from medaug.train.tally import Tally
from medaug.train.training_rows import TrainingRows
from medaug.train.world import World, check_batch_size, distribute

PROBED_ROWS = 8
"""Rows on which the two precisions are compared."""


@dataclass(frozen=True)
class Flow:
    """A trained field with averaged weights, and the scaling of its rows."""

    field: nn.Module
    scale: FeatureScale
    n_classes: int
    precision: str = "fp32"
    """What it was trained in; rows are made in float32."""

    def __post_init__(self) -> None:
        # Some kernels round by whether weights may learn, even where nothing does.
        self.field.eval().requires_grad_(False)

    @torch.inference_mode()
    def generate(self, x0: Tensor, label_N: Tensor, *, guidance: float, steps: int) -> Tensor:
        """Rows (N, *shape) float32 in the units of the training rows, from noise (N, *shape)."""
        x = follow_field(self.field, x0, label_N, self.n_classes, guidance=guidance, steps=steps)
        return self.scale.decode(x)


@dataclass(frozen=True)
class FlowTask:
    """One field to train.

    ``build()`` makes a fresh one, a function as in :mod:`medaug.models.flow_matching`; weights are
    drawn from torch's global generator, which is seeded before. ``quality`` is asked every
    ``eval_every`` epochs.
    """

    spec: FlowImageSpec
    build: Callable[[], nn.Module]
    train: RowSource
    seed: int
    quality: Quality | None = None
    resume: Checkpoint | None = None


def train_flow(task: FlowTask, world: World) -> Iterator[Progress]:
    """Train on the task's rows; the last Progress carries a :class:`Flow`.

    Metrics per epoch: ``train/loss`` (the velocity's mean squared error in scaled units) and the
    scores of ``quality``. N ranks equal one rank with the same global batch up to rounding.

    Raises:
        UserError: rows without a label, or fewer rows in a batch than ranks.
        Diverged: see :class:`medaug.train.loop.Guard`.
    """
    one = _Training(task, world)
    return run_epochs(one.training, world, task.seed, task.spec.epochs, one.epoch, one.finish)


class _Training:
    def __init__(self, task: FlowTask, world: World) -> None:
        spec, train = task.spec, task.train
        self.task, self.spec, self.world = task, spec, world
        self.batch_size = min(spec.batch_size, len(train))
        check_batch_size(self.batch_size, world, f"{spec.kind}.batch_size")
        if (train.labels < 0).any():
            raise UserError(
                f"{spec.kind}: {(train.labels < 0).sum()} rows have no label; drop them"
            )
        self.n_classes = len(train.classes)
        self.weights = balanced_weights(train.labels)
        torch.manual_seed(seed_of(task.seed, "networks"))
        network = channels_innermost(task.build()).to(world.device)
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.adam = FusedAdam(network.parameters(), lr=spec.lr)
        modules = {"network": network, "average": self.average}
        self.training = Training(modules, {"adam": self.adam}, Guard(world))
        if task.resume is None:
            self.scale = FeatureScale.fit(train, "standardise", world)
            self.training.extra = self.scale.tensors()
        else:
            self.training.restore(task.resume)
            self.scale = FeatureScale.of(self.training.extra)
        self.network, self.precision = network, self._settled(network)
        self.training.scale_losses(self.precision)
        self.field = distribute(network, world)
        self.rows = TrainingRows(train, self.scale, self.precision, world)

    def _settled(self, network: nn.Module) -> str:
        device, shape = self.world.device, self.task.train.schema.shape

        def one_pass(copies: dict[str, nn.Module]) -> Callable[[], None]:
            n = min(PROBED_ROWS, self.batch_size)
            x, t = torch.randn(n, *shape, device=device), torch.rand(n, device=device)
            label = torch.arange(n, device=device) % self.n_classes
            return lambda: copies["network"](x, t, label).float().square().mean().backward()

        facts = self.training.facts
        return settle(self.spec.precision, {"network": network}, one_pass, self.world, facts)

    def epoch(self, number: int) -> dict[str, float]:
        """Train one epoch, and judge what is made after it, where that is due."""
        spec, tally = self.spec, Tally(self.world)
        batches = self.rows.batches(
            self.batch_size,
            seed=self.task.seed,
            epoch=number,
            weights=self.weights,
            steps=spec.steps_per_epoch,
        )
        for x1, label in batches:
            loss = self.loss(x1.float(), label)
            self.adam.zero_grad(set_to_none=True)
            # DDP averages over ranks; shares of a global batch may differ by a row.
            share = loss * (len(x1) * self.world.size / self.batch_size)
            self.training.backward(share, "adam")
            tally.add({"train/loss": loss}, len(x1), self.training.move("adam"))
            follow([self.average], [self.network], self._decay())
            self.training.step += 1
        metrics = tally.means()
        due = (number + 1) % spec.eval_every == 0 or number + 1 == spec.epochs
        if self.task.quality is not None and due and all(map(math.isfinite, metrics.values())):
            metrics |= judged(self.task.quality, self._made(self.task.quality), self.world)
        return metrics

    def loss(self, x1: Tensor, label: Tensor) -> Tensor:
        """Of this rank's rows in the next step, some without their class."""
        draws = Draws(self.task.seed, self.training.step, self.batch_size, self.world)
        hidden = draws.uniform("hidden") < self.spec.drop_label
        told = without_class(label, hidden, self.n_classes)
        x0, t = draws.normal("noise", *x1.shape[1:]), draws.uniform("time")
        with autocast(self.world, self.precision):
            return velocity_loss(self.field, x0, x1, t, told)

    def _decay(self) -> float:
        """The average's, shorter at the beginning, when weights are far from their end."""
        step = self.training.step
        return min(self.spec.ema, (1 + step) / (10 + step))

    def _made(self, quality: Quality) -> Callable[[Tensor, Tensor], Tensor]:
        """Rows from noise that is the same at every epoch."""
        flow, device = self.finish(), self.world.device
        source = generator(self.task.seed, "quality", device=device)
        shape = self.task.train.schema.shape
        noise = torch.randn(len(quality.labels), *shape, generator=source, device=device)
        guidance, steps = self.spec.guidance, self.spec.solver_steps
        return lambda rows, label: flow.generate(noise[rows], label, guidance=guidance, steps=steps)

    def finish(self) -> Flow:
        return Flow(self.average, self.scale, self.n_classes, self.precision)
