"""Unlabelled real rows under the classes that a classifier gives them."""

from __future__ import annotations

import numpy as np

from medaug.arms.base import ArmContext, GeneratedArm, Rows, chunks, read
from medaug.spec.arms import PseudoLabelsSpec


class PseudoLabelsArm(GeneratedArm):
    """Rows of the pool, as many of each class, the surest first (self-training: Yarowsky 1995;
    Lee 2013). Where few are called a class, each comes once before any comes again.

    What a generator that learns from the pool has to beat: the same scans, and no generator.
    """

    Config = PseudoLabelsSpec
    synthetic = False
    instant = True

    def sample(self, ctx: ArmContext, n: int) -> Rows:
        assert ctx.pool is not None, "whoever plans the arm brings the pool"
        labels = ctx.pool.labels
        n_classes = len(ctx.pool.classes)
        own = [np.flatnonzero(labels == label) for label in range(n_classes)]
        self.remarks = {f"pool_rows/{c}": float(len(each)) for c, each in enumerate(own)}
        if not all(map(len, own)):
            return  # nothing is called this class
        rounds = np.arange(-(-n // n_classes))
        rows = np.stack([members[rounds % len(members)] for members in own], axis=1)
        rows = rows.reshape(-1)[:n]
        for index in chunks(len(rows), ctx.pool.schema.shape):
            yield read(ctx.pool, rows[index]).numpy(), labels[rows[index]]
