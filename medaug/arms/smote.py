"""SMOTE: rows on the line between neighbours of one class."""

from __future__ import annotations

import numpy as np
import torch

from medaug.arms.base import ArmContext, GeneratedArm, Rows, balanced_rows, chunks, read
from medaug.arms.pca import PcaSpace
from medaug.seeding import numpy_generator
from medaug.spec.arms import SmoteSpec


class SmoteArm(GeneratedArm):
    """x = a + u (b - a), u ~ U(0, 1), b one of a's nearest neighbours (Chawla et al. 2002).

    Neighbours are found among principal component scores, where distances mean something. The
    line runs between the *whole* rows: what the components leave out is interpolated as well, so
    rows keep their texture, and non-negative ones stay so. Each training row of a class is a
    once before any is again. A row without a neighbour is used as it is.
    """

    Config = SmoteSpec
    instant = True
    config: SmoteSpec

    def sample(self, ctx: ArmContext, n: int) -> Rows:
        device = ctx.world.device
        _, scores = PcaSpace.fit(ctx.train, self.config.components, ctx.seed, device)
        neighbours = self._neighbours(ctx, scores.cpu())
        first = balanced_rows(ctx, n, "smote")
        labels = ctx.train.labels[first]
        for index in chunks(n, ctx.train.schema.shape):
            second, weight = first[index].copy(), np.empty(len(index), np.float32)
            for at, i in enumerate(index):
                random = numpy_generator(ctx.seed, "smote", int(i))
                near = neighbours[first[i]]
                if len(near):
                    second[at] = random.choice(near)
                weight[at] = random.random()
            a, b = read(ctx.train, first[index]), read(ctx.train, second)
            u = torch.from_numpy(weight).view(-1, *(1,) * (a.ndim - 1))
            yield torch.lerp(a, b, u).numpy(), labels[index]

    def _neighbours(self, ctx: ArmContext, scores: torch.Tensor) -> dict[int, np.ndarray]:
        """Training row -> its nearest rows of the same class, nearest first."""
        found = {}
        for label in range(len(ctx.train.classes)):
            rows = ctx.rows_of_class(label)
            members, patients = scores[rows], ctx.train.patients[rows]
            for at, row in enumerate(rows):
                distance = torch.linalg.vector_norm(members - members[at], dim=1).numpy()
                barred = patients == patients[at] if self.config.of_other_patients else rows == row
                order = np.argsort(np.where(barred, np.inf, distance), kind="stable")
                allowed = len(rows) - int(barred.sum())
                found[int(row)] = rows[order[: min(self.config.neighbours, allowed)]]
        return found
