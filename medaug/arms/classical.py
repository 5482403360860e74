"""Classical augmentation: transformed real images, through the U-Net where rows are features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from medaug.arms.base import ArmContext, GeneratedArm, Rows, balanced_rows, chunks, read
from medaug.arms.monai_chain import MonaiChain
from medaug.data.augment import STUDY_A, STUDY_D, STUDY_D_EACH, augment, times_four
from medaug.seeding import seed_of
from medaug.spec.arms import ClassicalSpec
from medaug.spec.study import AugmentSpec

POLICIES: Mapping[str, AugmentSpec] = {"table1": STUDY_A, "five": STUDY_D, **STUDY_D_EACH}


class ClassicalArm(GeneratedArm):
    """Training images, each transformed anew; a control, since every row shows a real patient.

    Each image of a class is used once before any is used again. Under ``times4`` the first round
    flips left to right, the second upside down, the third turns, and then they repeat.

    Where a frozen encoder makes the features, nothing is transformed twice: ``views`` of every
    image are encoded once for all folds, draws and seeds, and rows are chosen among them.
    """

    Config = ClassicalSpec
    config: ClassicalSpec
    synthetic = False
    needs_images = True
    chain: MonaiChain | None = None
    """Of the configuration's transforms, once they are asked for."""

    def check_side(self, name: str, rows: int, images: int) -> None:
        if self.config.transforms:
            self._chain(f"arms.{name}.transforms").try_out(images)

    def choose(self, ctx: ArmContext, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Which training rows are transformed, and how often each was before: (n,) int64 both."""
        rows = balanced_rows(ctx, n, "classical")
        size = np.bincount(ctx.train.labels, minlength=len(ctx.train.classes))
        return rows, (np.arange(n) // len(ctx.train.classes)) // size[ctx.train.labels[rows]]

    def sample(self, ctx: ArmContext, n: int) -> Rows:
        images = ctx.train if ctx.images is None else ctx.images
        rows, rounds = self.choose(ctx, n)
        for index in chunks(n, images.schema.shape):
            seeds = [seed_of(ctx.seed, "classical", int(i)) for i in index]
            x = self.transform(read(images, rows[index]), rounds[index], seeds, ctx.augment)
            if ctx.encode is not None:
                x = ctx.encode(x.to(ctx.world.device))
            yield x.float().cpu().numpy(), ctx.train.labels[rows[index]]

    def transform(
        self, x_NCHW: torch.Tensor, rounds: np.ndarray, seeds: Sequence[int], own: AugmentSpec
    ) -> torch.Tensor:
        """Images (N, C, S, S) transformed, each for the ``rounds``-th time.

        ``own`` is the study's augmentation, which policy ``study`` takes.
        """
        if self.config.transforms:
            self.chain = self.chain or self._chain("arms.classical.transforms")
            return self.chain(x_NCHW, seeds)
        if self.config.policy == "times4":
            ways = times_four(x_NCHW).unflatten(0, (4, -1))
            return ways[torch.from_numpy(1 + rounds % 3), torch.arange(len(x_NCHW))]
        spec = self.config.augment or POLICIES.get(self.config.policy, own)
        return augment(x_NCHW, None, spec, seeds)[0]

    def _chain(self, where: str) -> MonaiChain:
        return MonaiChain(self.config.transforms or (), where)

    def view(self, x_NCHW: torch.Tensor, rows: np.ndarray, number: int) -> torch.Tensor:
        """View ``number`` (from 0) of images that are rows ``rows`` of a store; the same whatever
        fold, draw or seed asks for it."""
        seeds = [seed_of("classical view", number, row) for row in rows.tolist()]
        return self.transform(x_NCHW, np.full(len(rows), number), seeds, AugmentSpec())
