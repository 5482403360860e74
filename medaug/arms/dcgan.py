"""The DCGANs of studies B and D: one per class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from medaug.arms.adversarial import gan_of, gan_tensors, in_lockstep, latents
from medaug.arms.base import ArmContext, FittedArm
from medaug.arms.probe import probe
from medaug.errors import UserError
from medaug.models.dcgan import DCGANS
from medaug.seeding import seed_of
from medaug.spec.arms import DcganSpec
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.gan import Gan, GanTask, train_gan
from medaug.train.loop import part


class DcganArm(FittedArm):
    """An unconditional DCGAN (Radford et al. 2016) for each class, trained side by side.

    An epoch is one epoch of each; metrics are their means, and each one's own as ``class_0/…``.
    """

    Config = DcganSpec
    config: DcganSpec
    beside_gaussian = True
    makes_images = True
    gans: list[Gan]

    def fit(self, ctx: ArmContext, resume: Checkpoint | None = None) -> Iterator[Progress]:
        self.n_classes, self.shape = len(ctx.train.classes), ctx.train.schema.shape
        trainings = [partial(self._train, ctx, label) for label in range(self.n_classes)]
        for progress in in_lockstep(trainings, resume):
            if progress.result is not None:
                self.gans = progress.result
                self.precision = self.gans[0].precision
            yield progress

    def _train(self, ctx: ArmContext, label: int, resume: Checkpoint | None) -> Iterator[Progress]:
        rows = ctx.train.select(ctx.rows_of_class(label))
        quality = probe(rows, ctx.val.select(ctx.val.labels == label), ctx.world)
        seed = seed_of(ctx.seed, "class", label)
        task = GanTask(self.config, self._networks, rows, seed, quality=quality, resume=resume)
        return train_gan(task, ctx.world)

    def _networks(self) -> tuple[nn.Module, nn.Module]:
        config = self.config
        channels, size, width = self.shape
        if size != width:
            raise UserError(f"dcgan: rows are {size}x{width}; crop or pad them to a square")
        name = config.networks
        if name == "auto":
            name = "dcgan32" if size < 64 else "dcgan128"
        generator, discriminator = DCGANS[name]
        common: dict[str, Any] = {"channels": channels, "size": size}
        if config.width is not None:
            common["width"] = config.width
        if name == "dcgan128":
            common["kernel"] = config.kernel
        return generator(**common, nz=config.nz), discriminator(**common)

    def block(self, label: int, index: np.ndarray, seed: int) -> Tensor:
        gan = self.gans[label]
        return gan.generate(*latents(gan, label, index, seed))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {
            f"{label}.{name}": tensor
            for label, gan in enumerate(self.gans)
            for name, tensor in gan_tensors(gan, discriminator=False).items()
        }
        return tensors, {"n_classes": self.n_classes, "shape": list(self.shape)}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.n_classes, self.shape = facts["n_classes"], tuple(facts["shape"])
        labels = map(str, range(self.n_classes))
        self.gans = [gan_of(part(tensors, label), self._networks) for label in labels]
