from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from medaug.seeding import generator
from medaug.train.checkpoint import Checkpoint, Ledger, Progress
from medaug.train.loop import Diverged, Guard, Statistics, Training, run_epochs
from medaug.train.precision import autocast
from medaug.train.world import World, convert_batchnorm, distribute

EPOCHS, STEPS, BATCH = 5, 4, 8


def train(
    world: World,
    resume: Checkpoint | None = None,
    *,
    bad_steps: tuple[int, ...] = (),
    lr: float = 0.05,
    fused: bool = True,
) -> Iterator[Progress]:
    """A regression with dropout; the last rank gets a NaN loss in the steps of ``bad_steps``.

    Steps are counted over all attempts, so that an epoch that is tried again can fare better.
    """
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
    model = distribute(convert_batchnorm(network, world), world)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, fused=fused)
    guard = Guard(world)
    training = Training({"net": network}, {"adam": optimizer}, guard)
    if resume:
        training.restore(resume)
    attempts = iter(range(1000))

    def one_epoch(epoch: int) -> dict[str, float]:
        statistics = Statistics(world)
        for step in range(STEPS):
            x = torch.randn(BATCH, 3, generator=generator("x", epoch, step))[world.share(BATCH)]
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            if next(attempts) in bad_steps and world.rank == world.size - 1:
                loss = loss * torch.nan
            optimizer.zero_grad()
            loss.backward()
            statistics.add("loss", loss * len(x), len(x), guard.step(optimizer))
            training.step += 1
        training.extra["last"] = network[0].weight.detach().clone()
        training.facts["epoch"] = epoch
        return statistics.means()

    def finish() -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}

    yield from run_epochs(training, world, 7, EPOCHS, one_epoch, finish)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("fused", [True, False])
def test_resume_after_every_epoch_is_bit_for_bit(tmp_path: Path, fused: bool) -> None:
    whole = list(train(World.single(), fused=fused))
    assert [p.epoch for p in whole] == [1, 2, 3, 4, 5]
    assert [p.result is None for p in whole] == [True] * 4 + [False]
    for stopped in whole:
        assert stopped.checkpoint is not None
        ledger = Ledger(tmp_path / str(stopped.epoch))
        ledger.commit(stopped.checkpoint, fingerprint="x")
        rest = list(train(World.single(), ledger.latest("x"), fused=fused))
        expected = whole[stopped.epoch :] or [whole[-1]]
        assert [p.epoch for p in rest] == [p.epoch for p in expected]
        assert [p.metrics for p in rest] == [p.metrics for p in expected]
        assert same(rest[-1].result, whole[-1].result)
        if stopped.epoch < EPOCHS:
            assert rest[-1].checkpoint is not None
            assert whole[-1].checkpoint is not None
            assert same(rest[-1].checkpoint.tensors, whole[-1].checkpoint.tensors)
            assert rest[-1].checkpoint.state["history"] == whole[-1].checkpoint.state["history"]
            assert rest[-1].checkpoint.state["facts"] == {"epoch": EPOCHS - 1}


def test_a_checkpoint_does_not_change_when_training_goes_on() -> None:
    loop = train(World.single())
    first = next(loop).checkpoint
    assert first is not None
    weight = first.tensors["net.0.weight"].clone()
    moment = first.state["optimizers"]["adam"]["state"][0]["exp_avg"].clone()
    list(loop)
    assert torch.equal(first.tensors["net.0.weight"], weight)
    assert torch.equal(first.state["optimizers"]["adam"]["state"][0]["exp_avg"], moment)
    assert len(first.state["history"]) == 1
    assert same(
        list(train(World.single(), first))[-1].result, list(train(World.single()))[-1].result
    )


def lrs(progress: list[Progress]) -> list[float]:
    checkpoints = [p.checkpoint for p in progress]
    return [c.state["optimizers"]["adam"]["param_groups"][0]["lr"] for c in checkpoints if c]


@pytest.mark.parametrize("fused", [True, False])
def test_a_bad_step_is_skipped_and_the_rate_halved_once(fused: bool) -> None:
    progress = list(train(World.single(), bad_steps=(5,), fused=fused))
    assert lrs(progress) == [0.05] + [0.025] * 4
    adam = progress[1].checkpoint.state["optimizers"]["adam"]["state"][0]  # type: ignore[union-attr]
    assert adam["step"] == 2 * STEPS - 1
    assert all(t.isfinite().all() for t in progress[-1].result.values())


def test_a_second_bad_epoch_goes_back_to_the_last_checkpoint() -> None:
    progress = list(train(World.single(), bad_steps=(5, 9)))
    assert [p.epoch for p in progress] == [1, 2, 3, 4, 5]
    assert lrs(progress) == [0.05, 0.025, 0.0125, 0.0125, 0.0125]
    again = list(train(World.single(), progress[1].checkpoint, bad_steps=(1,)))
    assert same(again[-1].result, progress[-1].result)


def test_an_epoch_that_ends_bad_goes_back_at_once() -> None:
    progress = list(train(World.single(), bad_steps=(5, 6, 7)))
    assert lrs(progress) == [0.05] + [0.025] * 4
    assert [p.epoch for p in progress] == [1, 2, 3, 4, 5]
    assert all(t.isfinite().all() for t in progress[-1].result.values())


def test_then_it_has_diverged() -> None:
    loop = train(World.single(), bad_steps=tuple(range(6, 100)))
    assert next(loop).epoch == 1
    with pytest.raises(Diverged, match="epoch 1: 4 steps") as caught:
        list(loop)
    assert caught.value.epoch == 1


def test_an_absurd_learning_rate_diverges_within_two_attempts() -> None:
    def overflow(epoch: int) -> dict[str, float]:
        return {"loss": math.inf}

    network = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e6)
    world = World.single()
    training = Training({"net": network}, {"sgd": optimizer}, Guard(world))
    with pytest.raises(Diverged, match="loss not finite"):
        list(run_epochs(training, world, 0, 3, overflow, dict))
    assert optimizer.param_groups[0]["lr"] == 5e5


def test_poisoned_batchnorm_statistics_are_no_checkpoint() -> None:
    """The step was skipped, but its forward pass had updated the running statistics."""
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    world = World.single()
    training = Training({"net": network}, {"sgd": optimizer}, Guard(world))
    attempts = iter([1.0, torch.inf, 1.0, 1.0])

    def one_epoch(epoch: int) -> dict[str, float]:
        for value in (next(attempts), 1.0):
            loss = network(torch.tensor([[value, 1.0], [2.0, 3.0]])).square().mean()
            optimizer.zero_grad()
            loss.backward()
            training.guard.step(optimizer)
        return {}

    for progress in run_epochs(training, world, 0, 3, one_epoch, dict):
        assert progress.checkpoint is not None
        assert all(t.isfinite().all() for t in progress.checkpoint.tensors.values())
    assert optimizer.param_groups[0]["lr"] == 0.05
    with pytest.raises(StopIteration):
        next(attempts)


def _guarded(world: World, bad_steps: tuple[int, ...]) -> tuple[list[float], list[int], str]:
    done: list[Progress] = []
    try:
        for progress in train(world, bad_steps=bad_steps):
            done.append(progress)
    except Diverged as end:
        return lrs(done), [p.epoch for p in done], str(end)
    return lrs(done), [p.epoch for p in done], ""


@pytest.mark.parametrize("bad_steps", [(5,), (5, 9), (3,), tuple(range(6, 100))])
def test_ranks_agree_when_only_one_has_bad_rows(two_ranks, bad_steps: tuple[int, ...]) -> None:
    first, second = two_ranks(_guarded, bad_steps)
    alone = _guarded(World.single(), bad_steps)
    assert first == second == alone


def _means(world: World) -> dict[str, float]:
    statistics = Statistics(world)
    for value in (1.0, 2.0):
        statistics.add("a", torch.tensor(value * (world.rank + 1)), count=world.rank + 1)
    statistics.add("never", torch.tensor(0.0), count=0)
    return statistics.means()


def test_statistics_are_means_over_all_samples_of_all_ranks(two_ranks) -> None:
    assert _means(World.single()) == {"a": 1.5}
    assert two_ranks(_means) == [{"a": 9 / 6}] * 2
    assert Statistics(World.single()).means() == {}


def test_autocast_computes_in_bf16_only_when_asked() -> None:
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    with autocast(World.single(), "fp32"):
        assert layer(x).dtype == torch.float32
    with autocast(World.single(), "bf16"):
        assert layer(x).dtype == torch.bfloat16
