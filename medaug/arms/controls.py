"""The arms that add nothing new: what every other arm has to beat."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from medaug.arms.base import Arm, ArmContext, ResampleArm, balanced_rows
from medaug.spec.arms import (
    ClassWeightsSpec,
    DuplicateSpec,
    LogitAdjustSpec,
    MoreRealSpec,
    NoneSpec,
)
from medaug.spec.study import ArmSpec
from medaug.store.sampler import permutation


class NoneArm(ResampleArm):
    """The training rows as they are."""

    Config: ClassVar[type[ArmSpec]] = NoneSpec
    adds_rows = False

    def rows(self, ctx: ArmContext, n: int) -> np.ndarray:
        return np.empty(0, np.int64)


class ClassWeightsArm(NoneArm):
    """The training rows as they are; classes weigh alike in the classifier's loss."""

    Config: ClassVar[type[ArmSpec]] = ClassWeightsSpec
    weighting = "class_weights"


class LogitAdjustArm(NoneArm):
    """The training rows as they are; the logits are freed of the classes' shares afterwards (Menon
    et al. 2021)."""

    Config: ClassVar[type[ArmSpec]] = LogitAdjustSpec
    weighting = "logit_adjust"


class MoreRealArm(Arm):
    """Real training rows that the small training set leaves out: the positive control, which shows
    what any generator can hope for and whether the study could have seen it."""

    Config = MoreRealSpec
    synthetic = False
    adds_held_back = True


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
