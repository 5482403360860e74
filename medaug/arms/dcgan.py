"""The DCGANs of studies B and D: one per class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from medaug.arms.adversarial import gan_of, gan_tensors, in_lockstep, latents
from medaug.arms.base import ArmContext, FittedArm
from medaug.arms.probe import probe
from medaug.errors import UserError
from medaug.models.dcgan import DCGANS
from medaug.seeding import seed_of
from medaug.spec.gan import GanSpec, per_preset
from medaug.spec.study import Beta, Positive, PositiveFloat
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.gan import Gan, GanTask, train_gan
from medaug.train.loop import part


class DcganSpec(GanSpec):
    """Study B's setting: Adam 2e-4 with beta 0.5, batch 16, 2500 epochs.

    Study D gives 500 epochs and nothing else. ``stable`` smooths the labels and averages the
    weights of the same networks.
    """

    kind: Literal["dcgan"] = "dcgan"
    networks: Literal["auto", "dcgan32", "dcgan128"] = "auto"
    """``auto``: study B's below 64 pixels, study D's from there on."""
    nz: Positive = 100
    width: Positive | None = None
    """Channels (study B: 128 everywhere, study D: 64 in the discriminator's first layer)."""
    kernel: Literal[4, 5] = 5
    """Of study D's networks, which the paper does not give."""

    adv: Literal["bce"] = "bce"
    cond: Literal["none"] = "none"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = per_preset(stable=0.1, as_published=0)
    sampler: Literal["prior"] = "prior"
    feature_scale: Literal["minmax"] = "minmax"
    epochs: Positive = per_preset(stable=500, as_published=2500)
    lr_g: PositiveFloat = 2e-4
    lr_d: PositiveFloat = 2e-4
    betas: tuple[Beta, Beta] = (0.5, 0.999)
    ema: Annotated[float, Field(ge=0, lt=1)] = per_preset(stable=0.99, as_published=0.0)
    eval_every: Positive = 50


class DcganArm(FittedArm):
    """An unconditional DCGAN (Radford et al. 2016) for each class, trained side by side.

    An epoch is one epoch of each; metrics are their means, and each one's own as ``class_0/…``.
    """

    Config = DcganSpec
    config: DcganSpec
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
