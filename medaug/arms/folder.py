"""Rows that another tool has made: read, put into the study's form, and judged like all others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch

from medaug.arms.acgan_image import as_rows
from medaug.arms.base import ArmContext, GeneratedArm, Rows, chunks, read
from medaug.errors import UserError
from medaug.spec.folder import FolderSpec
from medaug.store.sampler import permutation


class FolderArm(GeneratedArm):
    """The rows of ``ctx.given``, classes in turn, each once; a seed decides their order.

    Images are encoded like the study's slices where its rows are features; rows that are features
    already are taken as they are. It ends early where a class has no more rows.
    """

    Config: ClassVar[type[FolderSpec]] = FolderSpec
    config: FolderSpec
    beside_gaussian = True
    reads_given = True
    needs_images = True

    @property
    def made_from(self) -> str:
        source = self.config.made_from
        return source if isinstance(source, str) else f"public: {source.public}"

    def sample(self, ctx: ArmContext, n: int) -> Rows:
        assert ctx.given is not None, "arm folder is given rows"
        labels = ctx.given.labels
        own = [np.flatnonzero(labels == label) for label in range(len(ctx.train.classes))]
        order = [
            rows[permutation(len(rows), ctx.seed, "folder", label)]
            for label, rows in enumerate(own)
        ]
        n_classes = len(order)
        most = min(len(rows) * n_classes + label for label, rows in enumerate(order))
        for index in chunks(min(n, most), ctx.given.schema.shape):
            chosen = np.array([order[i % n_classes][i // n_classes] for i in index.tolist()])
            done = 0
            for x in self._as_features(ctx, read(ctx.given, chosen)):
                yield x.float().cpu().numpy(), labels[chosen[done : done + len(x)]]
                done += len(x)

    def _as_features(self, ctx: ArmContext, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Blocks of rows like those of ``ctx.train``."""
        shape = ctx.train.schema.shape
        pictures = ctx.train if ctx.images is None else ctx.images
        is_picture = tuple(x.shape[1:]) == pictures.schema.shape
        if is_picture and self.config.intensity is not None:
            black, white = self.config.intensity
            x = black + (white - black) * x
        if is_picture and ctx.encode is not None:
            yield from as_rows(ctx, x.to(ctx.world.device))
        elif np.prod(x.shape[1:]) == np.prod(shape):
            yield x.view(-1, *shape)
        else:
            raise UserError(
                f"arm folder: its rows are of shape {tuple(x.shape[1:])}, the study's of {shape}; "
                "bring images, or features of the study's own encoder"
            )
