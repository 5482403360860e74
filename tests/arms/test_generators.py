"""The arms that fit a model: do they reproduce what they were fitted to, and resume exactly?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medaug.arms import ARMS, ArmContext, load_arm
from medaug.arms.adversarial import in_lockstep
from medaug.arms.pca import PcaSpace
from medaug.arms.probe import FrechetProbe, probe
from medaug.errors import UserError
from medaug.spec import build_arm
from medaug.store import Provenance
from medaug.train.checkpoint import Checkpoint, Ledger, Progress
from medaug.train.rows import MemoryRows
from medaug.train.world import World

CONFIGS = {kind: arm.Config for kind, arm in ARMS.items()}
TINY = {"epochs": 3, "ngf": 8, "ndf": 8, "nz": 12}
RESUMED: dict[str, dict[str, Any]] = {
    "flow": {"components": 6, "epochs": 3, "steps_per_epoch": 4, "hidden": 16, "solver_steps": 2},
    "wgan_gp": {"components": 6, "epochs": 3, "hidden": 16, "nz": 8, "steps_per_epoch": 7},
    "acgan": TINY,
    "dcgan": {"epochs": 3, "width": 8, "nz": 8, "eval_every": 2},
}


def make(kind: str, **keys: Any) -> Any:
    return ARMS[kind](build_arm(kind, keys, CONFIGS))


def drawn(arm: Any, ctx: ArmContext, n: int) -> tuple[np.ndarray, np.ndarray]:
    x, labels = zip(*arm.sample(ctx, n), strict=True)
    return np.concatenate(x), np.concatenate(labels)


def rows_of(x: torch.Tensor, labels: np.ndarray) -> MemoryRows:
    return MemoryRows(x, labels.astype(np.int64), ("a", "b"))


class InMemory(MemoryRows):
    """Enough of a store for an arm that reads its training rows in order."""

    patients = np.array([])
    provenance = Provenance("features", "0" * 12, (), (), synthetic=False, encoder="a network")


def memory_context(x: torch.Tensor, labels: np.ndarray) -> ArmContext:
    rows = InMemory(x, labels.astype(np.int64), ("a", "b"))
    return ArmContext(rows, rows, seed=1, world=World.single())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", RESUMED)
def test_resume_after_every_epoch_is_bit_for_bit(
    ctx: ArmContext, make_store, kind: str, tmp_path: Path
) -> None:
    if kind == "dcgan":
        ctx = replace(ctx, train=make_store(60, (1, 8, 8)), val=make_store(45, (1, 8, 8), seed=1))
    arm = make(kind, **RESUMED[kind])
    whole = list(arm.fit(ctx))
    assert "val/fd" in whole[-1].metrics
    x, _ = drawn(arm, ctx, 8)
    for stopped in whole:
        assert stopped.checkpoint is not None
        ledger = Ledger(tmp_path / "ledger" / str(stopped.epoch))
        ledger.commit(stopped.checkpoint, fingerprint="x")
        again = make(kind, **RESUMED[kind])
        rest = list(again.fit(ctx, ledger.latest("x")))
        expected = whole[stopped.epoch :] or whole[-1:]
        assert [(p.epoch, p.metrics) for p in rest] == [(p.epoch, p.metrics) for p in expected]
        assert np.array_equal(drawn(again, ctx, 8)[0], x)


def test_pca_is_that_of_scikit_learn(ctx: ArmContext) -> None:
    from sklearn.decomposition import PCA

    k, x = 5, ctx.train.read().x.flatten(1).double().numpy()
    space, scores = PcaSpace.fit(ctx.train, k, 0, torch.device("cpu"))
    reference = PCA(k, svd_solver="full").fit(x)
    assert space.components.shape == (k, x.shape[1])
    assert abs(space.explained - reference.explained_variance_ratio_.sum()) < 1e-4
    cosine = (space.components.double().numpy() * reference.components_).sum(1)
    assert np.allclose(np.abs(cosine), 1, atol=1e-3)
    assert torch.allclose(space.encode(ctx.train.read().x), scores, atol=1e-3)
    everything, scores = PcaSpace.fit(ctx.train, 999, 0, torch.device("cpu"))
    assert len(everything.components) == 59, "n - 1"
    decoded = everything.decode(scores)
    assert torch.allclose(decoded, ctx.train.read().x, atol=1e-3)
    assert decoded.min() >= 0
    with pytest.raises(UserError, match="two or more"):
        PcaSpace.fit(ctx.train.select([0]), 2, 0, torch.device("cpu"))


def test_a_pooled_gaussian_shares_the_covariance_about_the_class_means() -> None:
    from sklearn.covariance import LedoitWolf

    random = np.random.default_rng(0)
    labels = (np.arange(90) % 3 == 0).astype(int)
    x = random.normal(size=(90, 3)) * [3.0, 1.0, 0.3] + labels[:, None] * [4.0, 0, -2]
    ctx = memory_context(torch.from_numpy(x), labels)
    arm = make("gaussian", components=3, covariance="pooled")
    list(arm.fit(ctx))
    centred = np.concatenate([x[labels == k] - x[labels == k].mean(0) for k in (0, 1)])
    want = LedoitWolf(assume_centered=True).fit(centred).covariance_
    basis = arm.space.components.double().numpy()
    for label in (0, 1):
        factor = arm.factor[label].double().numpy()
        assert np.allclose(basis.T @ factor @ factor.T @ basis, want, atol=1e-4)
        mean = arm.space.decode(arm.mean[label : label + 1])[0].double().numpy()
        assert np.allclose(mean, x[labels == label].mean(0), atol=1e-4)

    alone = memory_context(torch.from_numpy(x[:61]), np.arange(61) // 60)
    one, pooled = (
        make("gaussian", components=3),
        make("gaussian", components=3, covariance="pooled"),
    )
    list(one.fit(alone))
    list(pooled.fit(alone))
    assert torch.equal(one.factor[1], pooled.factor[1])  # a single row tells no covariance
    assert not torch.equal(one.factor[0], pooled.factor[0])
    assert one.remarks["classes_with_pooled_covariance"] == 1


def test_the_cheap_floors_make_images_from_pixels(make_store) -> None:
    """Without features a row is an image, and components are those of pixels."""
    images = make_store(80, (1, 16, 16))
    ctx = ArmContext(images, make_store(40, (1, 16, 16), seed=1), seed=3, world=World.single())
    for kind, keys in (
        ("gaussian", {}),
        ("gaussian", {"covariance": "pooled"}),
        ("flow", {"epochs": 20, "steps_per_epoch": 50, "hidden": 64}),
    ):
        arm = make(kind, components=12, **keys)
        list(arm.fit(ctx))
        x, labels = drawn(arm, ctx, 400)
        assert x.shape == (400, 1, 16, 16)
        for label in (0, 1):
            real = images.read(np.flatnonzero(images.labels == label)).x.numpy().mean(0)
            distance = np.abs(x[labels == label].mean(0) - real).mean()
            other = images.read(np.flatnonzero(images.labels != label)).x.numpy().mean(0)
            assert distance < np.abs(x[labels == label].mean(0) - other).mean(), (kind, keys)


def test_gaussian_has_the_means_and_covariances_of_its_classes() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(800) % 2
    spread = np.diag([3.0, 1.0, 0.3]) @ np.linalg.qr(random.normal(size=(3, 3)))[0]
    x = random.normal(size=(800, 3)) @ spread + labels[:, None] * [4.0, 0, -2]
    ctx = memory_context(torch.from_numpy(x), labels)
    arm = make("gaussian", components=3)
    list(arm.fit(ctx))
    assert arm.remarks["pca_explained"] > 0.9999
    made, of = drawn(arm, ctx, 8000)
    for label in (0, 1):
        want, got = x[labels == label], made[of == label]
        assert np.allclose(got.mean(0), want.mean(0), atol=0.15)
        assert np.allclose(np.cov(got.T), np.cov(want.T), rtol=0.1, atol=0.25)


def test_flow_learns_both_modes_of_a_class() -> None:
    """Class 0 has two modes, at -4 and 4; class 1 one, at 0, with another spread."""
    random = np.random.default_rng(0)
    labels = np.arange(600) % 2
    mode = np.where(labels == 0, random.choice([-4.0, 4.0], 600), 0)
    x = np.stack([mode + 0.5 * random.normal(size=600), random.normal(size=600)], 1)
    ctx = memory_context(torch.from_numpy(x), labels)
    arm = make("flow", components=2, epochs=5, hidden=32, depth=2, lr=5e-3, ema=0.95)
    *_, last = arm.fit(ctx)
    assert last.metrics["val/fd"] < 0.2
    made, of = drawn(arm, ctx, 800)
    first, second = made[of == 0, 0], made[of == 1, 0]
    assert 0.35 < (first > 2).mean() < 0.65
    assert 0.35 < (first < -2).mean() < 0.65
    assert (np.abs(first) < 2).mean() < 0.1
    assert abs(second.mean()) < 0.3
    assert 0.3 < second.std() < 0.8

    guided = make("flow", components=2, guidance=3.0)
    guided.n_classes, guided.shape, guided.space = arm.n_classes, arm.shape, arm.space
    guided.field, guided.scale = arm.field, arm.scale
    pushed, _ = drawn(guided, ctx, 800)
    assert np.abs(pushed[::2, 0]).mean() > np.abs(first).mean(), "away from the other class"


def test_stable_acgan_comes_closer_to_real_rows(ctx: ArmContext, make_store) -> None:
    ctx = replace(ctx, train=make_store(240), val=make_store(120, seed=1))
    arm = make("acgan", epochs=20, ngf=16, ndf=16, eval_every=2)
    fd = [p.metrics["val/fd"] for p in arm.fit(ctx) if "val/fd" in p.metrics]
    assert len(fd) == 10
    assert fd[-1] < 0.75 * fd[0]
    x, labels = drawn(arm, ctx, 100)
    bright = x[:, :3].mean((1, 2, 3))
    assert bright[labels == 1].mean() > 1.5 * bright[labels == 0].mean(), "class 1 is brighter"


def test_filter_keeps_what_the_discriminator_takes_for_its_class(ctx: ArmContext) -> None:
    arm = make("acgan", **TINY)
    assert arm.config.filter == "discriminator"
    list(arm.fit(ctx))
    everything = make("acgan", **TINY, filter="none")
    everything.n_classes, everything.shape, everything.gan = arm.n_classes, arm.shape, arm.gan
    x, labels = drawn(arm, ctx, 40)
    assert 0 < arm.remarks["kept"] < 1
    assert everything.remarks == {}
    scaled = arm.gan.scale.encode(torch.from_numpy(x))
    for label in (0, 1):
        mine = scaled[torch.from_numpy(labels == label)]
        out = arm.gan.discriminator(mine, torch.full((len(mine),), label))
        # Decoded rows are cut off at 0, which may turn a close call.
        assert (out.cls.argmax(1) == label).float().mean() > 0.8
        # They are the candidates that pass, in their order.
        candidates = everything.draw(400, label, seed=ctx.seed)
        places = [
            np.flatnonzero((candidates == row).all((1, 2, 3)))[0] for row in x[labels == label]
        ]
        assert places == sorted(places)
        assert len(places) == len(set(places)) == 20


def test_a_filter_that_lets_nothing_pass_ends_balanced(ctx: ArmContext) -> None:
    arm = make("acgan", **TINY, filter_limit=2)
    list(arm.fit(ctx))
    bias = torch.tensor([5.0, -5.0])
    arm.gan.discriminator.cls.bias.data = 1e3 * bias
    assert list(arm.sample(ctx, 10)) == []
    assert len(arm.draw(10, 0)) == 10
    with pytest.raises(UserError, match="only 0 of 10 rows pass"):
        arm.draw(10, 1)
    with pytest.raises(UserError, match="use 0 to 1"):
        arm.draw(1, 2)


def test_discriminator_travels_only_where_it_filters(ctx: ArmContext, tmp_path: Path) -> None:
    for filter_, expected in (("discriminator", True), ("none", False)):
        arm = make("acgan", **{**TINY, "epochs": 1}, filter=filter_)
        list(arm.fit(ctx))
        folder = tmp_path / filter_
        folder.mkdir()
        arm.save(folder)
        tensors = arm.state()[0]
        assert any(name.startswith("discriminator") for name in tensors) == expected
        assert np.array_equal(load_arm(folder).draw(5, 1, seed=3), arm.draw(5, 1, seed=3))


@pytest.mark.parametrize("shape", [(4, 15, 15), (3, 30, 30), (1, 24, 24), (1, 4, 4)])
def test_acgan_takes_features_and_images_of_any_size(
    ctx: ArmContext, make_store, shape: tuple[int, int, int]
) -> None:
    ctx = replace(ctx, train=make_store(20, shape), val=make_store(20, shape, seed=1))
    arm = make("acgan", **{**TINY, "epochs": 1}, filter="none")
    list(arm.fit(ctx))
    assert arm.draw(3, 0).shape == (3, *shape)


def test_infogan_codes_change_the_rows(ctx: ArmContext) -> None:
    arm = make("infogan", **TINY, filter="none")
    list(arm.fit(ctx))
    z = torch.zeros(2, 12)
    z[1, 2] = 3.0  # the first code, behind the two classes
    first, second = arm.gan.generate(z, torch.zeros(2, dtype=torch.int64))
    assert not torch.equal(first, second)
    out = arm.gan.discriminator(torch.zeros(2, *arm.shape))
    assert out.codes.shape == (2, 2)


def test_dcgan_networks_go_by_image_size(ctx: ArmContext, make_store) -> None:
    def counts(size: int, channels: int = 1, **keys: Any) -> tuple[int, int]:
        arm = make("dcgan", **keys)
        arm.shape = (channels, size, size)
        networks = arm._networks()
        generator, discriminator = (sum(p.numel() for p in n.parameters()) for n in networks)
        return generator, discriminator

    assert counts(32) == (4_870_785, 791_169)
    assert counts(128, 3) == (23_835_779, 17_433_089)
    assert counts(128, 3, kernel=4) == (17_639_171, 11_164_481)
    arm = make("dcgan")
    arm.shape = (1, 32, 30)
    with pytest.raises(UserError, match="square"):
        arm._networks()


def test_lockstep_is_each_training_by_itself() -> None:
    def training(offset: int, resume: Checkpoint | None) -> Iterator[Progress]:
        start = resume.epoch if resume else 0
        assert resume is None or resume.state["offset"] == offset
        history = [] if resume is None else list(resume.state["history"])
        for epoch in range(start + 1, 4):
            tensors = {"w": torch.tensor(float(epoch + offset))}
            metrics = {"loss": float(epoch + offset), "collapsed": float(offset > 0)}
            metrics |= {"rare": 1.0} if offset else {}
            history = [*history, metrics]
            state = {"offset": offset, "history": history}
            checkpoint = Checkpoint(epoch, epoch * (1 + offset), tensors, state)
            yield Progress(epoch, metrics, checkpoint, result=offset if epoch == 3 else None)

    runs = [lambda at: training(0, at), lambda at: training(10, at)]
    whole = list(in_lockstep(runs, None))
    assert [p.result for p in whole] == [None, None, [0, 10]]
    assert whole[0].metrics == {
        "loss": 6.0, "collapsed": 1.0, "class_0/loss": 1.0, "class_0/collapsed": 0.0,
        "class_1/loss": 11.0, "class_1/collapsed": 1.0, "class_1/rare": 1.0,
    }  # fmt: skip
    rest = list(in_lockstep(runs, whole[0].checkpoint))
    assert [p.metrics for p in rest] == [p.metrics for p in whole[1:]]
    assert whole[1].checkpoint is not None
    assert whole[1].checkpoint.state["history"] == [p.metrics for p in whole[:2]]
    assert {k: float(v) for k, v in whole[1].checkpoint.tensors.items()} == {"0.w": 2, "1.w": 12}


def test_probe_knows_good_rows_from_bad(ctx: ArmContext) -> None:
    judge = probe(ctx.train, ctx.val, World.single())
    assert isinstance(judge, FrechetProbe)
    real = {c: ctx.train.read(np.flatnonzero(ctx.train.labels == c)).x for c in (0, 1)}

    def score(rows: dict[int, torch.Tensor]) -> float:
        return judge.judge(lambda label, index: rows[label][index % len(rows[label])])["val/fd"]

    good = score(real)
    assert score({0: real[1], 1: real[0]}) > 3 * good, "classes swapped"
    assert score({c: x.mean(0, keepdim=True) for c, x in real.items()}) > 3 * good, "one mode"
    assert probe(ctx.train, ctx.val.select([]), World.single()) is None


def test_presets_resolve_as_documented() -> None:
    stable, published = make("acgan").config, make("acgan", preset="as_published").config
    expected = {
        "adv": ("hinge", "bce"), "aux_loss": ("ce", "nll_on_prob"), "aux_weight": (0.2, 1.0),
        "aux_on_fake": (False, True), "sampler": ("balanced", "prior"),
        "feature_scale": ("standardise", "minmax"), "lr_g": (1e-3, 2e-3), "lr_d": (1e-3, 2e-3),
        "betas": ((0.0, 0.9), (0.5, 0.999)), "ema": (0.98, 0.0), "out_act": ("linear", "tanh"),
        "d_norm": ("sn", "bn"), "dropout": (0.0, 0.5), "collapse_patience": (10, 0),
    }  # fmt: skip
    for key, values in expected.items():
        assert (getattr(stable, key), getattr(published, key)) == values, key
    same = set(type(stable).model_fields) - set(expected) - {"preset"}
    assert all(getattr(stable, key) == getattr(published, key) for key in same)
    assert (published.epochs, published.batch_size, published.nz) == (50, 16, 110)
    mixed = make("acgan", preset="as_published", d_norm="sn", lr_g=5e-4).config
    assert (mixed.d_norm, mixed.lr_g, mixed.lr_d) == ("sn", 5e-4, 2e-3)
    # What a sweep does to one point of its grid: explicit keys only, then the grid's.
    explicit = mixed.model_dump(mode="json", exclude_unset=True)
    assert explicit == {"kind": "acgan", "preset": "as_published", "d_norm": "sn", "lr_g": 5e-4}
    assert build_arm("x", mixed.canonical(), CONFIGS) == mixed
    b = make("dcgan", preset="as_published").config
    assert (b.epochs, b.lr_g, b.betas, b.batch_size) == (2500, 2e-4, (0.5, 0.999), 16)
    assert (b.label_smoothing, b.ema) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        ("acgan", {"adv": "wgan_gp", "d_norm": "bn"}, "set d_norm to sn or none"),
        ("acgan", {"preset": "as_published", "adv": "r1"}, "set d_norm to sn or none"),
        ("acgan", {"cond": "proj", "filter": "discriminator"}, "set filter to none"),
        ("acgan", {"label_smoothing": 0.1}, "adv hinge has no targets"),
        ("acgan", {"preset": "best"}, "'stable' or 'as_published'"),
        ("acgan", {"nfg": 64}, "did you mean 'ngf'"),
        ("infogan", {"n_codes": 0}, "greater than or equal to 1"),
        ("dcgan", {"adv": "hinge"}, "'bce'"),
    ],
)
def test_settings_that_do_not_go_together_are_named(kind: str, keys: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(kind, **keys)
    assert make("acgan", cond="proj").config.filter == "none"


def test_images_have_more_components_than_features(make_store) -> None:
    rows = make_store(600, (1, 20, 20))
    images = ArmContext(rows, rows, seed=1, world=World.single())
    features = memory_context(rows.read().x.float(), rows.labels)
    for ctx, k in ((images, 256), (features, 64)):
        arm = make("gaussian")
        list(arm.fit(ctx))
        assert len(arm.space.components) == k
