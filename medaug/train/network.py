"""Training a network on real rows and the rows that an arm adds.

Every arm takes the same number of optimiser steps, and scaling is fitted on the real training
rows. By default the result is an average of the weights over the last part of a fixed number of
steps, or of an earlier one where that was plainly better. The epoch of the lowest validation loss,
which papers take, is the luck of a dozen patients: with a ResNet-50 on 94 head CTs it was the first
one in three of five trainings.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from medaug.errors import UserError
from medaug.models.classifiers import CLASSIFIERS, class_logits
from medaug.models.losses import focal_loss
from medaug.seeding import seed_of
from medaug.spec.classifier import LINEAR, NetworkSpec
from medaug.store import Store, balanced_weights
from medaug.train.adam import FusedAdam
from medaug.train.average import follow, settle_batchnorm
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.choice import chosen_threshold, plainly_lower
from medaug.train.feed import Feed, fit_scale, split_fixed
from medaug.train.loop import Guard, Statistics, Training, part, run_epochs
from medaug.train.precision import autocast, settle
from medaug.train.scaling import FeatureScale, channels_last
from medaug.train.weighting import class_counts, class_weights, logit_shift, patient_means
from medaug.train.world import World, check_batch_size, convert_batchnorm, distribute

EVAL_BATCH = 64
SETTLING = 16
"""Batches from which batch norm's statistics are taken, at most."""
PROBED_ROWS = 8
"""Rows on which the two precisions are compared."""

PROFILE = 6.94
"""The averaged weights follow the weights by the share 1 - (1 - 1/t)^(PROFILE + 1) in step t: a
power-function profile whose standard deviation is a tenth of the steps so far, however many these
are (Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models", 3.1).
"""


@dataclass(frozen=True)
class NetworkClassifier:
    """A trained network, on every rank."""

    spec: NetworkSpec
    shape: tuple[int, ...]
    """Of the rows it takes."""
    n_classes: int
    weights: dict[str, torch.Tensor]
    scale: FeatureScale
    shift: torch.Tensor
    """(K,) float32, added to the logits for unequal classes."""
    threshold: float
    """From this probability on a row is positive (the last of two classes)."""
    best_epoch: int
    """Counted from 1."""
    scores: dict[str, float]
    """Metrics of that epoch."""
    history: list[dict[str, float]]

    def predict(self, rows: Store, world: World) -> np.ndarray:
        """Class probabilities (n, K) float32 of ``rows``, in order, on every rank.

        Outputs beyond the classes (study C's third neuron) are left out. Raises UserError when
        there are no rows.
        """
        if len(rows) == 0:
            raise UserError(f"classifier: no rows to predict in {rows.name}; check the split")
        network = _build(self.spec, self.shape, self.n_classes).to(world.device)
        network.load_state_dict(self.weights)
        fixed, trained = split_fixed(network)
        feed = Feed(rows, self.scale, fixed, world)
        n_out = _outputs(self.spec, self.n_classes)
        logits = _logits(network, trained, feed, self.spec, n_out, world)
        return _probability(logits, self.shift)


def train_network(
    spec: NetworkSpec,
    real: Store,
    added: Store | None,
    val: Store,
    world: World,
    seed: int,
    *,
    only_added: bool = False,
    steps_per_epoch: int | None = None,
    resume: Checkpoint | None = None,
) -> Iterator[Progress]:
    """Train on ``real`` and ``added`` rows; the last Progress carries a
    :class:`NetworkClassifier`.

    With ``only_added``, real rows decide the scaling and the number of steps, and nothing else.

    An epoch has ``steps_per_epoch`` global batches drawn from all rows, by default as many as one
    pass over the real rows alone. Metrics: ``train/loss``; ``val/loss``, the training loss (class
    weights and focal factor included) of the validation rows; and ``val/balanced_accuracy`` of the
    most probable class: both of the averaged weights, or of the weights as they are where the best
    epoch is to be found, which is that of the lowest ``val/loss``.

    Raises:
        UserError: no rows, rows without a label, or settings that do not fit them.
        Diverged: see :class:`medaug.train.loop.Guard`.
    """
    used = (None if only_added else real, added)
    train = Store.concat(*(store for store in used if store is not None))
    _check(spec, train, val, world)
    run = Run(spec, real, train, val, world, seed, resume)
    steps = steps_per_epoch or max(1, len(real) // spec.batch_size)
    one_epoch = partial(run.one_epoch, steps=steps)
    yield from run_epochs(run.training, world, seed, spec.epochs, one_epoch, run.finish)


class Run:
    """One training of one classifier."""

    def __init__(
        self,
        spec: NetworkSpec,
        real: Store,
        train: Store,
        val: Store,
        world: World,
        seed: int,
        resume: Checkpoint | None,
    ) -> None:
        self.spec, self.world, self.seed = spec, world, seed
        self.shape, self.n_classes = train.schema.shape, len(train.classes)
        torch.manual_seed(seed_of(seed, "classifier"))
        network = _build(spec, self.shape, self.n_classes).to(world.device)
        network = convert_batchnorm(network, world)
        self.network, self.optimizer = network, _optimizer(spec, network)
        modules = {"network": network}
        if spec.final == "average":
            modules["average"] = copy.deepcopy(network)
        self.training = Training(modules, {"optimizer": self.optimizer}, Guard(world))
        self.judged = modules.get("average", network)
        if resume is None:
            scale = fit_scale(real, world).tensors()
            self.training.extra = {f"scale.{name}": tensor for name, tensor in scale.items()}
            shift = logit_shift(class_counts(train.labels, train.classes), spec.weighting)
            self.training.extra["shift"] = torch.from_numpy(shift).float().to(world.device)
        else:
            self.training.restore(resume)
        self._settle_precision()
        self.scale = FeatureScale.of(part(self.training.extra, "scale"))
        fixed, self.trained = split_fixed(network)
        self.model = distribute(self.trained, world)
        self.rows, self.val = (Feed(store, self.scale, fixed, world) for store in (train, val))
        self.weights = balanced_weights(train.labels) if spec.balanced_sampler else None
        self.val_patients = val.patients
        class_weight = _class_weight(spec, train, world)
        self.loss = partial(focal_loss, gamma=spec.focal_gamma, class_weight=class_weight)

    def _settle_precision(self) -> None:
        """The configuration's ``auto`` becomes what is faster here, or what was begun with."""

        def one_pass(copies: dict[str, nn.Module]) -> Callable[[], None]:
            x = torch.randn(min(PROBED_ROWS, self.spec.batch_size), *self.shape)
            x = channels_last(x.to(self.world.device))
            return lambda: copies["network"](x).float().square().mean().backward()

        facts, networks = self.training.facts, {"network": self.network}
        precision = settle(self.spec.precision, networks, one_pass, self.world, facts)
        self.spec = self.spec.model_copy(update={"precision": precision})
        self.training.scale_losses(precision)

    def one_epoch(self, epoch: int, *, steps: int) -> dict[str, float]:
        statistics = Statistics(self.world)
        self.network.train()
        for x, label in self.rows.batches(
            self.spec.batch_size, seed=self.seed, epoch=epoch, steps=steps, weights=self.weights
        ):
            statistics.add("train/loss", *self.learn(x, label))
            if self.judged is not self.network:
                follow([self.judged], [self.network], (1 - 1 / self.training.step) ** (PROFILE + 1))
        if self.judged is not self.network:
            self._settle(steps)
        logits = self._val_logits()
        metrics = statistics.means() | self._judge(logits)
        if self.spec.final == "average":
            self._note_average(logits)
        else:
            self._note_best(metrics["val/loss"])
        return metrics

    def learn(self, x: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, int, torch.Tensor]:
        """One step: the sum of its losses, over how many rows, and whether it was skipped."""
        with autocast(self.world, self.spec.precision):
            logits = self.model(x)
        loss = self.loss(class_logits(logits), label)
        self.optimizer.zero_grad(set_to_none=True)
        # DDP takes the mean over ranks, whose shares of the batch may differ by a row.
        share = loss * (len(label) * self.world.size / self.spec.batch_size)
        self.training.backward(share, "optimizer")
        skipped = self.training.move("optimizer")
        self.training.step += 1
        return loss * len(label), len(label), skipped

    def finish(self) -> NetworkClassifier:
        checkpoint = self.training.checkpoint()
        self.judged.load_state_dict(_weights(checkpoint, self.spec))
        return network_of(
            checkpoint,
            self.spec,
            self.shape,
            self.n_classes,
            threshold=self._threshold(),
        )

    def _judge(self, logits: torch.Tensor) -> dict[str, float]:
        label = self.val.labels
        predicted = logits[:, : self.n_classes].argmax(1)
        return {
            "val/loss": float(self.loss(logits, label)),
            "val/balanced_accuracy": _balanced_accuracy(predicted, label),
        }

    def _threshold(self) -> float:
        if self.spec.threshold == "half" or self.n_classes > 2:
            return 0.5
        probability = _probability(self._val_logits(), self.training.extra["shift"])[:, 1]
        return chosen_threshold(probability, self.val.labels.cpu().numpy(), self.val_patients)

    def _val_logits(self) -> torch.Tensor:
        n_out = _outputs(self.spec, self.n_classes)
        trained = split_fixed(self.judged)[1]
        return _logits(self.judged, trained, self.val, self.spec, n_out, self.world)

    def _settle(self, steps: int) -> None:
        """Batch norm's statistics under the averaged weights, from batches like an epoch's."""
        trained = split_fixed(self.judged)[1]

        def forward(x: torch.Tensor) -> None:
            with autocast(self.world, self.spec.precision):
                trained(x)

        batches = self.rows.batches(
            self.spec.batch_size,
            seed=self.seed,
            epoch=-1,  # the same ones each time
            steps=min(steps, SETTLING),
            weights=self.weights,
        )
        settle_batchnorm(self.judged, forward, (x for x, _ in batches))

    def _note_best(self, loss: float) -> None:
        """Keep the weights if ``loss`` is the lowest so far; see whether it is time to stop."""
        facts, epoch, patience = self.training.facts, self.training.epoch + 1, self.spec.early_stop
        if loss < facts.get("best_loss", math.inf):
            facts |= {"best_loss": loss, "best_epoch": epoch}
            self._keep()
        waited = epoch - facts.get("best_epoch", epoch)
        self.training.stopped = patience is not None and waited >= patience

    def _note_average(self, logits: torch.Tensor) -> None:
        """The last epoch is the result, unless an earlier one was plainly better."""
        facts, epoch = self.training.facts, self.training.epoch + 1
        adjusted = logits[:, : self.n_classes] + self.training.extra["shift"]
        row_losses = nn.functional.cross_entropy(adjusted, self.val.labels, reduction="none")
        losses = patient_means(row_losses.double().cpu().numpy(), self.val_patients)
        lowest = facts.get("lowest")
        if lowest is None or losses.mean() < np.mean(lowest["losses"]):
            lowest = facts["lowest"] = {"epoch": epoch, "losses": losses.tolist()}
            self._keep()
        sooner = plainly_lower(np.array(lowest["losses"]), losses)
        facts["best_epoch"] = lowest["epoch"] if sooner else epoch

    def _keep(self) -> None:
        for name, tensor in self.judged.state_dict().items():
            self.training.extra[f"best.{name}"] = tensor.detach().clone()


def _weights(checkpoint: Checkpoint, spec: NetworkSpec) -> dict[str, torch.Tensor]:
    if spec.final == "average" and checkpoint.state["facts"]["best_epoch"] == checkpoint.epoch:
        return part(checkpoint.tensors, "average")
    return part(part(checkpoint.tensors, "extra"), "best")


def network_of(
    checkpoint: Checkpoint,
    spec: NetworkSpec,
    shape: tuple[int, ...],
    n_classes: int,
    *,
    threshold: float,
) -> NetworkClassifier:
    """The classifier that a training's last ``checkpoint`` holds.

    The threshold is no part of it; a finished trial's result has it.
    """
    extra = part(checkpoint.tensors, "extra")
    facts, history = checkpoint.state["facts"], checkpoint.state["history"]
    best = facts["best_epoch"]
    settled = facts.get("precision", "fp32" if spec.precision == "auto" else spec.precision)
    spec = spec.model_copy(update={"precision": settled})
    weights = _weights(checkpoint, spec)
    return NetworkClassifier(
        spec=spec,
        shape=shape,
        n_classes=n_classes,
        weights={name: tensor.cpu() for name, tensor in weights.items()},
        scale=FeatureScale.of(part(extra, "scale")),
        shift=extra["shift"].cpu(),
        threshold=threshold,
        best_epoch=best,
        scores=history[best - 1],
        history=history,
    )


def _check(spec: NetworkSpec, train: Store, val: Store, world: World) -> None:
    check_batch_size(spec.batch_size, world, "classifier.batch_size")
    for name, store in (("training", train), ("validation", val)):
        if len(store) == 0:
            raise UserError(f"classifier: no {name} rows; check the split")
        if store.labels.min() < 0:
            raise UserError(f"classifier: {name} rows without a label; leave them out")
    if spec.n_out is not None and len(train.classes) > spec.n_out:
        raise UserError(
            f"classifier.n_out: {spec.n_out} outputs for {len(train.classes)} classes; leave it out"
        )


def _build(spec: NetworkSpec, shape: tuple[int, ...], n_classes: int) -> nn.Module:
    if spec.kind not in CLASSIFIERS:
        known = ", ".join([*LINEAR, *CLASSIFIERS])
        raise UserError(f"classifier.kind: unknown '{spec.kind}'; use {known}")
    if len(shape) != 3 and spec.kind != "mlp":
        raise UserError(
            f"classifier: rows have shape {shape}, and {spec.kind} takes (C, H, W); use mlp or one "
            f"of {', '.join(LINEAR)}"
        )
    network = CLASSIFIERS[spec.kind](shape, _outputs(spec, n_classes), spec.dropout)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _outputs(spec: NetworkSpec, n_classes: int) -> int:
    return spec.n_out or n_classes


def _optimizer(spec: NetworkSpec, network: nn.Module) -> torch.optim.Optimizer:
    parameters, lr, decay = network.parameters(), spec.lr, spec.weight_decay
    if spec.optimizer == "adam":
        return FusedAdam(parameters, lr=lr, weight_decay=decay)
    if spec.optimizer == "rmsprop":
        # Only study B names it, with a rate only: the rest as in Keras, which it used.
        return torch.optim.RMSprop(parameters, lr=lr, alpha=0.9, eps=1e-7, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=decay, fused=True)


def _class_weight(spec: NetworkSpec, train: Store, world: World) -> torch.Tensor | None:
    if spec.weighting != "class_weights":
        return None
    used = class_weights(class_counts(train.labels, train.classes))
    # An output beyond the classes is never a target.
    rest = np.ones(_outputs(spec, len(used)) - len(used))
    return torch.from_numpy(np.concatenate([used, rest])).float().to(world.device)


@torch.inference_mode()
def _logits(
    network: nn.Module, trained: nn.Module, rows: Feed, spec: NetworkSpec, n_out: int, world: World
) -> torch.Tensor:
    """Logits (n, n_out) float32 of all rows, in order, on every rank."""
    network.eval()
    mine = []
    for x in rows.in_order(EVAL_BATCH):
        with autocast(world, spec.precision):
            mine.append(class_logits(trained(x)).float())
    return world.gather(torch.cat(mine or [rows.labels.new_zeros(0, n_out).float()]))


def _probability(logits: torch.Tensor, shift: torch.Tensor) -> np.ndarray:
    """(n, K) float32 of the classes' own outputs, adjusted by ``shift`` (K,)."""
    adjusted = logits[:, : len(shift)] + shift.to(logits.device)
    return adjusted.softmax(1).cpu().numpy()


def _balanced_accuracy(predicted: torch.Tensor, label: torch.Tensor) -> float:
    """Mean recall of the classes that occur."""
    hits, rows = (torch.bincount(x) for x in (label[predicted == label], label))
    hits = torch.nn.functional.pad(hits, (0, len(rows) - len(hits)))
    return float((hits[rows > 0] / rows[rows > 0]).mean())
