"""Replicates that share passes against the same trainings alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medaug.errors import UserError
from medaug.models.dcgan import Dcgan32Discriminator, Dcgan32Generator
from medaug.models.fused import fuse
from medaug.models.mlp import MlpCritic, MlpGenerator
from medaug.train import compiled as compiling
from medaug.train.checkpoint import Checkpoint, Ledger, Progress
from medaug.train.gan import GanTask, train_gan, train_gans
from medaug.train.loop import Diverged
from medaug.train.world import World
from tests.train.test_gan import OPTIONS, MeanOf, Pair, Spec, rows

CLOSE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-5}
ALONE = World.single()


def task(option: str, seed: int, resume: Checkpoint | None = None, **keys: Any) -> GanTask:
    """Replicates have folds of their own, of different lengths: 40, 41, … rows."""
    options, pair = OPTIONS[option]
    # Adam moves a weight whose gradient is mere rounding by the whole rate, either way: at this
    # rate that stays within the tolerance on any processor, and a wrong gradient does not.
    spec = Spec(**{"lr_g": 2e-6, "lr_d": 2e-6, **options, **keys})
    return GanTask(spec, pair, rows(40 + 3 * seed), seed, quality=MeanOf(), resume=resume)


def in_turn(trainings: list[Iterator[Progress]]) -> list[list[Progress]]:
    """All epochs of each training, drawn as a sweep does: one of each, and again."""
    drawn: list[list[Progress]] = [[] for _ in trainings]
    going = dict(enumerate(trainings))
    while going:
        for i, training in list(going.items()):
            if (progress := next(training, None)) is None:
                del going[i]
            else:
                drawn[i].append(progress)
    return drawn


def assert_equal(got: list[Progress], expected: list[Progress]) -> None:
    assert [p.epoch for p in got] == [p.epoch for p in expected]
    for one, other in zip(got, expected, strict=True):
        assert one.metrics.keys() == other.metrics.keys()
        for name, value in other.metrics.items():
            assert one.metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
        if other.checkpoint is None:
            continue
        assert one.checkpoint is not None
        assert one.checkpoint.step == other.checkpoint.step
        for name, tensor in other.checkpoint.tensors.items():
            torch.testing.assert_close(one.checkpoint.tensors[name], tensor, **CLOSE, msg=name)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("option", [name for name in OPTIONS if name != "bf16"])
def test_fused_replicates_equal_separate_ones(option: str, k: int) -> None:
    tasks = [task(option, seed) for seed in range(k)]
    for one, fused in zip(tasks, in_turn(train_gans(tasks, ALONE)), strict=True):
        assert_equal(fused, list(train_gan(one, ALONE)))


@pytest.mark.parametrize("first", ["fused", "separate"])
def test_a_replicate_goes_on_fused_or_separate(first: str, tmp_path: Path) -> None:
    tasks = [task("as_published", seed) for seed in range(2)]
    whole = [list(train_gan(one, ALONE)) for one in tasks]
    begun = in_turn(train_gans(tasks, ALONE)) if first == "fused" else whole
    resumed = []
    for i, (one, epochs) in enumerate(zip(tasks, begun, strict=True)):
        ledger = Ledger(tmp_path / str(i))
        at = epochs[i].checkpoint  # one replicate is an epoch ahead of the other
        assert at is not None
        ledger.commit(at, fingerprint="x")
        resumed.append(replace(one, resume=ledger.latest("x")))
    if first == "fused":
        rest = [list(train_gan(one, ALONE)) for one in resumed]
    else:
        rest = in_turn(train_gans(resumed, ALONE))
    for i, epochs in enumerate(rest):
        assert_equal(epochs, whole[i][i + 1 :])


def test_one_diverges_and_one_is_stopped_and_the_others_do_not_notice() -> None:
    tasks = [task("stable", seed) for seed in range(4)]
    tasks[1] = replace(tasks[1], train=rows(43, bad_row=0))
    trainings = train_gans(tasks, ALONE)
    alone = [list(train_gan(one, ALONE)) for one in (tasks[0], tasks[3])]
    drawn: list[list[Progress]] = [[], []]
    for epoch in range(3):
        for kept, training in zip(drawn, (trainings[0], trainings[3]), strict=True):
            kept.append(next(training))
        if epoch == 0:
            next(trainings[2])
            trainings[2].close()  # type: ignore[attr-defined]
            with pytest.raises(Diverged):
                list(trainings[1])
    for fused, separate in zip(drawn, alone, strict=True):
        assert_equal(fused, separate)


def test_critic_rounds_need_not_coincide() -> None:
    """41 and 44 rows are 5 steps an epoch; a replicate that is an epoch ahead is out of phase."""
    tasks = [task("wgan_gp", seed) for seed in range(2)]
    whole = [list(train_gan(one, ALONE)) for one in tasks]
    tasks[1] = replace(tasks[1], resume=whole[1][0].checkpoint)
    for i, epochs in enumerate(in_turn(train_gans(tasks, ALONE))):
        assert_equal(epochs, whole[i][i:])


BAND = 0.02
"""How far a loss curve in bf16 may be from that in float32, as a share of the loss."""


@pytest.mark.parametrize("option", ["stable", "as_published"])
def test_bf16_stays_in_a_band_around_float32(option: str) -> None:
    tasks = [
        task(option, 0, epochs=8, precision=precision, lr_g=1e-4, lr_d=1e-4)
        for precision in ("fp32", "bf16")
    ]
    curves = [[p.metrics for p in train_gan(one, ALONE)] for one in tasks]
    for wide, narrow in zip(*curves, strict=True):
        for name in ("train/d_adversarial", "train/d_loss", "train/g_loss"):
            assert narrow[name] == pytest.approx(wide[name], rel=BAND, abs=BAND), name


def test_bf16_replicates_stay_near() -> None:
    tasks = [task("bf16", seed) for seed in range(2)]
    for one, fused in zip(tasks, in_turn(train_gans(tasks, ALONE)), strict=True):
        *_, alone = train_gan(one, ALONE)
        assert fused[-1].metrics["train/d_loss"] == pytest.approx(
            alone.metrics["train/d_loss"], rel=0.02
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": Spec(lr_g=0.5)}, "different configurations"),
        ({"train": rows(5)}, "different batches"),
    ],
)
def test_what_is_not_alike_is_refused(change: dict[str, Any], message: str) -> None:
    first = task("stable", 0)
    with pytest.raises(UserError, match=message):
        train_gans([first, replace(first, **change)], ALONE)


def test_several_ranks_are_refused() -> None:
    tasks = [task("stable", seed) for seed in range(2)]
    with pytest.raises(UserError, match="set ranks 1"):
        train_gans(tasks, World(0, 2, 0, torch.device("cpu")))


def test_every_gan_of_the_package_fuses() -> None:
    x, label = torch.randn(8, 1, 16, 16), torch.arange(8) % 2
    pairs: list[tuple[Any, Any, torch.Tensor]] = [
        (Dcgan32Generator, Dcgan32Discriminator, x),
        (lambda: MlpGenerator(6, 2), lambda: MlpCritic(6, 2), torch.randn(8, 6)),
    ]
    for make_generator, make_discriminator, seen in pairs:
        dcgan = seen.ndim == 4
        sizes = {"size": 16, "width": 4} if dcgan else {}
        for make, given in ((make_generator, None), (make_discriminator, seen)):
            networks = []
            for seed in range(2):
                torch.manual_seed(seed)
                networks.append(make(**sizes).eval())
            z = torch.randn(8, getattr(networks[0], "nz", 1))
            y = z if given is None else given
            fused = fuse(networks, [torch.Generator(), torch.Generator()])(y, label)
            halves = zip(networks, y.chunk(2), label.chunk(2), strict=True)
            each = [network(*half) for network, *half in halves]
            if given is not None:
                fused, each = fused.adv, [out.adv for out in each]
            torch.testing.assert_close(fused, torch.cat(each), **CLOSE)


@pytest.mark.parametrize("k", [1, 3])
def test_every_replicate_learns_when_compiled(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused pass is what has to be compiled: the first network's code knows only its own
    weights. Dynamo traces here, and runs what it traced eagerly."""
    compiled = compiled_on_the_cpu(monkeypatch)
    tasks = [task("stable", seed, compile="default", epochs=2) for seed in range(k)]
    eager = [list(train_gan(task("stable", seed, epochs=2), ALONE)) for seed in range(k)]
    for got, expected in zip(in_turn(train_gans(tasks, ALONE)), eager, strict=True):
        assert_equal(got, expected)
    assert len(compiled) == 2, "generator and discriminator, once for all"


def test_many_compiled_trainings_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """After eight of them torch would give up compiling: each forgets those before."""
    from torch._dynamo.utils import counters

    compiled_on_the_cpu(monkeypatch)
    counters.clear()
    for seed in range(10):
        before = counters["stats"]["unique_graphs"]
        next(train_gan(task("stable", seed, compile="default", epochs=1), ALONE))
        assert counters["stats"]["unique_graphs"] > before, f"training {seed} ran eagerly"


def compiled_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Networks that are compiled from now on, here too, by dynamo alone."""
    compiled: list[nn.Module] = []
    whole = nn.Module.compile

    def dynamo_only(network: nn.Module, **how: Any) -> None:
        compiled.append(network)
        whole(network, backend="eager")

    monkeypatch.setattr(compiling, "COMPILED_ON", ("cpu",))
    monkeypatch.setattr(nn.Module, "compile", dynamo_only)
    return compiled


def test_an_unknown_layer_is_named() -> None:
    norms = [nn.LayerNorm(3), nn.LayerNorm(3)]
    with pytest.raises(ValueError, match="LayerNorm cannot be fused"):
        fuse(norms, [torch.Generator(), torch.Generator()])


@pytest.mark.parametrize("option", ["stable", "proj_codes"])
def test_accumulated_parts_equal_the_whole_batch(option: str) -> None:
    """8 rows in 3 parts, as one training and as fused replicates."""
    whole = list(train_gan(task(option, 0), ALONE))
    parts = list(train_gan(task(option, 0, accumulate=3), ALONE))
    assert_equal(parts, whole)
    fused = in_turn(train_gans([task(option, s, accumulate=3) for s in range(2)], ALONE))
    assert_equal(fused[0], whole)


def test_accumulation_is_refused_where_batch_norm_would_see_the_parts() -> None:
    with pytest.raises(UserError, match=r"gan\.accumulate: .* use d_norm sn"):
        next(train_gan(task("as_published", 0, accumulate=2), ALONE))
    with pytest.raises(UserError, match=r"gan\.accumulate: a batch of 8 rows .* no 9 parts"):
        next(train_gan(task("stable", 0, accumulate=9), ALONE))


def _accumulated(world: World, accumulate: int) -> dict[str, torch.Tensor]:
    pair = Pair(plain=True)
    one = GanTask(Spec(accumulate=accumulate, lr_g=2e-6, lr_d=2e-6), pair, rows(), 5)
    *_, last = train_gan(one, world)
    assert last.checkpoint is not None
    return last.checkpoint.tensors


def test_two_ranks_that_accumulate_equal_one_that_does_not(two_ranks: Any) -> None:
    expected = _accumulated(ALONE, 1)
    for got in two_ranks(_accumulated, 2):
        for name, tensor in expected.items():
            torch.testing.assert_close(got[name], tensor, **CLOSE, msg=name)


def test_compiling_without_a_gpu_says_so(caplog: pytest.LogCaptureFixture) -> None:
    next(train_gan(task("stable", 0, compile="cuda_graphs", epochs=1), ALONE))
    assert "compile: cuda_graphs is for GPUs" in caplog.text
