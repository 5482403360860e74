"""Classical augmentation: transformed real images, through the U-Net where rows are features."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from medaug.arms.base import ArmContext, GeneratedArm, Rows, balanced_rows, chunks, read
from medaug.data.augment import STUDY_A, STUDY_D, STUDY_D_EACH, augment, times_four
from medaug.seeding import seed_of
from medaug.spec.arms import ClassicalSpec
from medaug.spec.study import AugmentSpec

POLICIES: Mapping[str, AugmentSpec] = {"table1": STUDY_A, "five": STUDY_D, **STUDY_D_EACH}


class ClassicalArm(GeneratedArm):
    """Training images, each transformed anew; a control, since every row shows a real patient.

    Each image of a class is used once before any is used again. Under ``times4`` the first round
    flips left to right, the second upside down, the third turns, and then they repeat.
    """

    Config = ClassicalSpec
    config: ClassicalSpec
    synthetic = False
    needs_images = True

    def sample(self, ctx: ArmContext, n: int) -> Rows:
        images = ctx.train if ctx.images is None else ctx.images
        rows = balanced_rows(ctx, n, "classical")
        size = np.bincount(ctx.train.labels, minlength=len(ctx.train.classes))
        labels = ctx.train.labels[rows]
        rounds = (np.arange(n) // len(ctx.train.classes)) // size[labels]
        for index in chunks(n, images.schema.shape):
            x = self._transformed(ctx, read(images, rows[index]), index, rounds[index])
            if ctx.encode is not None:
                x = ctx.encode(x.to(ctx.world.device))
            yield x.float().cpu().numpy(), labels[index]

    def _transformed(
        self, ctx: ArmContext, x_NCHW: torch.Tensor, index: np.ndarray, rounds: np.ndarray
    ) -> torch.Tensor:
        if self.config.policy == "times4":
            ways = times_four(x_NCHW).unflatten(0, (4, -1))
            return ways[torch.from_numpy(1 + rounds % 3), torch.arange(len(x_NCHW))]
        spec = self.config.augment or POLICIES.get(self.config.policy, ctx.augment)
        seeds = [seed_of(ctx.seed, "classical", int(i)) for i in index]
        return augment(x_NCHW, None, spec, seeds)[0]
