"""Training rows with Gaussian noise."""

from __future__ import annotations

import numpy as np

from medaug.arms.base import ArmContext, GeneratedArm, Rows, balanced_rows, chunks, noise, read
from medaug.spec.arms import NoiseSpec
from medaug.train.scaling import FeatureScale
from medaug.train.world import World


class NoiseArm(GeneratedArm):
    """x = a + sigma s e, e ~ N(0, 1) per value, s the channel's deviation over training rows.

    Where all training values are >= 0, so are those made. Each training row of a class is used
    once before any is used again.
    """

    Config = NoiseSpec
    instant = True
    config: NoiseSpec

    def sample(self, ctx: ArmContext, n: int) -> Rows:
        scale = FeatureScale.fit(ctx.train, "standardise", World.single())
        rows = balanced_rows(ctx, n, "noise")
        labels = ctx.train.labels[rows]
        shape = ctx.train.schema.shape
        for index in chunks(n, shape):
            y = scale.encode(read(ctx.train, rows[index]))
            e = noise(int(np.prod(shape)), index, ctx.seed, "noise").view_as(y)
            yield scale.decode(y + self.config.sigma * e).numpy(), labels[index]
