"""The ACGAN in image space, its images passed through the U-Net: what study A wished for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from medaug.arms.acgan import AcganArm
from medaug.arms.base import ArmContext, Rows, rows_per_chunk
from medaug.spec.arms import AcganImageSpec
from medaug.store import Batch, Store
from medaug.train.checkpoint import Checkpoint
from medaug.train.gan import GanTask

ENCODED_AT_ONCE = 16


class AcganImageArm(AcganArm):
    """The ACGAN on slices; what it makes is encoded like a real slice, so arms compare as features.

    Where rows are images it is the ACGAN itself, up to the change of size. A saved arm is without
    the encoder: ``draw`` gives the images as they are generated.
    """

    Config: ClassVar[type[AcganImageSpec]] = AcganImageSpec
    config: AcganImageSpec
    needs_images = True
    portable = False

    def check_side(self, name: str, rows: int, images: int) -> None:
        super().check_side(name, min(images, self.config.image_size), images)

    def task(self, ctx: ArmContext, resume: Checkpoint | None) -> GanTask:
        def decode(images_NCHW: Tensor) -> Tensor:
            return torch.cat(list(as_rows(ctx, images_NCHW)))

        smaller = Smaller(images_of(ctx), self.config.image_size)
        return self.task_on(smaller, ctx, resume, decode)

    def sample(self, ctx: ArmContext, n: int) -> Rows:
        for images, labels in super().sample(ctx, n):
            done = 0
            for rows in as_rows(ctx, torch.from_numpy(images).to(ctx.world.device)):
                yield rows.float().cpu().numpy(), labels[done : done + len(rows)]
                done += len(rows)


class Smaller:
    """The images of a store at no more than ``side`` pixels: a source to train a GAN on."""

    def __init__(self, images: Store, side: int) -> None:
        channels, height, _ = images.schema.shape
        self._images, self._side = images, min(side, height)
        self.classes, self.labels = images.classes, images.labels
        shape = (channels, self._side, self._side)
        self.schema = replace(images.schema, shape=shape, dtype="float32", mask_shape=None)

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, *args: Any, **options: Any) -> Iterator[Batch]:
        """As :meth:`medaug.store.Store.batches`, without masks."""
        for batch in self._images.batches(*args, **options):
            yield Batch(resized(batch.x.float(), self._side), batch.label, batch.row, None)


def images_of(ctx: ArmContext) -> Store:
    """The training patients' slices, row by row."""
    return ctx.train if ctx.images is None else ctx.images


def as_rows(ctx: ArmContext, images_NCHW: Tensor) -> Iterator[Tensor]:
    """Rows like those of ``ctx.train`` made from images of any size, in blocks that fit memory.

    Each block is filled up with zeros to one length, because the last bits of what the U-Net
    computes depend on the batch, and a row must not depend on how many are asked for.
    """
    side = images_of(ctx).schema.shape[-1]
    length = rows_per_chunk(ctx.train.schema.shape, most=ENCODED_AT_ONCE)
    for block in images_NCHW.split(length):
        x = resized(block, side)
        if ctx.encode is not None:
            full = torch.cat([x, x.new_zeros(length - len(x), *x.shape[1:])])
            x = ctx.encode(full)[: len(block)]
        yield x


def resized(x_NCHW: Tensor, side: int) -> Tensor:
    """Bilinear, averaging when it shrinks."""
    if x_NCHW.shape[-1] == side or not len(x_NCHW):
        return x_NCHW
    return F.interpolate(x_NCHW, size=(side, side), mode="bilinear", antialias=True)
