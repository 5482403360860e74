"""What every arm promises, and what each kind of arm is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medaug.arms import (
    ARMS,
    ArmContext,
    FittedArm,
    GeneratedArm,
    ResampleArm,
    load_arm,
)
from medaug.arms.base import CHUNK_VALUES, balanced_rows, chunks, rows_per_chunk
from medaug.data.augment import STUDY_A, STUDY_D, times_four
from medaug.errors import UserError
from medaug.plan.trials import plan_study
from medaug.spec import AugmentSpec, build_arm, build_study
from medaug.spec.arms import ARM_CONFIGS

SMALL: dict[str, dict[str, Any]] = {
    "classical": {},
    "pseudo_labels": {},
    "noise": {},
    "mixup": {},
    "smote": {"components": 8},
    "gaussian": {"components": 8},
    "flow": {"components": 8, "epochs": 2, "steps_per_epoch": 5, "hidden": 16, "solver_steps": 3},
    "flow_image": {
        "channels": (8, 8),
        "epochs": 2,
        "steps_per_epoch": 4,
        "solver_steps": 2,
    },
    "wgan_gp": {"components": 8, "epochs": 2, "hidden": 16, "nz": 8, "steps_per_epoch": 4},
    "acgan": {"epochs": 2, "ngf": 8, "ndf": 8, "nz": 12, "filter": "none"},
    "acgan_image": {"epochs": 2, "ngf": 8, "ndf": 8, "nz": 12, "filter": "none"},
    "infogan": {"epochs": 2, "ngf": 8, "ndf": 8, "nz": 12, "filter": "none"},
    "dcgan": {"epochs": 2, "width": 8, "nz": 8},
    "folder": {"path": "somewhere"},
    "monai_bundle": {"path": "somewhere"},
}
CONFIGS = {kind: arm.Config for kind, arm in ARMS.items()}
GENERATED = [kind for kind, arm in ARMS.items() if issubclass(arm, GeneratedArm)]


def make(kind: str, **keys: Any) -> Any:
    return ARMS[kind](build_arm(kind, {**SMALL.get(kind, {}), **keys}, CONFIGS))


def fitted(kind: str, ctx: ArmContext, **keys: Any) -> Any:
    arm = make(kind, **keys)
    list(arm.fit(ctx))
    return arm


def drawn(arm: GeneratedArm, ctx: ArmContext, n: int) -> tuple[np.ndarray, np.ndarray]:
    x, labels = zip(*arm.sample(ctx, n), strict=True)
    return np.concatenate(x), np.concatenate(labels)


@pytest.fixture
def context(ctx: ArmContext, make_store, request: pytest.FixtureRequest) -> ArmContext:
    """The usual context; square images of 8 pixels for the arms that want them, and for ``folder``
    and ``pseudo_labels`` the rows that they read."""
    if getattr(request, "param", None) in ("folder", "monai_bundle"):
        return replace(ctx, given=make_store(60, seed=2))
    if getattr(request, "param", None) == "pseudo_labels":
        return replace(ctx, pool=make_store(60, seed=2))
    if getattr(request, "param", None) not in ("dcgan", "classical", "acgan_image", "flow_image"):
        return ctx
    images = make_store(60, (1, 8, 8))
    return replace(ctx, train=images, val=make_store(45, (1, 8, 8), seed=1))


def test_every_generated_arm_is_tested_here() -> None:
    assert set(SMALL) == set(GENERATED)
    for kind, arm in ARMS.items():
        assert arm.Config.model_fields["kind"].default == kind


@pytest.mark.parametrize(("context", "kind"), [(k, k) for k in GENERATED], indirect=["context"])
def test_rows_have_shape_class_and_seed(context: ArmContext, kind: str, tmp_path: Path) -> None:
    arm = fitted(kind, context)
    x, labels = drawn(arm, context, 33)
    assert x.shape == (33, *context.train.schema.shape)
    assert x.dtype == np.float32
    assert labels.tolist() == [i % 2 for i in range(33)]  # so any prefix is balanced
    assert np.isfinite(x).all()
    assert x.min() >= 0, "all training values are"
    assert len(np.unique(x.reshape(33, -1), axis=0)) == 33 or kind == "classical"

    fewer, _ = drawn(arm, context, 10)
    assert np.array_equal(fewer, x[:10]), "a row does not depend on how many are drawn"
    other, _ = drawn(arm, replace(context, seed=8), 33)
    assert np.array_equal(other, x) == (kind == "pseudo_labels"), "the surest are no chance"

    folder = tmp_path / "arm"
    folder.mkdir()
    arm.save(folder)
    assert {p.name for p in folder.iterdir()} - {"config.json"} <= {"weights.safetensors"}
    again = load_arm(folder)
    assert type(again) is type(arm)
    assert again.config == arm.config
    assert np.array_equal(drawn(again, context, 33)[0], x)
    assert again.portable == (isinstance(arm, FittedArm) and not arm.needs_images)
    if isinstance(again, FittedArm):
        assert np.array_equal(again.draw(16, 1, seed=context.seed), x[1::2])


@pytest.mark.parametrize(
    ("context", "kind"), [(k, k) for k in ("acgan", "infogan", "dcgan")], indirect=["context"]
)
def test_loaded_weights_lie_in_memory_as_trained_ones(
    context: ArmContext, kind: str, tmp_path: Path
) -> None:
    """Two layouts have kernels of their own, which on some processors differ in the last bits."""

    def strides(arm: Any) -> list[tuple[int, ...]]:
        gans = arm.gans if kind == "dcgan" else [arm.gan]
        return [w.stride() for gan in gans for w in gan.generator.state_dict().values()]

    arm = fitted(kind, context)
    arm.save(tmp_path)
    assert strides(load_arm(tmp_path)) == strides(arm)


def test_a_refit_gives_the_same_rows(ctx: ArmContext) -> None:
    for kind in ("gaussian", "flow", "wgan_gp", "acgan"):
        first, _ = drawn(fitted(kind, ctx), ctx, 8)
        second, _ = drawn(fitted(kind, ctx), ctx, 8)
        assert np.array_equal(first, second), kind


def test_fp16_stores_and_dead_channels_work(ctx: ArmContext, make_store) -> None:
    half = replace(ctx, train=make_store(60, dtype="float16"))
    for kind in ("noise", "smote", "gaussian", "acgan"):
        x, _ = drawn(fitted(kind, half), half, 6)
        if kind in ("noise", "acgan"):
            assert (x[:, 3] == 0).all(), "a channel that was always 0 stays so"


def test_none_adds_nothing(ctx: ArmContext) -> None:
    rows = make("none").rows(ctx, 100)
    assert rows.shape == (0,)
    assert rows.dtype == np.int64


def test_duplicates_are_real_rows_in_balanced_rounds(ctx: ArmContext) -> None:
    rows = make("duplicate").rows(ctx, 90)
    labels = ctx.train.labels
    assert labels[rows].tolist() == [i % 2 for i in range(90)]
    assert np.array_equal(make("duplicate").rows(ctx, 30), rows[:30])
    counts = np.bincount(rows, minlength=60)
    for label in (0, 1):
        mine = counts[labels == label]
        assert mine.max() - mine.min() <= 1, "each row once before any twice"
    prior = make("duplicate", classes="prior").rows(ctx, 120)
    assert (np.bincount(prior) == 2).all()


def test_controls_are_not_synthetic() -> None:
    real = {kind for kind, arm in ARMS.items() if not arm.synthetic}
    weighted, more = {"class_weights", "logit_adjust"}, {"more_real", "pseudo_labels"}
    assert real == {"none", "duplicate", "classical"} | weighted | more
    resampled = {kind for kind, arm in ARMS.items() if issubclass(arm, ResampleArm)}
    assert resampled == {"none", "duplicate"} | weighted


def test_a_class_without_rows_is_named(ctx: ArmContext) -> None:
    lgg = replace(ctx, train=ctx.train.select(ctx.train.labels == 0))
    for kind in ("duplicate", "mixup", "gaussian", "acgan", "wgan_gp"):
        arm = make(kind)
        with pytest.raises(UserError, match="no training row of class HGG"):
            arm.rows(lgg, 4) if kind == "duplicate" else (list(arm.fit(lgg)), drawn(arm, lgg, 4))


def test_mixup_lies_between_rows_of_its_class(ctx: ArmContext) -> None:
    x, labels = drawn(fitted("mixup", ctx), ctx, 12)
    check_between(ctx, x, labels)


@pytest.mark.parametrize("others", [False, True])
def test_smote_lies_between_neighbours_of_its_class(ctx: ArmContext, others: bool) -> None:
    arm = make("smote", of_other_patients=others, neighbours=3)
    x, labels = drawn(arm, ctx, 12)
    for a, b in check_between(ctx, x, labels):
        rows = ctx.train.read(np.flatnonzero(ctx.train.labels == ctx.train.labels[a]))
        patients = ctx.train.patients
        assert not (others and patients[a] == patients[b])
        # b is among the rows nearest to a: closer than at least half of the class.
        distance = (rows.x - ctx.train.read([a]).x).flatten(1).norm(dim=1)
        assert (ctx.train.read([b]).x - ctx.train.read([a]).x).norm() <= distance.median()


def check_between(ctx: ArmContext, x: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """Each row is on the line between two training rows of its class; returns these pairs."""
    real = ctx.train.read().x.flatten(1).double()
    pairs = []
    for row, label in zip(torch.from_numpy(x).flatten(1).double(), labels, strict=True):
        members = np.flatnonzero(ctx.train.labels == label).tolist()
        found = []
        for a in members:
            for b in members:
                line = real[b] - real[a]
                if a == b:
                    continue
                u = ((row - real[a]) @ line / (line @ line)).clamp(0, 1)
                found.append((float((real[a] + u * line - row).norm()), a, b, float(u)))
        off, a, b, u = min(found)
        assert off < 1e-4
        pairs.append((a, b))
    return pairs


def test_noise_has_the_size_it_should_have(ctx: ArmContext) -> None:
    x, _ = drawn(fitted("noise", ctx, sigma=0.2), ctx, 40)
    real = ctx.train.read(balanced_rows(ctx, 40, "noise")).x.numpy()
    spread = ctx.train.read().x.transpose(0, 1).flatten(1).std(1, correction=0).numpy()
    alive = real > 3 * 0.2 * spread.max()  # so far from 0 that noise is not cut off there
    change = (x - real) / spread.clip(1e-9)[:, None, None]
    assert abs(change[alive].std() / 0.2 - 1) < 0.05


def test_classical_augments_images_and_encodes_them(ctx: ArmContext, make_store) -> None:
    images = make_store(60, (1, 8, 8))
    seen: list[torch.Tensor] = []

    def encode(x_NCHW: torch.Tensor) -> torch.Tensor:
        seen.append(x_NCHW)
        return x_NCHW.mean((2, 3), keepdim=True).expand(-1, *ctx.train.schema.shape)

    both = replace(ctx, images=images, encode=encode, augment=AugmentSpec(hflip=1, vflip=1))
    x, labels = drawn(fitted("classical", both), both, 20)
    assert x.shape == (20, *ctx.train.schema.shape)
    assert np.allclose(x[:, 0, 0, 0], torch.cat(seen).mean((1, 2, 3)).numpy())
    assert labels.tolist() == [i % 2 for i in range(20)]


def test_classical_policies(ctx: ArmContext, make_store) -> None:
    images = replace(ctx, train=make_store(60, (1, 8, 8)))
    x = images.train.read().x
    size = np.bincount(images.train.labels)
    n = 2 * 3 * int(size.max())
    rows, labels = drawn(fitted("classical", images, policy="times4"), images, n)
    ways = times_four(x).unflatten(0, (4, -1))
    for label in (0, 1):
        mine = torch.from_numpy(rows[labels == label])
        members = np.flatnonzero(images.train.labels == label)
        for round_ in range(3):
            part = mine[round_ * size[label] : (round_ + 1) * size[label]]
            expected = ways[1 + round_, members]
            assert {tuple(r.flatten().tolist()) for r in part} == {
                tuple(r.flatten().tolist()) for r in expected
            }
    with pytest.raises(UserError, match="belong together"):
        make("classical", policy="custom")
    assert make("classical", policy="custom", augment={"hflip": 0.3}).config.augment.hflip == 0.3
    for policy, spec in (("table1", STUDY_A), ("five", STUDY_D)):
        given = fitted("classical", images, policy=policy)
        as_study = fitted("classical", images, policy="custom", augment=spec.canonical())
        assert np.array_equal(drawn(given, images, 9)[0], drawn(as_study, images, 9)[0])


def test_arms_that_cannot_travel_say_nothing_of_patients(ctx: ArmContext, tmp_path: Path) -> None:
    for kind in ("smote", "mixup", "noise", "classical"):
        arm = make(kind)
        folder = tmp_path / kind
        folder.mkdir()
        arm.save(folder)
        assert [p.name for p in folder.iterdir()] == ["config.json"]
        assert not hasattr(arm, "draw")


def test_chunks_cover_everything_and_fit_memory() -> None:
    assert np.concatenate(list(chunks(150, (4,)))).tolist() == list(range(150))
    large = (128, 120, 120)
    assert rows_per_chunk(large, 64) * np.prod(large) <= CHUNK_VALUES
    assert rows_per_chunk((1 << 24,), 64) == 1


@pytest.mark.parametrize(
    ("arm", "keys", "says"),
    [
        ({"acgan": {}}, {}, r"arms\.acgan: ACGAN blocks are at least 4x4, not 2x2; use wgan_gp or"),
        ({"deep": {"kind": "infogan"}}, {}, r"arms\.deep: .* not 2x2; .*features\.tap"),
        ({"acgan": {"geometry": "k3p0"}}, {"tap": "conv1"}, r"arms\.acgan: .*k3p0 cannot grow"),
        ({"acgan": {}, "acgan_image": {}}, {"tap": "conv4"}, None),
        ({"acgan_image": {}, "wgan_gp": {}}, {}, None),
    ],
)
def test_features_too_small_for_an_arm_are_named_in_the_plan(
    arm: dict[str, Any], keys: dict[str, Any], says: str | None
) -> None:
    body = {
        "name": "x",
        "data": {"image_size": 32},
        "segmenter": {"pretrain": None},
        "features": keys,
        "arms": {"none": {}, **arm},
    }
    study = build_study(body, ARM_CONFIGS)
    if says is None:
        assert len(plan_study(study, "slices-0123456789ab"))
        return
    with pytest.raises(UserError, match=says):
        plan_study(study, "slices-0123456789ab")


def test_rows_too_small_for_an_arm_are_named_when_it_is_fitted(ctx: ArmContext, make_store) -> None:
    small = replace(ctx, train=make_store(8, shape=(4, 2, 2)))
    with pytest.raises(UserError, match=r"arms\.acgan: ACGAN blocks are at least 4x4, not 2x2"):
        next(make("acgan").fit(small))
