"""Intra-class mixup: rows between two training rows of one class."""

from __future__ import annotations

import numpy as np
import torch

from medaug.arms.base import ArmContext, GeneratedArm, Rows, balanced_rows, chunks, read
from medaug.seeding import numpy_generator
from medaug.spec.arms import MixupSpec


class MixupArm(GeneratedArm):
    """x = w a + (1 - w) b with a, b of one class and w ~ Beta(alpha, alpha).

    Mixup (Zhang et al. 2018) within the class, so that a row has one label as those of all other
    arms. Each training row is a once before any is again; b is any other row of its class.
    """

    Config = MixupSpec
    instant = True
    config: MixupSpec

    def sample(self, ctx: ArmContext, n: int) -> Rows:
        first = balanced_rows(ctx, n, "mixup")
        labels = ctx.train.labels[first]
        for index in chunks(n, ctx.train.schema.shape):
            second, weight = first[index].copy(), np.empty(len(index), np.float32)
            for at, i in enumerate(index):
                random = numpy_generator(ctx.seed, "mixup", int(i))
                others = np.setdiff1d(ctx.rows_of_class(labels[i]), first[i])
                if len(others):
                    second[at] = random.choice(others)
                weight[at] = random.beta(self.config.alpha, self.config.alpha)
            a, b = read(ctx.train, first[index]), read(ctx.train, second)
            w = torch.from_numpy(weight).view(-1, *(1,) * (a.ndim - 1))
            yield torch.lerp(b, a, w).numpy(), labels[index]
