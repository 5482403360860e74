"""What the arms that train GANs share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medaug.arms.base import ArmContext, FittedArm, noise
from medaug.models.layers import channels_innermost
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.gan import Gan, GanTask, train_gan, train_gans
from medaug.train.loop import part
from medaug.train.scaling import FeatureScale

Networks = Callable[[], tuple[nn.Module, nn.Module]]
"""Makes a fresh (generator, discriminator)."""


def latents(gan: Gan, label: int, index: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
    """Latents (n, nz) and labels (n,) of rows number ``index`` of a class, on the device."""
    device = gan.scale.shift.device
    nz: int = gan.generator.nz  # type: ignore[assignment]
    z = noise(nz, index, seed, "latent", label).to(device)
    return z, torch.full((len(index),), label, device=device)


def gan_tensors(gan: Gan, *, discriminator: bool) -> dict[str, Tensor]:
    """All that a GAN needs to make rows, and its discriminator if that is to filter them."""
    parts: dict[str, Mapping[str, Tensor]] = {
        "generator": gan.generator.state_dict(),
        "scale": gan.scale.tensors(),
    }
    if discriminator:
        parts["discriminator"] = gan.discriminator.state_dict()
    return {f"{name}.{k}": t for name, tensors in parts.items() for k, t in tensors.items()}


def gan_of(tensors: Mapping[str, Tensor], networks: Networks) -> Gan:
    """From what :func:`gan_tensors` gave. Without the discriminator's it is a fresh one.

    Weights lie in memory as they did in training, so rows are the same to the last bit.
    """
    generator, discriminator = map(channels_innermost, networks())
    generator.load_state_dict(part(tensors, "generator"))
    if trained := part(tensors, "discriminator"):
        discriminator.load_state_dict(trained)
    return Gan(generator, discriminator, FeatureScale.of(part(tensors, "scale")))


class GanArm(FittedArm):
    """One GAN for all classes; its rows may be filtered by the class that the discriminator sees.

    A filter turns the stream of a class into that of its candidates that pass, in their order, so
    row j of a class stays a function of the seed, the class and j.
    """

    beside_gaussian = True
    gan: Gan

    def fit(self, ctx: ArmContext, resume: Checkpoint | None = None) -> Iterator[Progress]:
        return self.keep(train_gan(self.task(ctx, resume), ctx.world))

    @classmethod
    def fit_together(
        cls,
        arms: Sequence[GanArm],
        contexts: Sequence[ArmContext],
        resumes: Sequence[Checkpoint | None],
    ) -> list[Iterator[Progress]]:
        """Fit replicates in shared passes; see :func:`medaug.train.gan.train_gans`."""
        rows = zip(arms, contexts, resumes, strict=True)
        tasks = [arm.task(ctx, resume) for arm, ctx, resume in rows]
        trainings = train_gans(tasks, contexts[0].world)
        return [arm.keep(training) for arm, training in zip(arms, trainings, strict=True)]

    @abstractmethod
    def task(self, ctx: ArmContext, resume: Checkpoint | None) -> GanTask:
        """What :meth:`fit` trains."""

    @abstractmethod
    def networks(self) -> tuple[nn.Module, nn.Module]:
        """A fresh generator and discriminator for :attr:`shape` and :attr:`n_classes`."""

    @property
    def filters(self) -> bool:
        return False

    def block(self, label: int, index: np.ndarray, seed: int) -> Tensor:
        return self.gan.generate(*latents(self.gan, label, index, seed))

    def keep(self, progress: Iterator[Progress]) -> Iterator[Progress]:
        """Pass on the epochs of a training and keep the GAN that the last one carries."""
        for step in progress:
            if step.result is not None:
                self.gan = step.result
                self.precision = self.gan.precision
            yield step

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        facts = {"n_classes": self.n_classes, "shape": list(self.shape)}
        return gan_tensors(self.gan, discriminator=self.filters), facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.n_classes, self.shape = facts["n_classes"], tuple(facts["shape"])
        self.gan = gan_of(tensors, self.networks)


def in_lockstep(
    trainings: Sequence[Callable[[Checkpoint | None], Iterator[Progress]]],
    resume: Checkpoint | None,
) -> Iterator[Progress]:
    """Several trainings of equal length as one: an epoch is one epoch of each.

    Metrics are means over the trainings (``collapsed`` if any has), and each one's own as
    ``class_0/…``; the checkpoint holds all of theirs. The last Progress carries the list of
    their results.
    """
    parts = [None if resume is None else _unjoined(resume, i) for i in range(len(trainings))]
    runs = [training(at) for training, at in zip(trainings, parts, strict=True)]
    for steps in zip(*runs, strict=True):
        joined = replace(steps[0], metrics=_joined_metrics([step.metrics for step in steps]))
        checkpoints = [step.checkpoint for step in steps if step.checkpoint is not None]
        joined.checkpoint = _joined(checkpoints) if checkpoints else None
        if steps[0].result is not None:
            joined.result = [step.result for step in steps]
        yield joined


def _joined_metrics(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    shared = [name for name in metrics[0] if all(name in each for each in metrics)]
    joined = {name: float(np.mean([each[name] for each in metrics])) for name in shared}
    if "collapsed" in joined:
        joined["collapsed"] = max(each["collapsed"] for each in metrics)
    own = {f"class_{i}/{k}": v for i, each in enumerate(metrics) for k, v in each.items()}
    return joined | own


def _joined(checkpoints: list[Checkpoint]) -> Checkpoint:
    tensors = {f"{i}.{k}": t for i, each in enumerate(checkpoints) for k, t in each.tensors.items()}
    state: dict[str, Any] = {
        str(i): {"step": each.step, **each.state} for i, each in enumerate(checkpoints)
    }
    epochs = zip(*(each.state["history"] for each in checkpoints), strict=True)
    state["history"] = [_joined_metrics(metrics) for metrics in epochs]
    return Checkpoint(checkpoints[0].epoch, checkpoints[0].step, tensors, state)


def _unjoined(checkpoint: Checkpoint, i: int) -> Checkpoint:
    state = dict(checkpoint.state[str(i)])
    step = state.pop("step")
    return Checkpoint(checkpoint.epoch, step, part(checkpoint.tensors, str(i)), state)
