"""No step waits for its device, and how many kernels it takes: counted without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medaug.arms.acgan import AcganSpec
from medaug.bench.steps_gan import Ours, acgan_pair, random_rows
from medaug.data.augment import augment
from medaug.models.foreach import add_, copy_
from medaug.spec import AugmentSpec
from medaug.spec.gan import GanSpec
from medaug.store.sampler import epoch_batches
from medaug.train.adam import FusedAdam
from medaug.train.loop import Guard, Statistics
from medaug.train.resident import ResidentRows, epoch_rows
from medaug.train.world import World, in_one_bucket
from tests.train.counting import Counter, fake_cuda, guard

__all__ = ["fake_cuda", "guard"]

ALONE = World.single()
SHAPE = (16, 15, 15)


def gan(k: int = 1, world: World = ALONE, **keys: Any) -> Ours:
    spec: GanSpec = AcganSpec(**{"precision": "fp32", "batch_size": 4, **keys})
    norm, dropout = ("sn", 0.0) if spec.preset == "stable" else ("bn", 0.5)
    build = acgan_pair(SHAPE, 8, norm, "flat", dropout)
    rows = [random_rows(SHAPE, 40, seed) for seed in range(k)]
    return Ours(spec, build, rows, world, seeds=range(k))


def counted(step: Any) -> Counter:
    step()
    with Counter() as counter:
        step()
    return counter


@pytest.mark.parametrize("preset", ["stable", "as_published"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("k", [1, 4])
def test_a_gan_step_waits_for_nothing(preset: str, precision: str, k: int) -> None:
    counter = counted(gan(k, preset=preset, precision=precision))
    assert not counter.waits


@pytest.mark.parametrize(("k", "operations", "kernels"), [(1, 211, 219), (8, 341, 349)])
def test_a_gan_step_takes_no_more_kernels_than_it_did(
    k: int, operations: int, kernels: int
) -> None:
    """Of the default ACGAN in bf16. Before weights were made ready at once, 423 and 641 operations.
    What is left is in docs/benchmarks.md."""
    counter = counted(gan(k, preset="stable", precision="bf16"))
    assert counter.launches <= operations
    assert counter.kernels <= kernels


def test_operations_on_lists_are_counted_as_a_gpu_takes_them() -> None:
    """Alike in pairs: one kernel, a copy to another type among them; else one for each tensor."""
    a, b = ([torch.zeros(2, n) for n in (3, 4, 5)] for _ in range(2))
    turned = [torch.zeros(n, 2).t() for n in (3, 4, 5)]
    for one, other, kernels in (
        (a, b, 1),
        (a, [x.bfloat16() for x in b], 1),
        (a, [b[0].bfloat16(), *b[1:]], 3),
        (a, turned, 3),
        (turned, turned, 1),
    ):
        with Counter() as counter:
            copy_(one, other)
        assert counter.kernels == kernels
    wide = [x.double() for x in b]
    with Counter() as counter:
        add_(a, wide)
    assert counter.kernels == 3


def _operations(world: World) -> int:
    given = gan(preset="stable", precision="bf16", world=world)
    given()
    return counted(given).launches


def test_a_ranks_step_takes_no_more_operations_than_it_did(two_ranks: Any) -> None:
    """Before small networks' weights were made ready at once there too, 458. Of the 318, 61 are
    batch norm over ranks on a CPU, where torch has none, and 38 the exchange of gradients."""
    assert max(two_ranks(_operations)) <= 318


def test_large_networks_exchange_gradients_while_they_come() -> None:
    assert in_one_bucket(nn.Linear(1024, 1024))
    assert not in_one_bucket(nn.Linear(4096, 2048))


def test_augmentation_is_computed_on_the_device_and_waits_for_nothing(fake_cuda: Counter) -> None:
    x = torch.empty(3, 1, 32, 32, device="cuda")
    mask = torch.empty(3, 32, 32, dtype=torch.uint8, device="cuda")
    everything = AugmentSpec(crop=0.1, brightness=0.1, contrast=0.1, clip=0.1, rot90=True)
    moved, moved_mask = augment(x, mask, everything, [1, 2, 3])
    assert moved_mask is not None
    assert moved.device.type == moved_mask.device.type == "cuda"
    assert not fake_cuda.waits


def test_rows_on_the_device_wait_for_nothing_in_an_epoch(fake_cuda: Counter) -> None:
    device = torch.device("cuda")
    kept = ResidentRows.of(torch.empty(40, 3, 8, 8).split(16), 40, device, budget=1 << 20)
    assert kept is not None
    labels = torch.empty(40, dtype=torch.int64, device=device)
    batches = epoch_rows(epoch_batches(40, 8, seed=0, epoch=0), slice(None), device)
    fake_cuda.waits.clear()  # an epoch's numbers are sent at once, before its first step
    for rows in batches:
        x, label = kept.take(rows), labels.index_select(0, rows)
        assert x.device.type == label.device.type == "cuda"
    assert not fake_cuda.waits


def test_statistics_make_no_tensors_of_numbers(fake_cuda: Counter) -> None:
    statistics = Statistics(World.single("cuda"))
    total, skipped = (
        torch.empty((), device="cuda"),
        torch.empty((), dtype=torch.bool, device="cuda"),
    )
    statistics.add("loss", total, 16, skipped)
    assert not fake_cuda.waits


@pytest.mark.parametrize("bad", [False, True])
def test_an_optimiser_that_cannot_skip_on_the_device_is_not_asked(
    bad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RMSprop takes the step, and takes it back where a gradient was not finite."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.RMSprop([weight], lr=0.1)
    guard = Guard(ALONE)
    for gradient in (1.0, torch.nan if bad else 2.0):
        weight.grad = torch.full((3,), gradient)
        guard.step(optimizer)
    expected = [weight.detach().clone(), optimizer.state[weight]["square_avg"].clone()]

    class OnGpu(torch.Tensor):
        """One that says that it is on a GPU."""

        device = torch.device("cuda")  # type: ignore[assignment]

    from medaug.train import loop

    whole = loop._step_unless
    monkeypatch.setattr(
        loop, "_step_unless", lambda found, opt: whole(found.as_subclass(OnGpu), opt)
    )
    other = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.RMSprop([other], lr=0.1)
    with Counter() as counter:
        for gradient in (1.0, torch.nan if bad else 2.0):
            other.grad = torch.full((3,), gradient)
            Guard(ALONE).step(optimizer)
    assert not counter.waits
    torch.testing.assert_close(other.detach(), expected[0])
    torch.testing.assert_close(optimizer.state[other]["square_avg"], expected[1])


def test_adam_on_a_gpu_can_be_captured(fake_cuda: Counter) -> None:
    on_gpu = FusedAdam([torch.empty(3, device="cuda", requires_grad=True)])
    assert on_gpu.param_groups[0]["capturable"]
    on_cpu = FusedAdam([torch.zeros(3, requires_grad=True)])
    assert not on_cpu.param_groups[0]["capturable"]
    # Nor does it change where a training that was saved on the other goes on.
    of_gpu, of_cpu = on_gpu.state_dict(), on_cpu.state_dict()
    on_gpu.load_state_dict(of_cpu)
    on_cpu.load_state_dict(of_gpu)
    assert on_gpu.param_groups[0]["capturable"]
    assert not on_cpu.param_groups[0]["capturable"]


def test_batches_of_a_gan_are_made_on_the_device() -> None:
    (replicate,) = gan().replicates
    assert replicate.rows.kept is not None
    draw = replicate.next_draw()
    assert draw is not None
    batch = replicate.batch(draw)
    labels = replicate.task.train.labels
    plan = epoch_batches(40, 4, seed=0, epoch=0, weights=replicate.weights, steps=None)
    assert batch.real_label.tolist() == labels[np.asarray(plan[0])].tolist()
