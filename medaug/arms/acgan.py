"""The auxiliary-classifier GAN of study A, on features of any size or on images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from torch import nn

from medaug.arms.adversarial import GanArm, latents
from medaug.arms.base import ArmContext, Rows
from medaug.arms.probe import Decode, probe
from medaug.errors import UserError
from medaug.models.acgan import AcganDiscriminator, AcganGenerator, sizes
from medaug.spec.arms import AcganSpec
from medaug.train.checkpoint import Checkpoint
from medaug.train.gan import GanTask
from medaug.train.rows import RowSource


class AcganArm(GanArm):
    """One ACGAN for all classes (Odena et al. 2017), its rows filtered by predicted class.

    After sampling, ``remarks["kept"]`` is the share of candidates that passed (the paper: .823).
    """

    Config: ClassVar[type[AcganSpec]] = AcganSpec
    config: AcganSpec
    _tried = _passed = 0
    """Candidates of the last ``sample``, and those that passed the filter."""

    def check_side(self, name: str, rows: int, images: int) -> None:
        try:
            sizes(rows, self.config.geometry)
        except ValueError as error:
            raise UserError(
                f"arms.{name}: {error}, or rows of another size (features.tap, data.image_size)"
            ) from None

    def task(self, ctx: ArmContext, resume: Checkpoint | None) -> GanTask:
        return self.task_on(ctx.train, ctx, resume)

    def task_on(
        self,
        rows: RowSource,
        ctx: ArmContext,
        resume: Checkpoint | None,
        decode: Decode | None = None,
    ) -> GanTask:
        """Training on ``rows``; ``decode`` turns what is made into rows like ``ctx.train``'s."""
        self.n_classes, self.shape = len(rows.classes), rows.schema.shape
        AcganArm.check_side(self, self.config.kind, self.shape[-1], self.shape[-1])
        for label in range(self.n_classes):
            ctx.rows_of_class(label)
        quality = probe(ctx.train, ctx.val, ctx.world, decode)
        return GanTask(self.config, self.networks, rows, ctx.seed, quality=quality, resume=resume)

    def networks(self) -> tuple[nn.Module, nn.Module]:
        config = self.config
        channels, height, width = self.shape
        generator = AcganGenerator(
            (channels, height, width),
            self.n_classes,
            config.ngf,
            config.nz,
            config.width_rule,
            config.out_act,
            config.geometry,
            config.n_codes,
        )
        discriminator = AcganDiscriminator(
            (channels, height, width),
            self.n_classes,
            config.ndf,
            config.width_rule,
            config.d_norm,
            config.dropout,
            config.cond,
            config.n_codes,
        )
        return generator, discriminator

    @property
    def filters(self) -> bool:
        return self.config.filter == "discriminator"

    def sample(self, ctx: ArmContext, n: int) -> Rows:
        self._tried = self._passed = 0
        for rows in super().sample(ctx, n):
            if self.filters:
                self.remarks["kept"] = self._passed / self._tried
            yield rows

    def stream(self, label: int, seed: int) -> Iterator[np.ndarray]:
        if not self.filters:
            yield from super().stream(label, seed)
            return
        size = self.block_rows
        waiting = np.empty((0, *self.shape), np.float32)
        tried = passed = 0
        while tried <= self.config.filter_limit * (passed + size):
            index = np.arange(tried, tried + size)
            x, predicted = self.gan.generate_judged(*latents(self.gan, label, index, seed))
            fit = x[predicted == label].cpu().numpy()
            tried, passed = tried + size, passed + len(fit)
            self._tried, self._passed = self._tried + size, self._passed + len(fit)
            waiting = np.concatenate([waiting, fit])
            if len(waiting) >= size:
                yield waiting[:size]
                waiting = waiting[size:]
        if len(waiting):
            yield waiting
