"""float16 with scaled losses, for GPUs that only emulate bfloat16 (T4, V100)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from medaug.experiment.segment import feature_spec
from medaug.spec import FeatureSpec, NetworkSpec
from medaug.spec.study import SegmenterSpec
from medaug.train import precision
from medaug.train.adam import FusedAdam
from medaug.train.checkpoint import Ledger, Progress
from medaug.train.classify import train_classifier
from medaug.train.gan import GanTask, train_gan, train_gans
from medaug.train.gan_run import Replicate
from medaug.train.loop import Diverged, Guard, Training
from medaug.train.precision import settle
from medaug.train.segment import train_segmenter
from medaug.train.world import World
from tests.train.cohorts import features, slices
from tests.train.tape import TapeRecorder
from tests.train.test_captured import assert_same, tapes
from tests.train.test_gan import Pair, Spec, rows
from tests.train.test_replicates import in_turn

__all__ = ["tapes"]

ALONE, EAGER = World.single(), replace(World.single(), step_graphs="never")
GPU = World.single("cuda")


@pytest.fixture
def in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(precision.OVERRIDE, "fp16")


def gan(seed: int = 0, pair: Pair | None = None, **keys: Any) -> GanTask:
    spec = Spec(**{"epochs": 4, "lr_g": 1e-4, "lr_d": 1e-4, **keys})
    return GanTask(spec, pair or Pair(), rows(), seed)


# --- What is chosen -------------------------------------------------------------------------


@pytest.fixture
def old_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """A T4, and how many times as fast it is in a narrow type."""
    speeds = {"fp16": 2.5}
    monkeypatch.delenv(precision.OVERRIDE)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(precision, "_speed", lambda *of: speeds[of[-1]])
    monkeypatch.setattr(precision, "_any", lambda here, world: here)  # one rank; no tensor there
    return speeds


def chosen(asked: str, no_fp16: str | None = None) -> str:
    networks = {"net": nn.Linear(2, 2)}
    return settle(asked, networks, lambda copies: lambda: None, GPU, {}, no_fp16=no_fp16)


@pytest.mark.parametrize(
    ("asked", "speed", "why", "expected", "line"),
    [
        ("auto", 2.5, None, "fp16", "fp16 (fp16 is 2.5 times as fast here, with scaled losses)"),
        ("auto", 0.9, None, "fp32", "fp32 (fp16 is 0.9 times as fast here)"),
        ("auto", 2.5, "a penalty", "fp32", "fp32 (Tesla T4 has no bf16, and no fp16: a penalty)"),
        ("bf16", 2.5, None, "fp16", "fp16 with scaled losses, not bf16, which Tesla T4 only"),
        ("bf16", 2.5, "a penalty", "fp32", "no fp16: a penalty"),
        ("fp32", 2.5, None, "fp32", ""),
        ("fp16", 2.5, None, "fp16", ""),
    ],
)
def test_an_old_gpu_takes_fp16_where_it_is_faster_and_says_so(
    asked: str,
    speed: float,
    why: str | None,
    expected: str,
    line: str,
    old_gpu: dict[str, float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    old_gpu["fp16"] = speed
    assert chosen(asked, why) == expected
    assert line in caplog.text
    assert len(caplog.records) == bool(line), "one line"


def _any_is_old(world: World, old_rank: int) -> bool:
    return precision._any(world.rank == old_rank, world)


@pytest.mark.parametrize(("old_rank", "expected"), [(0, True), (1, True), (2, False)])
def test_ranks_on_gpus_of_two_kinds_compute_alike(
    two_ranks: Any, old_rank: int, expected: bool
) -> None:
    """As soon as one of them is old, all are asked about fp16."""
    assert two_ranks(_any_is_old, old_rank) == [expected] * 2


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "fp16"),
        ({"adv": "r1"}, "fp32"),
        ({"adv": "wgan_gp"}, "fp32"),
        ({"feature_scale": "none"}, "fp32"),
    ],
)
@pytest.mark.usefixtures("in_fp16")
def test_what_fp16_cannot_hold_is_float32(keys: dict[str, Any], expected: str) -> None:
    pair = Pair("none") if keys.get("adv") == "wgan_gp" else Pair()
    replicate = Replicate(gan(pair=pair, **keys), ALONE)
    assert replicate.task.spec.precision == expected
    assert bool(replicate.training.scalers) == (expected == "fp16")


def test_features_of_a_unet_trained_in_fp16_are_float32() -> None:
    assert feature_spec(FeatureSpec(), {"precision": "fp16"}).precision == "fp32"
    assert feature_spec(FeatureSpec(), {"precision": "bf16"}).precision == "bf16"


# --- Scales -------------------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(), nn.Linear(8, 1))


OPTIMIZERS: dict[str, Any] = {
    "adam": lambda p: FusedAdam(p, lr=1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, fused=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_scaled_steps_are_those_of_torchs_own_loop(optimizer: str) -> None:
    """With a loss too large for its scale in the third step, and one that is not a number."""
    ours, theirs = network(), network()
    training = Training({"n": ours}, {"o": OPTIMIZERS[optimizer](ours.parameters())}, Guard(ALONE))
    training.scale_losses("fp16")
    own = OPTIMIZERS[optimizer](theirs.parameters())
    scaler = GradScaler("cpu")
    for step in range(8):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        factor = {2: 1e36, 5: torch.nan}.get(step, 1.0)
        loss = factor * ours(x).square().mean()
        training.optimizers["o"].zero_grad()
        training.backward(loss, "o")
        skipped = training.move("o")
        own.zero_grad()
        scaler.scale(factor * theirs(x).square().mean()).backward()
        scaler.step(own)
        scaler.update()
        assert bool(skipped) == (step in (2, 5))
        assert training.scalers["o"].state_dict() == scaler.state_dict()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    assert training.guard.skipped == 0, "its scale was at fault: half of it is tried next"
    assert training.scalers["o"].get_scale() == 2.0**14


def test_what_is_not_finite_at_scale_one_is_the_trainings_own_fault() -> None:
    one = network()
    training = Training({"n": one}, {"o": FusedAdam(one.parameters(), lr=1e-2)}, Guard(ALONE))
    training.scale_losses("fp16")
    for _ in range(20):
        training.optimizers["o"].zero_grad()
        training.backward(one(torch.full((1, 4), torch.nan)).sum(), "o")
        assert training.move("o")
    # From 65,536 to 1 in 16 steps, which are no fault of the training.
    assert training.guard.skipped == 4
    assert training.guard.last_bad == 1
    training.optimizers["o"].zero_grad()
    training.backward(one(torch.ones(1, 4)).sum(), "o")
    assert not training.move("o")
    assert training.guard.last_bad == 0


# --- Trainings ----------------------------------------------------------------------------------


def test_a_gan_in_fp16_learns_as_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    curves = []
    for narrow in ("fp32", "fp16"):
        monkeypatch.setenv(precision.OVERRIDE, narrow)
        curves.append([p.metrics for p in train_gan(gan(), ALONE)])
    for wide, half in zip(*curves, strict=True):
        for name in ("train/d_adversarial", "train/d_loss", "train/g_loss"):
            assert half[name] == pytest.approx(wide[name], rel=0.02, abs=0.02), name


@pytest.mark.usefixtures("in_fp16")
def test_a_gan_in_fp16_is_resumed_with_its_scales(tmp_path: Path) -> None:
    whole = list(train_gan(gan(), EAGER))
    for stopped in whole[:-1]:
        assert stopped.checkpoint is not None
        assert stopped.checkpoint.state["scalers"].keys() == {"discriminator", "generator"}
        ledger = Ledger(tmp_path / str(stopped.epoch))
        ledger.commit(stopped.checkpoint, fingerprint="x")
        rest = list(train_gan(replace(gan(), resume=ledger.latest("x")), EAGER))
        assert_same(rest, whole[stopped.epoch :])
        last = rest[-1].checkpoint
        assert last is not None
        assert last.state["scalers"] == whole[-1].checkpoint.state["scalers"]  # type: ignore[union-attr]


@pytest.mark.usefixtures("in_fp16")
@pytest.mark.parametrize("keys", [{}, {"accumulate": 3}, {"d_aug": "ada"}])
def test_scaled_steps_are_replayed(keys: dict[str, Any], tapes: list[TapeRecorder]) -> None:
    assert_same(list(train_gan(gan(**keys), ALONE)), list(train_gan(gan(**keys), EAGER)))
    (recorder,) = tapes
    assert sum(tape.replays for tape in recorder.tapes) == 17


@pytest.mark.usefixtures("in_fp16")
def test_parts_of_a_batch_have_one_scale() -> None:
    """Summed before they are divided by it: equal to the whole batch, to rounding."""
    whole, parts = (list(train_gan(gan(accumulate=n, epochs=1), EAGER)) for n in (1, 3))
    for name, value in whole[0].metrics.items():
        assert parts[0].metrics[name] == pytest.approx(value, rel=0.02, abs=0.02), name


@pytest.mark.usefixtures("in_fp16")
def test_fused_replicates_have_scales_of_their_own() -> None:
    """The second one's loss is too large for any scale: it alone is given up."""
    tasks = [gan(seed, epochs=3) for seed in range(3)]
    tasks[1] = replace(tasks[1], train=rows(bad_row=0))
    trainings = train_gans(tasks, EAGER)
    firsts: list[list[Progress]] = [[], []]
    for _ in range(3):
        for found, training in zip(firsts, (trainings[0], trainings[2]), strict=True):
            found.append(next(training))
    with pytest.raises(Diverged):
        list(trainings[1])
    for found, seed in zip(firsts, (0, 2), strict=True):
        *_, alone = train_gan(gan(seed, epochs=3), EAGER)
        for name in ("train/d_loss", "train/g_loss"):
            assert found[-1].metrics[name] == pytest.approx(alone.metrics[name], rel=0.02, abs=0.02)
        assert found[-1].checkpoint is not None
        assert alone.checkpoint is not None
        assert found[-1].checkpoint.state["scalers"] == alone.checkpoint.state["scalers"]


@pytest.mark.usefixtures("in_fp16")
def test_fused_scales_are_replayed(tapes: list[TapeRecorder]) -> None:
    tasks = [gan(seed) for seed in range(2)]
    runs = [in_turn(train_gans(tasks, world)) for world in (ALONE, EAGER)]
    for got, eager in zip(*runs, strict=True):
        assert_same(got, eager)


def _on_ranks(world: World) -> tuple[dict[str, float], dict[str, Any]]:
    import os

    before = os.environ.get(precision.OVERRIDE)
    os.environ[precision.OVERRIDE] = "fp16"
    try:
        *_, last = train_gan(gan(pair=Pair(plain=True)), world)
    finally:
        os.environ[precision.OVERRIDE] = before or "fp32"
    assert last.checkpoint is not None
    return last.metrics, last.checkpoint.state["scalers"]


def test_ranks_agree_on_their_scales(two_ranks: Any) -> None:
    one, two = two_ranks(_on_ranks)
    metrics, _ = _on_ranks(ALONE)
    assert one == two
    # With one rank gradients of single rows are half as large: another step may be skipped.
    assert one[0]["train/d_loss"] == pytest.approx(metrics["train/d_loss"], rel=0.05)


@pytest.mark.usefixtures("in_fp16")
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_a_classifier_learns_in_fp16(tmp_path: Path, optimizer: str) -> None:
    real, val = features(tmp_path / "real", 40), features(tmp_path / "val", 30, seed=1)
    spec = NetworkSpec(epochs=4, batch_size=8, dropout=0, optimizer=optimizer, final="average")  # type: ignore[arg-type]
    runs = list(train_classifier(spec, real, None, val, ALONE, 0))
    assert runs[-1].result.spec.precision == "fp16"
    assert runs[-1].metrics["train/loss"] < runs[0].metrics["train/loss"]
    assert runs[1].checkpoint is not None
    rest = list(train_classifier(spec, real, None, val, ALONE, 0, resume=runs[1].checkpoint))
    assert [p.metrics for p in rest] == [p.metrics for p in runs[2:]]


@pytest.mark.usefixtures("in_fp16")
def test_a_unet_learns_in_fp16(tmp_path: Path) -> None:
    train, val = slices(tmp_path / "train", 4), slices(tmp_path / "val", 2, seed=1)
    spec = SegmenterSpec(base=4, init="kaiming", epochs=6, lr=1e-2, batch_size=6, pretrain=None)
    *_, last = train_segmenter(spec, train, val, (110.0, 35.0), ALONE, 0)
    assert last.result.precision == "fp16"
    assert last.metrics["val/dice"] > 0.8
