from __future__ import annotations

import copy
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from medaug.errors import UserError
from medaug.models.acgan import AcganDiscriminator, AcganGenerator
from medaug.models.layers import JointPass, PartedBatchNorm2d
from medaug.spec.gan import GanSpec
from medaug.train.checkpoint import Checkpoint, Ledger, Progress
from medaug.train.draws import Draws
from medaug.train.gan import Gan, GanTask, train_gan
from medaug.train.gan_batch import StepInput
from medaug.train.gan_run import Replicate
from medaug.train.gan_step import GanStep, discriminator_inputs
from medaug.train.loop import Collapsed, Diverged
from medaug.train.rows import MemoryRows
from medaug.train.scaling import ChannelStatistics, FeatureScale, channels_last
from medaug.train.world import World, convert_batchnorm

SHAPE = (6, 8, 8)
ALONE = World.single()


class Spec(GanSpec):
    kind: Literal["gan"] = "gan"
    epochs: int = 3
    batch_size: int = 8
    eval_every: int = 2


def rows(n: int = 40, bad_row: int | None = None) -> MemoryRows:
    x = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1)).relu()
    labels = (np.arange(n) % 3 == 0).astype(np.int64)
    x[:, :2] += torch.from_numpy(labels)[:, None, None, None]
    if bad_row is not None:
        x[bad_row] = torch.nan
    return MemoryRows(x, labels, ("a", "b"))


class Pair:
    """Builds an ACGAN pair; ``plain`` takes the generator's batch norm away."""

    def __init__(self, norm: str = "sn", *, plain: bool = False, **keys: Any) -> None:
        self.norm, self.plain, self.keys = norm, plain, keys

    def __call__(self) -> tuple[nn.Module, nn.Module]:
        codes = {"n_codes": self.keys.get("n_codes", 0)}
        generator = AcganGenerator(SHAPE, 2, 6, 10, out_act="linear", **codes)
        if self.plain:
            for i, layer in enumerate(generator.layers):
                if isinstance(layer, nn.BatchNorm2d):
                    generator.layers[i] = nn.Identity()
        discriminator = AcganDiscriminator(
            SHAPE, 2, 6, norm=self.norm, **{"dropout": 0} | self.keys
        )
        return generator, discriminator


class MeanOf:
    """A quality that any rank can compute: the mean of what it is shown."""

    labels = torch.arange(20) % 2

    def summary(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).mean(1, keepdim=True)

    def score(self, summary_ND: torch.Tensor) -> dict[str, float]:
        assert summary_ND.shape == (20, 1)
        return {"val/mean": float(summary_ND.mean())}


def train(
    spec: GanSpec,
    pair: Pair,
    world: World | None = None,
    resume: Checkpoint | None = None,
    data: MemoryRows | None = None,
) -> Iterator[Progress]:
    world = world or World.single()
    task = GanTask(spec, pair, data or rows(), 5, quality=MeanOf(), resume=resume)
    return train_gan(task, world)


def step_of(spec: GanSpec, generator: nn.Module, discriminator: nn.Module) -> GanStep:
    """The step of one replicate with these networks."""
    replicate = Replicate(GanTask(spec, lambda: (generator, discriminator), rows(), 0), ALONE)
    return GanStep(spec, [replicate], 2, ALONE, fused=False)


def weights(progress: Progress) -> dict[str, torch.Tensor]:
    assert progress.checkpoint is not None
    return progress.checkpoint.tensors


OPTIONS = {
    "stable": ({}, Pair()),
    "as_published": ({"preset": "as_published"}, Pair("bn", dropout=0.5)),
    "wgan_gp": ({"adv": "wgan_gp", "n_critic": 2}, Pair("none")),
    "r1_adc": ({"adv": "r1", "cond": "adc", "label_smoothing": 0.1}, Pair(cond="adc")),
    "proj_codes": ({"cond": "proj", "inst_noise": 0.1}, Pair(cond="proj", n_codes=2)),
    "bf16": ({"precision": "bf16"}, Pair()),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_resume_after_every_epoch_is_bit_for_bit(option: str, tmp_path: Path) -> None:
    keys, pair = OPTIONS[option]
    spec = Spec(**keys)
    whole = list(train(spec, pair))
    assert [p.epoch for p in whole] == [1, 2, 3]
    assert isinstance(whole[-1].result, Gan)
    assert ["val/mean" in p.metrics for p in whole] == [False, True, True]
    z, label = torch.randn(4, 10), torch.tensor([0, 1, 0, 1])
    expected = whole[-1].result.generate(z, label)
    for stopped in whole:
        ledger = Ledger(tmp_path / str(stopped.epoch))
        assert stopped.checkpoint is not None
        ledger.commit(stopped.checkpoint, fingerprint="x")
        rest = list(train(spec, pair, resume=ledger.latest("x")))
        assert [p.metrics for p in rest] == [
            p.metrics for p in whole[stopped.epoch :] or whole[-1:]
        ]
        assert torch.equal(rest[-1].result.generate(z, label), expected)


def _two(world: World, keys: dict[str, Any], pair: Pair) -> tuple[Any, Any]:
    *_, last = train(Spec(**keys), pair, world)
    return last.metrics, weights(last)


@pytest.mark.parametrize(
    ("keys", "pair"),
    [
        ({}, Pair(plain=True)),
        ({"adv": "wgan_gp", "n_critic": 2, "inst_noise": 0.1}, Pair("none", plain=True)),
        ({"adv": "bce", "batch_size": 7}, Pair("bn")),
    ],
    ids=["no batch norm", "penalty, noise, two critic steps", "batch norm, uneven shares"],
)
def test_two_ranks_equal_one_rank(two_ranks, keys: dict[str, Any], pair: Pair) -> None:
    metrics, expected = _two(World.single(), keys, pair)
    for got_metrics, got in two_ranks(_two, keys, pair):
        assert got_metrics.keys() == metrics.keys()
        for name, value in metrics.items():
            assert got_metrics[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=0, atol=1e-6, msg=name)


def test_fused_adam_equals_plain_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused Adam on the CPU hides in-place changes from autograd: a wrong order would show here."""
    *_, fused = train(Spec(), Pair())
    plain_adam = torch.optim.Adam

    def unfused(*arguments: Any, fused: bool, **keys: Any) -> torch.optim.Adam:
        return plain_adam(*arguments, fused=False, **keys)

    monkeypatch.setattr(torch.optim, "Adam", unfused)
    *_, plain = train(Spec(), Pair())
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(fused)[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("norm", ["sn", "bn"])
def test_the_joint_pass_equals_separate_passes(norm: str) -> None:
    torch.manual_seed(0)
    _, discriminator = Pair(norm)()
    if norm == "sn":
        discriminator.eval()  # each pass in training mode moves the power iteration
    separate = copy.deepcopy(discriminator)
    world = World.single()
    n = 8
    draws = Draws(0, 0, n, world)
    real, fake = draws.normal("real", *SHAPE), draws.normal("fake", *SHAPE)
    labels = draws.labels("label", 2)
    given = StepInput(real, labels, fake, labels, draws.normal("z", 10), (draws,))
    step = step_of(Spec(preset="as_published"), Pair(norm)()[0], discriminator)
    out = JointPass(discriminator)(*discriminator_inputs(step.spec, given, step._kept), 2)
    (loss,), _ = step.discriminator_loss(out, given)
    loss.backward()
    outs = [separate(x, labels) for x in (real, fake)]
    bce = nn.functional.binary_cross_entropy_with_logits
    by_hand = sum(
        bce(out.adv, torch.full((n,), target)) - out.cls.softmax(1)[range(n), labels].mean()
        for out, target in zip(outs, (1.0, 0.0), strict=True)
    )
    by_hand.backward()
    torch.testing.assert_close(loss, by_hand)
    gradients = zip(discriminator.named_parameters(), separate.parameters(), strict=True)
    for (name, p), q in gradients:
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6, msg=name)
    for (name, b), c in zip(discriminator.named_buffers(), separate.buffers(), strict=True):
        torch.testing.assert_close(b, c, msg=name)


def test_the_joint_pass_keeps_halves_apart_where_batch_norm_spans_ranks() -> None:
    _, discriminator = Pair("bn")()
    assert not JointPass(discriminator).one_by_one
    converted = convert_batchnorm(discriminator, World(0, 2, 0, torch.device("cpu")))
    assert not any(isinstance(layer, PartedBatchNorm2d) for layer in converted.modules())
    assert JointPass(converted).one_by_one


def test_the_generator_does_not_move_the_discriminator() -> None:
    torch.manual_seed(0)
    generator, discriminator = Pair()()
    draws = Draws(0, 0, 4, World.single())
    z, label = draws.normal("z", 10), draws.labels("label", 2)
    discriminator.requires_grad_(False)
    fake = generator(z, label)
    given = StepInput(fake.detach(), label, fake, label, z, (draws,))
    step = step_of(Spec(), generator, discriminator)
    (loss,), _ = step.generator_loss(discriminator(fake, label), given)
    loss.backward()
    assert all(p.grad is None for p in discriminator.parameters())
    assert all(p.grad is not None for p in generator.parameters())


def test_critic_steps_outnumber_generator_steps() -> None:
    *_, last = train(Spec(adv="wgan_gp", n_critic=5, epochs=2), Pair("none"))
    assert last.checkpoint is not None
    steps = {
        name: int(state["state"][0]["step"])
        for name, state in last.checkpoint.state["optimizers"].items()
    }
    assert steps == {"discriminator": 10, "generator": 2}


def test_the_average_follows_the_weights() -> None:
    first, *_ = train(Spec(ema=0.5, batch_size=40), Pair())
    torch.manual_seed(0)
    start = {}
    # One step: average = (start + weights) / 2, so 2 average - weights is where all began.
    tensors = weights(first)
    for name in ("fc.weight", "layers.0.weight"):
        start[name] = 2 * tensors[f"average.{name}"] - tensors[f"generator.{name}"]
        moved = (tensors[f"generator.{name}"] - start[name]).abs().max()
        assert 0 < moved < 2e-3, "Adam's first step is lr = 1e-3 per weight"
    without = list(train(Spec(ema=0), Pair()))[-1]
    assert not any(name.startswith("average") for name in weights(without))


def test_not_a_number_is_stepped_over_then_a_result() -> None:
    with pytest.raises(Diverged):
        list(train(Spec(), Pair(), data=rows(bad_row=0)))


def test_a_generator_that_says_one_thing_is_flagged() -> None:
    class Constant(AcganGenerator):
        def forward(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return super().forward(0 * z, label)

    def build() -> tuple[nn.Module, nn.Module]:
        return Constant(SHAPE, 2, 6, 10, out_act="linear"), Pair()()[1]

    first, *_ = train_gan(GanTask(Spec(), build, rows(), 0), World.single())
    assert first.metrics["collapsed"] == 1

    spec = Spec(epochs=12, collapse_patience=4)
    with pytest.raises(Collapsed, match=r"epoch 11 .*for 4 epochs .* deviation, now 0"):
        list(train_gan(GanTask(spec, build, rows(), 0), World.single()))
    stopped = Spec(epochs=9, collapse_patience=0)
    *_, ninth = train_gan(GanTask(stopped, build, rows(), 0), World.single())
    with pytest.raises(Collapsed, match="epoch 11 "):  # epochs before a checkpoint count
        list(train_gan(GanTask(spec, build, rows(), 0, resume=ninth.checkpoint), World.single()))
    short = Spec(epochs=8, collapse_patience=4)  # its second half is no longer than the patience
    assert len(list(train_gan(GanTask(short, build, rows(), 0), World.single()))) == 8
    patient = Spec(epochs=6, collapse_patience=0)
    assert len(list(train_gan(GanTask(patient, build, rows(), 0), World.single()))) == 6

    varied = list(train(Spec(epochs=6, lr_g=3e-3), Pair()))[-1]
    assert varied.metrics["collapsed"] == 0


def test_few_rows_make_one_small_batch() -> None:
    *_, last = train(Spec(batch_size=64, epochs=2), Pair(), data=rows(9))
    assert last.checkpoint is not None
    assert last.checkpoint.step == 2
    with pytest.raises(UserError, match=r"gan\.batch_size: .* cannot feed 10 ranks"):
        next(train(Spec(), Pair(), World(0, 10, 0, torch.device("cpu"))))


def test_an_epoch_may_be_any_number_of_steps() -> None:
    *_, last = train(Spec(steps_per_epoch=12, epochs=2), Pair())
    assert last.checkpoint is not None
    assert last.checkpoint.step == 24


def test_rows_without_label_are_refused() -> None:
    data = rows()
    data.labels[3] = -1
    with pytest.raises(UserError, match="1 rows have no label"):
        list(train(Spec(), Pair(), data=data))


@pytest.mark.parametrize("size", [2, 3])
def test_draws_of_ranks_are_those_of_one(size: int) -> None:
    device = torch.device("cpu")
    whole = Draws(3, 4, 10, World.single())
    parts = [Draws(3, 4, 10, World(rank, size, rank, device)) for rank in range(size)]
    for draw in (
        lambda d: d.normal("z", 5),
        lambda d: d.uniform("mix"),
        lambda d: d.labels("label", 3),
    ):
        assert torch.equal(torch.cat([draw(part) for part in parts]), draw(whole))
    assert not torch.equal(whole.normal("z", 5), Draws(3, 5, 10, World.single()).normal("z", 5))


def test_scaling_is_undone_and_keeps_dead_channels_dead() -> None:
    data = rows()
    data.x[:, 4] = 2.5
    x = data.x
    for how in ("standardise", "minmax", "none"):
        scale = FeatureScale.fit(data, how, World.single())
        torch.testing.assert_close(scale.decode(scale.encode(x)), x, rtol=1e-5, atol=1e-5)
        assert (scale.decode(torch.randn(5, *SHAPE)) >= 0).all()
        if how != "none":
            assert (scale.decode(torch.randn(5, *SHAPE))[:, 4] == 2.5).all()
            assert (scale.encode(x)[:, 4] == 0).all()
        again = FeatureScale.of(scale.tensors())
        assert torch.equal(again.encode(x), scale.encode(x))
    y = FeatureScale.fit(data, "standardise", World.single()).encode(x)[:, :4]
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3), correction=0), torch.ones(4))
    y = FeatureScale.fit(data, "minmax", World.single()).encode(x)[:, :4]
    assert torch.equal(y.amax((0, 2, 3)), torch.ones(4))
    assert torch.equal(y.amin((0, 2, 3)), -torch.ones(4))
    signed = MemoryRows(x - 1, data.labels, data.classes)
    assert (FeatureScale.fit(signed, "none", World.single()).decode(-x) < 0).any()


def _statistics(world: World, n: int) -> ChannelStatistics:
    return ChannelStatistics.of(rows(n), world)


@pytest.mark.parametrize("n", [1, 41])
def test_channel_statistics_do_not_depend_on_ranks(two_ranks, n: int) -> None:
    expected = _statistics(World.single(), n)
    for got in two_ranks(_statistics, n):
        for name in ("mean", "std", "low", "high"):
            torch.testing.assert_close(getattr(got, name), getattr(expected, name), msg=name)
    assert torch.allclose(expected.mean, rows(n).x.double().mean((0, 2, 3)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_with_channels_innermost_are_the_same_rows(
    layout: torch.memory_format, dtype: torch.dtype
) -> None:
    x = torch.randn(3, 5, 4, 6).to(memory_format=layout)
    y = channels_last(x, dtype)
    assert torch.equal(y, x.to(dtype))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(channels_last(x[:, :, 1:]), x[:, :, 1:])
    assert channels_last(x[0, 0]).shape == (4, 6)


def test_a_loss_is_five_frames_from_the_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs, an epoch, a step, a player's, its loss: as one reads them, in two files."""
    seen: dict[str, list[traceback.FrameSummary]] = {}
    for player in ("discriminator_loss", "generator_loss"):
        whole = getattr(GanStep, player)

        def noted(self: GanStep, *given: Any, whole: Any = whole, player: str = player) -> Any:
            seen[player] = traceback.extract_stack()[:-1]
            return whole(self, *given)

        monkeypatch.setattr(GanStep, player, noted)
    next(train(Spec(epochs=1), Pair()))
    for player, stack in seen.items():
        here = max(i for i, frame in enumerate(stack) if frame.filename == __file__)
        frames = [*((Path(f.filename).name, f.name) for f in stack[here + 1 :]), player]
        assert len(frames) == 5, frames
        assert {name for name, _ in frames[:-1]} == {"gan.py", "gan_step.py"}
