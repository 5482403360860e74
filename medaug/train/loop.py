"""What every training loop shares: its state, statistics, the guard, and the epochs.

A loop is a generator of epochs. The caller may stop it after any of them by closing it; nothing
runs in the background.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from medaug.errors import MedaugError
from medaug.seeding import seed_of
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.pace import PACE
from medaug.train.world import World

log = logging.getLogger(__name__)


class Diverged(MedaugError):
    """Training became non-finite again after its second chances: a result, not a failure.

    Raised on every rank in the same epoch.
    """

    def __init__(self, epoch: int, why: str) -> None:
        super().__init__(f"diverged in epoch {epoch}: {why}")
        self.epoch = epoch
        self.why = why


class Statistics:
    """Means over an epoch and all ranks: summed on the device, reduced and read once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sums: dict[str, torch.Tensor] = {}

    def add(
        self, name: str, total: torch.Tensor, count: int, taken: torch.Tensor | None = None
    ) -> None:
        """Add ``total`` (scalar tensor), the sum over ``count`` samples of this rank.

        With ``taken`` (what :meth:`Guard.step` returned), a skipped step does not count.
        """
        item = torch.stack([total.detach().double(), total.new_tensor(count, dtype=torch.float64)])
        if taken is not None:
            item = torch.where(taken, item, 0.0)
        self._sums[name] = self._sums[name] + item if name in self._sums else item

    def means(self) -> dict[str, float]:
        """Name -> mean over all samples of all ranks; every rank must have the same names."""
        if not self._sums:
            return {}
        sums = self._world.reduce_sum(torch.stack(list(self._sums.values()))).tolist()
        return {name: total / n for name, (total, n) in zip(self._sums, sums, strict=True) if n}


class Guard:
    """Keeps non-finite gradients out of the weights, and says what to do about them.

    A bad step is skipped on every rank: DDP has summed the gradients, so all ranks see the same
    non-finite ones. What follows is decided at the end of the epoch, the only time that the host
    waits for the device (FAULTS, row 32):

    * some steps were bad, but training found back: halve the learning rate, once in a run;
    * they were bad once more, or the epoch ended non-finite: back to the last checkpoint with
      half the learning rate, once in a run (without it the same epoch would fail again: all
      draws are functions of seed and epoch);
    * after that: :class:`Diverged`.
    """

    def __init__(self, world: World) -> None:
        self.device = world.device
        self._skipped = torch.zeros((), device=self.device)
        self._last_bad = torch.zeros((), device=self.device)
        self.chances = {"halve": 1, "roll_back": 1}

    def step(self, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        """``optimizer.step()``, unless one of its (already reduced) gradients is not finite.

        Returns whether the step was taken: a bool scalar, left on the device.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        bad = (~norm.isfinite()).float()
        self._skipped += bad
        self._last_bad = bad
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            # Fused optimisers skip on the device, as under a GradScaler: no wait for it.
            optimizer.found_inf = bad  # type: ignore[attr-defined]
            optimizer.step()
        elif not bad:
            optimizer.step()
        PACE.stepped()
        return bad == 0

    def verdict(self, epoch: int, lost: Sequence[str]) -> Literal["ok", "halve", "back"]:
        """What to do after ``epoch`` (0-based), at whose end what ``lost`` names was not finite.

        Raises Diverged when all chances are used. Resets the count of skipped steps.
        """
        skipped, last_bad = (int(x) for x in torch.stack([self._skipped, self._last_bad]).tolist())
        self._skipped.zero_()
        self._last_bad = torch.zeros_like(self._last_bad)
        if not (skipped or lost):
            return "ok"
        if not (last_bad or lost) and self._take("halve"):
            return "halve"
        if self._take("roll_back"):
            return "back"
        what = f"{', '.join(lost)} not finite" if lost else f"{skipped} steps with such gradients"
        raise Diverged(epoch, f"{what}, after half the learning rate and a step back")

    def _take(self, chance: str) -> bool:
        self.chances[chance] -= 1
        return self.chances[chance] >= 0


@dataclass
class Training:
    """All that changes while training, and so all that a checkpoint holds.

    ``modules`` are the plain ones, never their DDP wrappers. ``extra`` are further tensors that
    go along (best weights, scaling); ``facts`` are plain values (numbers, strings, lists).
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    guard: Guard
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    stopped: bool = False

    def checkpoint(self) -> Checkpoint:
        """A copy that later steps do not change, on the same device."""
        tensors = {f"extra.{name}": tensor.detach().clone() for name, tensor in self.extra.items()}
        for name, module in self.modules.items():
            for key, tensor in module.state_dict().items():
                tensors[f"{name}.{key}"] = tensor.detach().clone()
        state = {
            "optimizers": {name: opt.state_dict() for name, opt in self.optimizers.items()},
            "chances": self.guard.chances,
            "facts": self.facts,
            "history": self.history,
            "stopped": self.stopped,
        }
        return Checkpoint(self.epoch, self.step, tensors, copy.deepcopy(state))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Back to ``checkpoint``, which stays as it is. The guard's chances are only lowered."""
        for name, module in self.modules.items():
            module.load_state_dict(part(checkpoint.tensors, name))
        self.extra = {
            name: tensor.to(self.guard.device, copy=True)
            for name, tensor in part(checkpoint.tensors, "extra").items()
        }
        state = copy.deepcopy(checkpoint.state)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for chance, left in state["chances"].items():
            self.guard.chances[chance] = min(left, self.guard.chances[chance])
        self.facts, self.history = state["facts"], state["history"]
        self.epoch, self.step = checkpoint.epoch, checkpoint.step
        self.stopped = state["stopped"]

    def lost(self, world: World) -> list[str]:
        """Modules with a weight or buffer that is not finite, on any rank.

        The guard keeps weights finite, but not BatchNorm's statistics: they are updated by the
        forward pass of a step that is skipped later.
        """
        sound = [
            torch.stack([t.isfinite().all() for t in module.state_dict().values()]).all()
            for module in self.modules.values()
        ]
        bad = world.reduce_sum((~torch.stack(sound)).int()).tolist()
        return [name for name, n in zip(self.modules, bad, strict=True) if n]

    def scale_lr(self, factor: float) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] *= factor


def part(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The tensors named ``name.…``, without that prefix."""
    return {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}


def run_epochs(
    training: Training,
    world: World,
    seed: int,
    epochs: int,
    one_epoch: Callable[[int], dict[str, float]],
    finish: Callable[[], Any],
) -> Iterator[Progress]:
    """Train until ``epochs`` are finished or ``training.stopped``, one Progress per epoch.

    ``one_epoch(epoch)`` trains and validates epoch number ``epoch`` (0-based), steps through
    ``training.guard``, counts ``training.step``, and returns metrics that are equal on all ranks.
    The last Progress carries ``finish()``; a run resumed after its last epoch yields only that.
    Raises Diverged (see :class:`Guard`).
    """
    last = training.checkpoint()
    finished = training.epoch >= epochs or training.stopped
    if finished:
        metrics = training.history[-1] if training.history else {}
        yield Progress(training.epoch, dict(metrics), None, finish())
    while not finished:
        torch.manual_seed(dropout_seed(seed, training.epoch, world))
        metrics = one_epoch(training.epoch)
        lost = [name for name, value in metrics.items() if not math.isfinite(value)]
        verdict = training.guard.verdict(training.epoch, lost + training.lost(world))
        if verdict == "back":
            training.restore(last)
        if verdict != "ok":
            training.scale_lr(0.5)
        if verdict == "back":
            continue
        training.epoch += 1
        training.history.append(dict(metrics))
        finished = training.epoch >= epochs or training.stopped
        last = training.checkpoint()
        yield Progress(training.epoch, metrics, last, finish() if finished else None)


def dropout_seed(seed: int, epoch: int, world: World) -> int:
    """Seed of the dropout masks of one epoch on this rank."""
    return seed_of(seed, "dropout", epoch, world.rank)


def compile_for(world: World, how: str, *networks: nn.Module) -> None:
    """``torch.compile`` the networks in place, as ``how`` (none, default, cuda_graphs) says."""
    if how == "none":
        return
    if world.device.type != "cuda":
        log.warning("compile: %s is for GPUs and there is none: training as without it", how)
        return
    for network in networks:
        network.compile(mode="reduce-overhead" if how == "cuda_graphs" else "default")


def autocast(world: World, precision: str) -> torch.autocast:
    """bf16 autocast (weights stay fp32) when ``precision`` is ``"bf16"``, else nothing."""
    return torch.autocast(world.device.type, torch.bfloat16, enabled=precision == "bf16")
