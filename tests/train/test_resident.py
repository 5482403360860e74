"""Rows that stay on the device, and rows that are sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from medaug.store.sampler import epoch_batches
from medaug.train import resident
from medaug.train.gan import train_gan
from medaug.train.resident import ResidentRows, Sender, epoch_rows, memory_for_rows
from medaug.train.world import World
from tests.train.test_replicates import ALONE, assert_equal, task

CPU = torch.device("cpu")


def chunks(x: torch.Tensor, size: int, drawn: list[int] | None = None) -> Iterator[torch.Tensor]:
    for part in x.split(size):
        if drawn is not None:
            drawn.append(len(part))
        yield part


@pytest.mark.parametrize("shape", [(3, 4, 5), (7,)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rows_are_what_was_put_in(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(10, *shape).to(dtype)
    kept = ResidentRows.of(chunks(x, 4), 10, CPU)
    assert kept is not None
    assert kept.nbytes == x.nbytes
    rows = torch.tensor([7, 0, 7])
    assert torch.equal(kept.take(rows), x[rows])
    assert torch.equal(kept.slice(slice(2, 9)), x[2:9])
    if len(shape) == 3:
        assert kept.take(rows).is_contiguous(memory_format=torch.channels_last)


def test_what_does_not_fit_is_not_read() -> None:
    x, drawn = torch.randn(10, 8), []
    assert ResidentRows.of(chunks(x, 2, drawn), 10, CPU, budget=10 * 8 * 4 - 1) is None
    assert drawn == [2]
    assert ResidentRows.of(chunks(x, 2), 10, CPU, budget=10 * 8 * 4) is not None


def test_a_gpu_lends_a_share_of_what_is_free_within_its_fraction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gib = 1 << 30
    facts: dict[str, Any] = {
        "mem_get_info": (60 * gib, 80 * gib),
        "get_per_process_memory_fraction": 1.0,
        "memory_reserved": 10 * gib,
    }
    for name in facts:
        monkeypatch.setattr(torch.cuda, name, lambda device, name=name: facts[name])
    cuda = torch.device("cuda", 0)
    assert memory_for_rows(cuda) == 30 * gib
    facts["get_per_process_memory_fraction"] = 0.25  # four trials share the GPU
    assert memory_for_rows(cuda) == 5 * gib
    facts["memory_reserved"] = 30 * gib
    assert memory_for_rows(cuda) == 0


@pytest.mark.parametrize("size", [1, 3])
def test_an_epoch_has_the_rows_of_its_plan(size: int) -> None:
    plan = epoch_batches(20, 7, seed=0, epoch=1)
    parts = []
    for rank in range(size):
        world = World(rank, size, rank, CPU)
        parts.append([rows.numpy() for rows in epoch_rows(plan, world.share(7), CPU)])
    for i, rows in enumerate(plan):
        assert np.array_equal(np.concatenate([part[i] for part in parts]), rows)


@pytest.mark.parametrize("option", ["stable", "as_published", "bf16"])
def test_a_gan_on_kept_rows_is_that_on_rows_that_are_read(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list(train_gan(task(option, 0, lr_g=1e-3, lr_d=1e-3), ALONE))
    monkeypatch.setattr(resident, "CPU_BYTES", 0)
    sent = list(train_gan(task(option, 0, lr_g=1e-3, lr_d=1e-3), ALONE))
    assert_equal(kept, sent)
    for name, tensor in kept[-1].checkpoint.tensors.items():  # type: ignore[union-attr]
        assert torch.equal(tensor, sent[-1].checkpoint.tensors[name]), name  # type: ignore[union-attr]


class FakeGpu:
    """The parts of ``torch.cuda`` that sending needs; copies arrive only when they are waited for.

    The process boundary is the driver: what it would copy late is held back here.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits = 0
        gpu = self

        class Event:
            def record(self, stream: Any) -> None:
                self.arrived = False

            def synchronize(self) -> None:
                gpu.waits += 1
                self.arrived = True

        class Stream:
            def __init__(self, device: Any) -> None:
                self.after: list[Event] = []

            def wait_event(self, event: Event) -> None:
                self.after.append(event)

            def __enter__(self) -> None: ...
            def __exit__(self, *error: object) -> None: ...

        self.computing = Stream(None)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.computing)
        whole = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **k: whole(*a, **k))
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda x, stream: None)
        monkeypatch.setattr(torch.Tensor, "to", lambda x, device, non_blocking=False: x)


def test_a_pinned_buffer_is_not_used_again_before_its_copy_has_arrived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sender = Sender(CPU)
    assert sender(torch.ones(2))[0].tolist() == [1, 1], "on a CPU there is nothing to do"
    gpu = FakeGpu(monkeypatch)
    sender = Sender(torch.device("cuda", 0))
    buffer = torch.zeros(4)  # the store's: its memory is used again
    sent = []
    for i in range(resident.SLOTS):
        buffer.fill_(i)
        sent.append(sender(buffer, torch.full((2,), i))[0])
    # Copies have not arrived, yet each still holds what it was given: three buffers, no wait.
    assert [x[0].item() for x in sent] == [0, 1, 2]
    assert gpu.waits == 0
    assert len(gpu.computing.after) == resident.SLOTS, "what computes waits for each"
    sender(buffer.fill_(9), torch.zeros(2))
    assert gpu.waits == 1, "the first buffer is used again: its copy has to have arrived"
    assert sent[1][0].item() == 1
