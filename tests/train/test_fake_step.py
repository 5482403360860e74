"""A whole GAN step on tensors that say they are on a GPU: no mixture of devices, no wait.

All of it but autograd's own part, which wants a driver: gradients are there, of no value.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from medaug.models import fused
from medaug.train import gan_run, gan_step, resident
from medaug.train.draws import Draws
from medaug.train.gan_batch import StepInput
from medaug.train.gan_run import Replicate
from medaug.train.gan_step import GanStep
from medaug.train.scaling import FeatureScale
from medaug.train.world import World
from tests.train.counting import Counter, fake_cuda, guard
from tests.train.test_captured import OPTIONS, task

__all__ = ["fake_cuda", "guard"]


@pytest.fixture
def gpu(fake_cuda: Counter, monkeypatch: pytest.MonkeyPatch) -> Counter:
    """What asks the driver, answered: memory, streams, generators, gradients."""
    monkeypatch.setattr(resident, "memory_for_rows", lambda device: 1 << 30)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(Draws, "fill", lambda self, what, x, fill, generator: None)
    for module in (fused, gan_step):
        monkeypatch.setattr(module, "drawing_from", lambda generator: nullcontext())
    monkeypatch.setattr(nn.Module, "to", lambda self, *where, **how: self)  # they are made there
    scale = FeatureScale(torch.empty(6, device="cuda"), torch.empty(6, device="cuda"), 0.0)
    monkeypatch.setattr(FeatureScale, "fit", lambda *of: scale)
    monkeypatch.setattr(
        torch.autograd, "grad", lambda y, x, **how: (torch.empty_like(x, requires_grad=True),)
    )
    return fake_cuda


whole = GanStep.generator_step


def one_step(
    step: GanStep, replicates: list[Replicate], monkeypatch: pytest.MonkeyPatch
) -> list[Tensor]:
    """A step, and which gradients it asked for."""
    asked: list[Tensor] = []
    leaves = [p for r in replicates for m in (r.generator, r.discriminator) for p in m.parameters()]

    def backward(loss: Tensor, gradient: Tensor) -> None:
        assert loss.device.type == gradient.device.type == "cuda"
        asked.append(loss)
        for tensor in leaves:
            tensor.grad = torch.empty_like(tensor)

    def generator_step(self: GanStep, rows: StepInput) -> None:
        leaves.append(rows.fake)
        whole(self, rows)

    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(GanStep, "generator_step", generator_step)
    drawn = [each.next_draw() for each in replicates]
    step.take(drawn)  # type: ignore[arg-type]
    for each in replicates:
        each.training.step += 1
    return asked


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("option", [o for o in OPTIONS if o not in ("parts", "bf16")])
def test_a_step_on_a_gpu_asks_the_host_for_nothing(
    option: str, k: int, gpu: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, tasks = World.single("cuda"), [task(option, seed) for seed in range(k)]
    # A copy of a fake tensor's memory is a copy of anything: the average is built anew.
    again = SimpleNamespace(deepcopy=lambda network: OPTIONS[option][1]()[0])
    monkeypatch.setattr(gan_run, "copy", again)
    with torch.device("cuda"):
        replicates = [Replicate(one, world) for one in tasks]
    step = GanStep(tasks[0].spec, replicates, 2, world, fused=k > 1)
    for each in replicates:
        each.begin_epoch()
    one_step(step, replicates, monkeypatch)
    one_step(step, replicates, monkeypatch)  # state is made in the first ones
    gpu.waits.clear()
    gpu.operations.clear()
    asked = one_step(step, replicates, monkeypatch)
    asked += one_step(step, replicates, monkeypatch)
    assert len(asked) == (4 if step.spec.n_critic == 2 else 6)
    assert not gpu.waits
    assert "lift_fresh" not in gpu.operations, "a tensor of numbers on the host"
    optimizers = [o for each in replicates for o in each.training.optimizers.values()]
    assert all(optimizer.param_groups[0]["capturable"] for optimizer in optimizers)
