"""A step that is recorded and replayed is the eager step, to the last bit."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from medaug.models import fused
from medaug.train import captured, gan_step, graph_pool, resident
from medaug.train.captured import NCCL_HANDLING, WARM_UP, why_not
from medaug.train.checkpoint import Progress
from medaug.train.gan import GanTask, train_gan, train_gans
from medaug.train.gan_run import Replicate
from medaug.train.gan_step import GanStep
from medaug.train.loop import Diverged, Training
from medaug.train.world import World
from tests.train.tape import TapeRecorder
from tests.train.test_gan import Pair, Spec, rows
from tests.train.test_replicates import in_turn

ALONE, EAGER = World.single(), replace(World.single(), step_graphs="never")

OPTIONS: dict[str, tuple[dict[str, Any], Pair]] = {
    "stable": ({}, Pair()),
    "bf16": ({"precision": "bf16"}, Pair()),
    "as published": ({"preset": "as_published"}, Pair("bn", dropout=0.5)),
    "other dropout": ({"preset": "as_published"}, Pair("bn", dropout=0.3)),
    "r1": ({"adv": "r1", "cond": "adc", "label_smoothing": 0.1}, Pair(cond="adc")),
    "wgan_gp": ({"adv": "wgan_gp", "n_critic": 2}, Pair("none")),
    "ada": ({"d_aug": "ada", "lecam": 0.1}, Pair()),
    "noise, codes": ({"cond": "proj", "inst_noise": 0.1}, Pair(cond="proj", n_codes=2)),
    "parts": ({"accumulate": 3, "d_aug": "diffaugment"}, Pair()),
}


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[TapeRecorder]:
    """Steps on the CPU are recorded, too."""
    made: list[TapeRecorder] = []
    monkeypatch.setattr(TapeRecorder, "made", made)
    monkeypatch.setattr(captured, "RECORDERS", {"cpu": TapeRecorder})
    for module in (fused, gan_step):
        monkeypatch.setattr(module, "drawing_from", lambda g: made[-1].drawing_from(g))
    return made


def task(option: str, seed: int, **keys: Any) -> GanTask:
    """5 steps an epoch, 20 in all."""
    given, pair = OPTIONS[option]
    return GanTask(Spec(**{"epochs": 4, "precision": "fp32", **given, **keys}), pair, rows(), seed)


def assert_same(got: list[Progress], expected: list[Progress]) -> None:
    assert [p.metrics for p in got] == [p.metrics for p in expected]
    for one, other in zip(got, expected, strict=True):
        assert one.checkpoint is not None
        assert other.checkpoint is not None
        assert one.checkpoint.step == other.checkpoint.step
        for name, tensor in other.checkpoint.tensors.items():
            assert torch.equal(one.checkpoint.tensors[name], tensor), name


@pytest.mark.parametrize("option", OPTIONS)
def test_twenty_replayed_steps_are_the_eager_ones(option: str, tapes: list[TapeRecorder]) -> None:
    eager = list(train_gan(task(option, 0), EAGER))
    assert not tapes
    assert_same(list(train_gan(task(option, 0), ALONE)), eager)
    (recorder,) = tapes
    kinds = 2 if "n_critic" in OPTIONS[option][0] else 1
    assert len(recorder.tapes) == kinds
    assert recorder.eager == kinds * WARM_UP
    assert sum(tape.replays for tape in recorder.tapes) == 20 - kinds * WARM_UP


@pytest.mark.parametrize("option", ["stable", "as published", "other dropout", "r1", "wgan_gp"])
def test_fused_replicates_are_replayed_as_well(option: str, tapes: list[TapeRecorder]) -> None:
    tasks = [task(option, seed) for seed in range(3)]
    graphs = in_turn(train_gans(tasks, ALONE))
    (recorder,) = tapes
    for got, eager in zip(graphs, in_turn(train_gans(tasks, EAGER)), strict=True):
        assert_same(got, eager)
    assert sum(tape.replays for tape in recorder.tapes) >= 14


def test_a_resumed_training_goes_on_as_if_it_had_not_been_stopped(
    tapes: list[TapeRecorder],
) -> None:
    whole = list(train_gan(task("as published", 0), EAGER))
    resumed = replace(task("as published", 0), resume=whole[1].checkpoint)
    assert_same(list(train_gan(resumed, ALONE)), whole[2:])


def test_what_changes_between_epochs_is_recorded_anew(tapes: list[TapeRecorder]) -> None:
    """Half the learning rate, and then all tensors of a checkpoint."""
    runs = []
    for world in (EAGER, ALONE):
        training = train_gan(task("ada", 0, epochs=5), world)
        epochs = [next(training)]
        own: Training = training.gi_frame.f_locals["me"].training  # type: ignore[attr-defined]
        own.scale_lr(0.5)
        epochs.append(next(training))
        assert epochs[-1].checkpoint is not None
        own.restore(epochs[-1].checkpoint)
        runs.append(epochs + list(training))
    assert_same(runs[1], runs[0])
    (recorder,) = tapes
    assert len(recorder.tapes) == 3


def test_a_step_that_is_not_finite_is_skipped_in_a_replay(tapes: list[TapeRecorder]) -> None:
    for world in (EAGER, ALONE):
        with pytest.raises(Diverged):
            list(train_gan(replace(task("stable", 0), train=rows(bad_row=0)), world))


def test_one_of_several_leaves_and_the_others_are_recorded_without_it(
    tapes: list[TapeRecorder],
) -> None:
    runs = []
    for world in (EAGER, ALONE):
        trainings = train_gans([task("stable", seed) for seed in range(3)], world)
        first = [next(training) for training in trainings]
        trainings[2].close()  # type: ignore[attr-defined]
        runs.append([[p, *rest] for p, rest in zip(first, in_turn(trainings[:2]), strict=False)])
    for got, eager in zip(*reversed(runs), strict=True):
        assert_same(got, eager)
    assert len(tapes) == 2


def test_what_a_recording_cannot_do_ends_it_and_training_goes_on(
    tapes: list[TapeRecorder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = GanStep.generator_step

    def asks(self: GanStep, given: Any) -> None:
        whole(self, given)
        float(self.skipped.sum())

    eager = list(train_gan(task("stable", 0), EAGER))
    monkeypatch.setattr(GanStep, "generator_step", asks)
    assert_same(list(train_gan(task("stable", 0), ALONE)), eager)
    assert caplog.text.count("steps are not recorded as graphs: operation not permitted") == 1
    with pytest.raises(RuntimeError, match="_local_scalar_dense"):
        list(train_gan(task("stable", 0), replace(ALONE, step_graphs="always")))


@pytest.mark.parametrize("part", ["discriminator_loss", "generator_loss"])
def test_a_recording_that_fails_half_way_leaves_nothing_behind(
    part: str, tapes: list[TapeRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discriminators that are frozen meanwhile, and spectral norms that wait for the other parts of
    a batch."""
    whole, calls = getattr(GanStep, part), []

    def asks(self: GanStep, out: Any, given: Any) -> Any:
        loss, values = whole(self, out, given)
        if tapes and tapes[0].writing is not None:
            calls.append(len(calls))
            if len(calls) == 2:  # in the second of three parts
                float(loss.detach().sum())
        return loss, values

    monkeypatch.setattr(GanStep, part, asks)
    eager = list(train_gan(task("parts", 0), EAGER))
    assert_same(list(train_gan(task("parts", 0), ALONE)), eager)
    assert len(calls) == 2
    assert tapes[0].eager == 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.tensor(1.0), "pageable"),
        (lambda: torch.randn(2, generator=torch.Generator()), "not registered"),
        (lambda: torch.zeros(2).nonzero(), "not permitted"),
    ],
)
def test_the_tape_refuses_what_a_gpu_does(make: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        TapeRecorder(torch.device("cpu")).record(make, [])


class Driver:
    """Of a GPU that is not there: what torch asks it in a recording, after its CUDAGraph.cpp."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream, self.recording, self.used, self.broken = "default", False, 0, False
        driver = self

        class Graph:
            def capture_begin(self, *pool: Any, **how: Any) -> None:
                driver.recording, driver.used = True, driver.used + 1

            def capture_end(self) -> None:
                if driver.broken:
                    raise RuntimeError("operation failed due to a previous error during capture")
                driver.recording = False

        def end(device: int, pool: Any) -> None:
            if not driver.recording:
                raise RuntimeError("not currently recording to mempool_id")
            driver.recording = False

        def release(device: int, pool: Any) -> None:
            driver.used -= 1

        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: "its own")
        monkeypatch.setattr(torch.cuda, "stream", self._on)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
        monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
        monkeypatch.setattr(graph_pool, "_END", end)
        monkeypatch.setattr(graph_pool, "_RELEASE", release)

    @contextlib.contextmanager
    def _on(self, stream: str) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before


@pytest.mark.parametrize("broken", [True, False])
def test_a_recording_that_fails_gives_back_its_stream_and_memory(
    broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all that this process does later goes on that stream, and frees no memory."""
    driver = Driver(monkeypatch)
    recorder = captured.CudaGraphs(torch.device("cuda", 0))

    def fails() -> None:
        assert (driver.stream, driver.recording) == ("its own", True)
        driver.broken = broken
        raise RuntimeError("no kernel for that")

    with pytest.raises(RuntimeError) as caught:
        recorder.record(fails, [])
    assert (driver.stream, driver.recording) == ("default", False)
    assert driver.used == (0 if broken else 1)  # a graph that was ended gives its own back
    assert str(captured._first(caught.value)) == "no kernel for that"


def step(world: World, **keys: Any) -> GanStep:
    one = task("stable", 0, **keys)
    return GanStep(one.spec, [Replicate(one, ALONE)], 2, ALONE, fused=False)


def test_what_cannot_be_recorded_says_why(
    tapes: list[TapeRecorder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    there = step(ALONE)
    assert why_not(there) is None
    ranks = World(0, 2, 0, torch.device("cpu"))
    there.world = ranks
    assert "several ranks" in str(why_not(there))
    there.world = replace(ranks, step_graphs="always")
    monkeypatch.delenv(NCCL_HANDLING, raising=False)
    assert f"{NCCL_HANDLING}=0" in str(why_not(there))
    monkeypatch.setenv(NCCL_HANDLING, "0")
    assert why_not(there) is None
    there.world = EAGER
    assert "step_graphs is never" in str(why_not(there))
    monkeypatch.setattr(resident, "CPU_BYTES", 0)
    sent = step(ALONE)
    assert captured.recorded(sent) is sent
    assert "steps are not recorded as graphs: the training rows do not fit" in caplog.text
    list(train_gan(task("stable", 0, epochs=1), ALONE))


def test_without_a_gpu_nothing_is_said_unless_it_was_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    there = step(ALONE)
    assert captured.recorded(there) is there
    assert not caplog.text
    there.world = replace(ALONE, step_graphs="always")
    captured.recorded(there)
    assert "there is no GPU" in caplog.text
