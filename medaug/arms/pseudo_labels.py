"""Unlabelled real rows under the classes that a classifier gives them."""

from __future__ import annotations

import numpy as np

from medaug.arms.base import ArmContext, GeneratedArm, Rows, chunks, read
from medaug.spec.arms import PseudoLabelsSpec


class PseudoLabelsArm(GeneratedArm):
    """Rows of the pool, as many of each class, the surest first (self-training: Yarowsky 1995;
    Lee 2013).

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
        rounds = min(-(-n // n_classes), *map(len, own))
        rows = np.stack([members[:rounds] for members in own], axis=1).reshape(-1)[:n]
        self.remarks = {"pool_rows": float(len(labels))}
        for index in chunks(len(rows), ctx.pool.schema.shape):
            yield read(ctx.pool, rows[index]).numpy(), labels[rows[index]]
