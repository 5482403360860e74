"""Images that are generated small, made large and encoded: rows like every other arm's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medaug.arms import ArmContext, load_arm
from medaug.arms.acgan_image import ENCODED_AT_ONCE, AcganImageArm, Smaller, as_rows
from medaug.spec.arms import AcganImageSpec
from medaug.train.world import World

SIZE, FEATURES = 24, (6, 6, 6)
SPEC = AcganImageSpec(image_size=12, epochs=2, ngf=8, ndf=8, nz=12, filter="none", eval_every=1)


@pytest.fixture
def seen() -> list[tuple[int, ...]]:
    return []


@pytest.fixture
def ctx(make_store, seen: list[tuple[int, ...]]) -> ArmContext:
    """Features of slices by a convolution, as a U-Net gives them."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, FEATURES[0], 4, 4), nn.ReLU())

    @torch.inference_mode()
    def encode(images_NCHW: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images_NCHW.shape))
        return network(images_NCHW)

    train, val = make_store(40, FEATURES), make_store(30, FEATURES, seed=1)
    images = make_store(40, (1, SIZE, SIZE))
    return ArmContext(train, val, 7, World.single(), images=images, encode=encode)


def drawn(arm: AcganImageArm, ctx: ArmContext, n: int) -> tuple[np.ndarray, np.ndarray]:
    x, labels = zip(*arm.sample(ctx, n), strict=True)
    return np.concatenate(x), np.concatenate(labels)


def test_small_images_become_features(
    ctx: ArmContext, seen: list[tuple[int, ...]], tmp_path: Path
) -> None:
    arm = AcganImageArm(SPEC)
    epochs = list(arm.fit(ctx))
    assert arm.shape == (1, 12, 12), "the GAN's own rows are small images"
    assert all("val/fd" in step.metrics for step in epochs), "judged as features, like all arms"
    x, labels = drawn(arm, ctx, 21)
    assert x.shape == (21, *FEATURES)
    assert x.dtype == np.float32
    assert labels.tolist() == [i % 2 for i in range(21)]
    assert set(seen) == {(ENCODED_AT_ONCE, 1, SIZE, SIZE)}, "whole slices, in blocks of one length"
    assert np.array_equal(drawn(arm, ctx, 5)[0], x[:5]), "whatever is drawn besides"

    arm.save(tmp_path)
    again = load_arm(tmp_path)
    assert isinstance(again, AcganImageArm)
    assert np.array_equal(drawn(again, ctx, 21)[0], x)
    images = torch.from_numpy(again.draw(10, 1, seed=ctx.seed))
    assert np.array_equal(torch.cat(list(as_rows(ctx, images))).numpy(), x[1::2])
    assert not again.portable, "without its encoder it makes no rows"


def test_it_learns_from_the_slices_alone(ctx: ArmContext, make_store) -> None:
    other = replace(ctx, train=make_store(40, FEATURES, seed=5))
    assert other.train.labels.tolist() == ctx.train.labels.tolist()
    one, two = AcganImageArm(SPEC), AcganImageArm(SPEC)
    list(one.fit(ctx))
    list(two.fit(other))
    assert np.array_equal(one.draw(4, 0), two.draw(4, 0))


def test_a_filter_judges_the_images(ctx: ArmContext) -> None:
    arm = AcganImageArm(SPEC.model_copy(update={"filter": "discriminator", "filter_limit": 2}))
    list(arm.fit(ctx))
    head = arm.gan.discriminator.cls
    assert isinstance(head, nn.Linear)
    head.bias.data = torch.tensor([1e3, -1e3])  # to it, every image is of class 0
    assert list(arm.sample(ctx, 8)) == []
    assert arm.draw(8, 0).shape == (8, 1, 12, 12)


def test_where_rows_are_images_it_is_the_acgan(ctx: ArmContext, make_store) -> None:
    images = ArmContext(ctx.images, make_store(30, (1, SIZE, SIZE), seed=1), 7, World.single())
    arm = AcganImageArm(SPEC.model_copy(update={"image_size": 64}))
    list(arm.fit(images))
    assert arm.shape == (1, SIZE, SIZE), "never larger than the slices"
    x, labels = drawn(arm, images, 6)
    assert np.array_equal(x[labels == 1], arm.draw(3, 1, seed=7))


def test_smaller_images_keep_order_labels_and_mean(make_store) -> None:
    images = make_store(20, (1, SIZE, SIZE))
    small = Smaller(images, 8)
    options = {"seed": 3, "epoch": 1}
    pairs = zip(
        small.batches(World.single(), 5, **options),
        images.batches(World.single(), 5, **options),
        strict=True,
    )
    for ours, whole in pairs:
        assert ours.x.shape == (5, 1, 8, 8)
        assert torch.equal(ours.label, whole.label)
        assert torch.allclose(ours.x.mean((1, 2, 3)), whole.x.mean((1, 2, 3)), rtol=0.05)
    assert len(small) == 20
    assert small.schema.shape == (1, 8, 8)
