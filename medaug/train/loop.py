"""What every training loop shares: its state, statistics, the guard, and the epochs.

A loop is a generator of epochs. The caller may stop it after any of them by closing it; nothing
runs in the background.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.amp import GradScaler

from medaug.errors import MedaugError
from medaug.models import foreach
from medaug.seeding import seed_of
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.pace import PACE
from medaug.train.world import World


class Diverged(MedaugError):
    """Training became non-finite again after its second chances: a result, not a failure.

    Raised on every rank in the same epoch.
    """

    def __init__(self, epoch: int, why: str) -> None:
        super().__init__(f"diverged in epoch {epoch}: {why}")
        self.epoch = epoch
        self.why = why


class Collapsed(Diverged):
    """A generator has lost its rows' variety and does not find it again: a result as well."""

    def __init__(self, epoch: int, why: str) -> None:
        MedaugError.__init__(self, f"ended in epoch {epoch} by mode collapse: {why}")
        self.epoch = epoch
        self.why = why


class Statistics:
    """Means over an epoch and all ranks: summed on the device, reduced and read once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sums: dict[str, torch.Tensor] = {}

    def add(
        self, name: str, total: torch.Tensor, count: int, skipped: torch.Tensor | None = None
    ) -> None:
        """Add ``total`` (scalar tensor), the sum over ``count`` samples of this rank.

        With ``skipped`` (what :meth:`Guard.step` returned), a skipped step does not count.
        """
        # No tensor is made of a number: on a GPU that would be a copy that the host waits for.
        item = F.pad(total.detach().double()[None], (0, 1), value=float(count))
        if skipped is not None:
            item = item.masked_fill(skipped, 0.0)
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
        self.skipped = torch.zeros((), device=self.device)
        """How many steps of this epoch were not taken."""
        self.last_bad = torch.zeros((), device=self.device)
        """1 where the last step was not."""
        self.chances = {"halve": 1, "roll_back": 1}

    def step(self, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        """``optimizer.step()``, unless one of its (already reduced) gradients is not finite.

        Returns whether the step was skipped: a bool scalar, left on the device.
        """
        return guarded_steps([(self, optimizer)])[0]

    def verdict(self, epoch: int, lost: Sequence[str]) -> Literal["ok", "halve", "back"]:
        """What to do after ``epoch`` (0-based), at whose end what ``lost`` names was not finite.

        Raises Diverged when all chances are used. Resets the count of skipped steps.
        """
        skipped, last_bad = (int(x) for x in torch.stack([self.skipped, self.last_bad]).tolist())
        self.skipped.zero_()
        self.last_bad.zero_()
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


def guarded_steps(
    pairs: Sequence[tuple[Guard, torch.optim.Optimizer]], scalers: Sequence[GradScaler] = ()
) -> torch.Tensor:
    """Each optimiser steps, unless one of its gradients is not finite: its guard takes note.

    Returns which steps were skipped: (len(pairs),) bool, left on the device. The optimisers have
    equally many gradients. ``scalers``: of the losses that they minimise, where these are scaled;
    what overflows because of its scale is no fault, and no guard takes note.
    """
    for (_, optimizer), scaler in zip(pairs, scalers, strict=bool(scalers)):
        scaler.unscale_(optimizer)
    gradients = [_gradients(optimizer) for _, optimizer in pairs]
    norms = torch.stack(foreach.norms([g for mine in gradients for g in mine]))
    norms = norms.view(len(pairs), -1)
    skipped = (norms - norms).any(1)  # NaN, which is true, where a norm is not finite
    noted: Sequence[torch.Tensor] = skipped.unbind()
    if scalers:
        noted = [_at_fault(bad, scaler) for bad, scaler in zip(noted, scalers, strict=True)]
    # In place, like all that outlives a step: a captured one writes to where it wrote first.
    last_bad = [guard.last_bad for guard, _ in pairs]
    foreach.copy_(last_bad, noted)
    foreach.add_([guard.skipped for guard, _ in pairs], last_bad)
    each = skipped.float().unbind() if scalers else last_bad  # without a scale they are the same
    for (_, optimizer), mine in zip(pairs, each, strict=True):
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            # Fused optimisers skip on the device, as under a GradScaler: no wait for it.
            optimizer.found_inf = mine  # type: ignore[attr-defined]
            optimizer.step()
        else:
            _step_unless(mine, optimizer)
    for scaler in scalers:
        scaler.update()
    PACE.stepped()
    return skipped


def _at_fault(bad: torch.Tensor, scaler: GradScaler) -> torch.Tensor:
    """Whether a step is bad although its loss was not made larger; no wait for the device."""
    scale = scaler.scale(bad)  # 0 where it is not
    return (scale > 0) & (scale <= 1)


def _step_unless(bad: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """``optimizer.step()`` unless ``bad`` is 1, for optimisers that cannot skip on the device.

    On a GPU, asking would make the host wait in every step: there the step is taken and undone.
    What begins in it begins at 0, as the state of torch's optimisers does.
    """
    if bad.device.type == "cpu":
        if not bad:
            optimizer.step()
        return
    before = {tensor.data_ptr(): tensor.clone() for tensor in _moved_by(optimizer)}
    optimizer.step()
    for tensor in _moved_by(optimizer):
        was = before.get(tensor.data_ptr(), 0)
        tensor.copy_(torch.where(bad > 0, was, tensor))


def _moved_by(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Parameters, detached, and state."""
    parameters = [p.detach() for group in optimizer.param_groups for p in group["params"]]
    state = (x for state in optimizer.state.values() for x in state.values())
    return parameters + [x for x in state if isinstance(x, torch.Tensor)]


def _gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return [p.grad for p in parameters if p.grad is not None]


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
    scalers: dict[str, GradScaler] = field(default_factory=dict)
    """Of the losses of each optimiser, in fp16 (:meth:`scale_losses`)."""

    def scale_losses(self, precision: str) -> None:
        """Under fp16 keep small gradients from becoming 0, and find out by how much."""
        if precision == "fp16":
            for name in self.optimizers.keys() - self.scalers.keys():
                self.scalers[name] = GradScaler(self.guard.device.type)

    def backward(self, loss: torch.Tensor, optimizer: str) -> None:
        """The gradients of what the optimiser of that name minimises: a scalar, and its scale."""
        scaler = self.scalers.get(optimizer)
        (loss if scaler is None else scaler.scale(loss)).backward()

    def move(self, optimizer: str) -> torch.Tensor:
        """:meth:`Guard.step` of the optimiser of that name."""
        scalers = [self.scalers[optimizer]] if self.scalers else []
        return guarded_steps([(self.guard, self.optimizers[optimizer])], scalers)[0]

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
        if self.scalers:
            state["scalers"] = {name: scaler.state_dict() for name, scaler in self.scalers.items()}
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
        if held := state.get("scalers", {}):
            self.scale_losses("fp16")
        for name, each in held.items():
            self.scalers[name].load_state_dict(each)
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


class Epochs:
    """The epochs of one training: what precedes and what follows each, decided alike on all ranks.

    The loop is the caller's::

        while not epochs.finished:
            epochs.begin()
            ...  # train and validate epoch number training.epoch
            if (progress := epochs.end(metrics)) is not None:
                yield progress
    """

    def __init__(
        self,
        training: Training,
        world: World,
        seed: int,
        epochs: int,
        finish: Callable[[], Any],
    ) -> None:
        self.training, self.world, self.seed, self.epochs = training, world, seed, epochs
        self.finish = finish
        self._last = training.checkpoint()

    @property
    def finished(self) -> bool:
        return self.training.epoch >= self.epochs or self.training.stopped

    def begin(self) -> None:
        """Dropout draws from here on what it draws in this epoch, however it was come to."""
        torch.manual_seed(dropout_seed(self.seed, self.training.epoch, self.world))

    def end(self, metrics: dict[str, float]) -> Progress | None:
        """An epoch is over; None where it has to be taken again, from the last checkpoint.

        Raises Diverged (see :class:`Guard`).
        """
        training = self.training
        lost = [name for name, value in metrics.items() if not math.isfinite(value)]
        verdict = training.guard.verdict(training.epoch, lost + training.lost(self.world))
        if verdict == "back":
            training.restore(self._last)
        if verdict != "ok":
            training.scale_lr(0.5)
        if verdict == "back":
            return None
        training.epoch += 1
        training.history.append(dict(metrics))
        self._last = training.checkpoint()
        result = self.finish() if self.finished else None
        return Progress(training.epoch, metrics, self._last, result)

    def nothing_left(self) -> Progress:
        """What a training yields that was resumed after its last epoch."""
        history = self.training.history
        metrics = dict(history[-1]) if history else {}
        return Progress(self.training.epoch, metrics, None, self.finish())


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
    loop = Epochs(training, world, seed, epochs, finish)
    if loop.finished:
        yield loop.nothing_left()
    while not loop.finished:
        loop.begin()
        if (progress := loop.end(one_epoch(training.epoch))) is not None:
            yield progress


def dropout_seed(seed: int, epoch: int, world: World) -> int:
    """Seed of the dropout masks of one epoch on this rank."""
    return seed_of(seed, "dropout", epoch, world.rank)
