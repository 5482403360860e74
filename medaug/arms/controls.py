"""The arms that add nothing new: what every other arm has to beat."""

from __future__ import annotations

import numpy as np

from medaug.arms.base import ArmContext, ResampleArm, balanced_rows
from medaug.spec.arms import DuplicateSpec, NoneSpec
from medaug.store.sampler import permutation


class NoneArm(ResampleArm):
    """The training rows as they are."""

    Config = NoneSpec

    def rows(self, ctx: ArmContext, n: int) -> np.ndarray:
        return np.empty(0, np.int64)


class DuplicateArm(ResampleArm):
    """As many real rows again as another arm has synthetic ones.

    Each row comes once before any comes a second time.
    """

    Config = DuplicateSpec
    config: DuplicateSpec

    def rows(self, ctx: ArmContext, n: int) -> np.ndarray:
        if self.config.classes == "balanced":
            return balanced_rows(ctx, n, "duplicate")
        rounds = range(-(-n // len(ctx.train)))
        order = [permutation(len(ctx.train), ctx.seed, "duplicate", r) for r in rounds]
        return np.concatenate([np.empty(0, np.int64), *order])[:n]
