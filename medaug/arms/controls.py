"""The arms that add nothing new: what every other arm has to beat."""

from __future__ import annotations

from typing import Literal

import numpy as np

from medaug.arms.base import ArmContext, ResampleArm, balanced_rows
from medaug.spec.study import ArmSpec
from medaug.store.sampler import permutation


class NoneSpec(ArmSpec):
    kind: Literal["none"] = "none"


class NoneArm(ResampleArm):
    """The training rows as they are."""

    Config = NoneSpec

    def rows(self, ctx: ArmContext, n: int) -> np.ndarray:
        return np.empty(0, np.int64)


class DuplicateSpec(ArmSpec):
    kind: Literal["duplicate"] = "duplicate"
    classes: Literal["balanced", "prior"] = "balanced"
    """``balanced`` adds what the generated arms add: as many rows of each class. ``prior`` keeps
    the classes' shares."""


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
