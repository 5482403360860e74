"""The same training on a GPU, where there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medaug.spec import NetworkSpec
from medaug.spec.study import FeatureSpec, SegmenterSpec
from medaug.train.checkpoint import Ledger, Progress
from medaug.train.classify import train_classifier
from medaug.train.device import compute
from medaug.train.extract import encoder
from medaug.train.gan import train_gan, train_gans
from medaug.train.gan_step import GanStep
from medaug.train.segment import train_segmenter
from medaug.train.world import World
from tests.train.cohorts import features, slices
from tests.train.test_captured import OPTIONS, assert_same
from tests.train.test_captured import task as captured_task
from tests.train.test_replicates import in_turn
from tests.train.test_replicates import task as gan_task

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

DEVICES = ("cpu", "cuda")


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_classifier_learns_as_on_the_cpu(tmp_path: Path, optimizer: str) -> None:
    real, val = features(tmp_path / "real", 40), features(tmp_path / "val", 30, seed=1)
    spec = NetworkSpec(epochs=3, batch_size=8, dropout=0, optimizer=optimizer)  # type: ignore[arg-type]
    runs: list[list[Progress]] = [
        list(train_classifier(spec, real, None, val, World.single(device), 0)) for device in DEVICES
    ]
    cpu, cuda = (run[-1] for run in runs)
    assert cuda.metrics == pytest.approx(cpu.metrics, rel=0.05)
    probability = cuda.result.predict(val, World.single("cuda"))
    assert probability == pytest.approx(cpu.result.predict(val, World.single()), abs=0.1)


def test_segmenter_goes_on_from_a_ledger_on_the_gpu(tmp_path: Path) -> None:
    train, val = slices(tmp_path / "train", 4), slices(tmp_path / "val", 2, seed=1)
    spec = SegmenterSpec(base=4, init="kaiming", epochs=6, lr=1e-2, batch_size=6, pretrain=None)
    world = World.single("cuda")
    first = next(train_segmenter(spec, train, val, (110.0, 35.0), world, 0)).checkpoint
    assert first is not None
    ledger = Ledger(tmp_path / "trial")
    ledger.commit(first, fingerprint="x")
    resume = ledger.latest("x")
    *_, last = train_segmenter(spec, train, val, (110.0, 35.0), world, 0, resume=resume)
    assert last.epoch == 6
    assert last.metrics["val/dice"] > 0.8


def test_features_are_those_of_the_cpu() -> None:
    from medaug.models.unet import UNet

    torch.manual_seed(0)
    unet = UNet(1, 8, init="kaiming")
    images = 100 + 30 * torch.randn(4, 1, 32, 32)
    spec = FeatureSpec(crop="predicted_tumour", tap="uconv3")
    cpu, cuda = (encoder(unet, spec, (100.0, 30.0), World.single(d))(images) for d in DEVICES)
    assert (cuda.cpu() - cpu).norm() < 0.02 * cpu.norm()


@pytest.mark.parametrize("how", ["default", "cuda_graphs"])
def test_a_compiled_gan_learns_as_the_eager_one(how: str) -> None:
    compiled, eager = (
        list(train_gan(gan_task("stable", 0, compile=compile), World.single("cuda")))[-1]
        for compile in (how, "none")
    )
    assert compiled.metrics == pytest.approx(eager.metrics, rel=0.05, abs=0.05)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("option", OPTIONS)
def test_replayed_steps_are_the_eager_ones(option: str, k: int) -> None:
    """To the last bit, by deterministic algorithms; and no step of an epoch waits for the GPU."""
    if k > 1 and option not in ("stable", "as published", "r1", "wgan_gp"):
        pytest.skip("one of each kind is enough")
    world = World.single("cuda")
    tasks = [captured_task(option, seed) for seed in range(k)]
    compute(deterministic=True)
    try:
        eager = in_turn(train_gans(tasks, replace(world, step_graphs="never")))
        replayed = in_turn(train_gans(tasks, replace(world, step_graphs="always")))
    finally:
        compute(deterministic=False)
    for got, expected in zip(replayed, eager, strict=True):
        assert_same(got, expected)


def test_a_recording_that_fails_leaves_a_process_for_the_next_trial(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World.single("cuda")
    stream, whole = torch.cuda.current_stream(), GanStep.generator_loss

    def asks(self: GanStep, out: Any, given: Any) -> Any:
        loss, values = whole(self, out, given)
        float(loss.detach().sum())
        return loss, values

    with monkeypatch.context() as patched:
        patched.setattr(GanStep, "generator_loss", asks)
        list(train_gan(captured_task("as published", 0), world))
    assert caplog.text.count("steps are not recorded as graphs: ") == 1
    assert torch.cuda.current_stream() == stream
    torch.cuda.empty_cache()
    test_replayed_steps_are_the_eager_ones("as published", 1)


def test_a_compiled_step_is_replayed() -> None:
    runs = [
        list(
            train_gan(
                captured_task("stable", 0, compile="default"),
                World(0, 1, 0, torch.device("cuda"), graphs),  # type: ignore[arg-type]
            )
        )[-1]
        for graphs in ("never", "always")
    ]
    assert runs[1].metrics == pytest.approx(runs[0].metrics, rel=0.05, abs=0.05)


def test_replicates_share_passes_on_the_gpu() -> None:
    world = World.single("cuda")
    tasks = [gan_task("as_published", seed) for seed in range(4)]
    for one, fused in zip(tasks, in_turn(train_gans(tasks, world)), strict=True):
        *_, alone = train_gan(one, world)
        assert fused[-1].metrics == pytest.approx(alone.metrics, rel=0.02, abs=0.02)
