"""One step of a GAN, or of several replicates of one that share every pass.

A step makes generated rows, then moves the players in turn: the discriminator, and every
``n_critic`` steps the generator. The generator learns from the same generated rows that the
discriminator has just seen, as in the reference code of study A, which saves a pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrize import ParametrizationList

from medaug.models.fused import drawing_from, fuse
from medaug.models.layers import DiscriminatorOut
from medaug.spec.gan import GanSpec
from medaug.train.loop import Training, autocast
from medaug.train.objective import Draws, JointPass, Objective, Turn, Values
from medaug.train.world import World, distribute


class Pair(Protocol):
    """One replicate's networks and how they learn."""

    generator: nn.Module
    discriminator: nn.Module
    objective: Objective
    training: Training
    masks: torch.Generator
    """What dropout draws from where passes are shared."""

    def averaged(self) -> None:
        """The generator has moved: let its average follow."""
        ...


@dataclass(frozen=True)
class Deal:
    """This rank's real rows and latents of one step, of one replicate."""

    real: Tensor
    real_label: Tensor
    fake_label: Tensor
    z: Tensor
    draws: Draws


@dataclass(frozen=True)
class Moved:
    """What a step did to one replicate."""

    turn: Turn
    taken: Tensor
    """Whether the guard let the last player move: a bool scalar on the device."""
    values: dict[str, list[tuple[Values, int, Tensor]]]
    """By player: values, the number of rows they are means of, and whether it moved."""


class Step:
    """Moves the players of ``pairs``. Several need equal batches and one rank, and share passes."""

    def __init__(self, spec: GanSpec, pairs: Sequence[Pair], world: World, *, fused: bool) -> None:
        self.spec, self.pairs, self.world, self.fused = spec, pairs, world, fused
        self.critic = pairs[0].discriminator
        generate = pairs[0].generator
        if fused:
            assert world.size == 1
            masks = [pair.masks for pair in pairs]
            self.critic = fuse([pair.discriminator for pair in pairs], masks)
            generate = fuse([pair.generator for pair in pairs], masks)
        self.generate = distribute(generate, world)
        self.joint = distribute(JointPass(self.critic), world)

    def take(self, deals: Sequence[Deal]) -> list[Moved]:
        """One step for each pair, from its deal; all pairs are at the same point of n_critic."""
        due = (self.pairs[0].training.step + 1) % self.spec.n_critic == 0
        with torch.set_grad_enabled(due), autocast(self.world, self.spec.precision):
            z, label = (_joined([getattr(d, k) for d in deals]) for k in ("z", "fake_label"))
            made = self.generate(z, label).to(deals[0].real.dtype)
        # The generator's gradient waits here: its graph is walked once, however many parts
        # the discriminator's batch has.
        seen = made.detach().requires_grad_(due)
        turns = [
            Turn(d.real, d.real_label, fake, d.fake_label, d.z, d.draws)
            for d, fake in zip(deals, _split(seen, len(deals)), strict=True)
        ]
        discriminators = [pair.discriminator for pair in self.pairs]
        values = {"discriminator": self._learn("discriminator", turns, self._told_apart)}
        if due:
            for network in discriminators:
                network.requires_grad_(False)
            values["generator"] = self._learn("generator", turns, self._believed, (made, seen))
            for network in discriminators:
                network.requires_grad_(True)
            for pair in self.pairs:
                pair.averaged()
        last = [*values.values()][-1]
        return [
            Moved(turn, last[i][-1][2], {player: of[i] for player, of in values.items()})
            for i, turn in enumerate(turns)
        ]

    def _learn(
        self,
        player: str,
        turns: Sequence[Turn],
        play: Callable[[Sequence[Turn]], list[tuple[Tensor, Values]]],
        through: tuple[Tensor, Tensor] | None = None,
    ) -> list[list[tuple[Values, int, Tensor]]]:
        """Move one player of each pair by the gradient of what ``play`` gives, part by part.

        ``through``: the generated rows, on their graph and off it; their gradient is passed on.
        """
        optimizers = [pair.training.optimizers[player] for pair in self.pairs]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        batch_size = turns[0].draws.batch_size
        parts = list(zip(*(turn.split(self.spec.accumulate) for turn in turns), strict=True))
        values: list[list[tuple[Values, int]]] = [[] for _ in turns]
        for part, in_silence in self._in_parts(parts):
            with in_silence:
                with autocast(self.world, self.spec.precision):
                    played = play(part)
                # DDP averages over ranks; shares of a global batch may differ by a row.
                weights = [len(turn.real) * self.world.size / batch_size for turn in part]
                losses = [loss * w for (loss, _), w in zip(played, weights, strict=True)]
                torch.stack(losses).sum().backward()
            for (_, found), turn, seen in zip(played, part, values, strict=True):
                seen.append((found, len(turn.real)))
        if through is not None:
            made, detached = through
            made.backward(detached.grad)
        taken = [
            pair.training.guard.step(optimizer)
            for pair, optimizer in zip(self.pairs, optimizers, strict=True)
        ]
        return [[(*each, moved) for each in of] for of, moved in zip(values, taken, strict=True)]

    def _in_parts(
        self, parts: Sequence[Sequence[Turn]]
    ) -> Iterator[tuple[Sequence[Turn], contextlib.AbstractContextManager]]:
        """The parts of a batch; DDP waits for the last, spectral norm estimates at the first."""
        held: list[nn.Module] = []
        for pair in self.pairs if len(parts) > 1 else ():
            for module in pair.discriminator.modules():
                if isinstance(module, ParametrizationList):
                    held.append(module)
        for i, part in enumerate(parts):
            if i + 1 < len(parts) and isinstance(self.joint, DistributedDataParallel):
                yield part, self.joint.no_sync()
            else:
                yield part, contextlib.nullcontext()
            for parametrizations in held:
                parametrizations.eval()  # all parts of a batch see the same weights
        for parametrizations in held:
            parametrizations.train()

    def _told_apart(self, turns: Sequence[Turn]) -> list[tuple[Tensor, Values]]:
        rows = [p.objective.rows_to_tell_apart(t) for p, t in self._with(turns)]
        x, labels = (_joined(column) for column in zip(*rows, strict=True))
        outs = _split_out(self.joint(x, labels, 2), len(turns))
        told = zip(self._with(turns), outs, strict=True)
        return [self._judged(pair, out, turn) for (pair, turn), out in told]

    def _judged(self, pair: Pair, out: DiscriminatorOut, turn: Turn) -> tuple[Tensor, Values]:
        loss = partial(pair.objective.of_discriminator, out, turn)
        # A penalty passes through the pair's own discriminator, whose dropout draws once more.
        return drawing_from(pair.masks, loss) if self.fused and self.spec.has_penalty else loss()

    def _believed(self, turns: Sequence[Turn]) -> list[tuple[Tensor, Values]]:
        x = _joined([p.objective.rows_to_believe(t) for p, t in self._with(turns)])
        labels = _joined([turn.fake_label for turn in turns])
        outs = _split_out(self.critic(x, labels), len(turns))
        told = zip(self._with(turns), outs, strict=True)
        return [pair.objective.of_generator(out, turn) for (pair, turn), out in told]

    def _with(self, turns: Sequence[Turn]) -> Iterator[tuple[Pair, Turn]]:
        return zip(self.pairs, turns, strict=True)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _split(x: Tensor, n: int) -> Sequence[Tensor]:
    return [x] if n == 1 else x.chunk(n)


def _split_out(out: DiscriminatorOut, n: int) -> list[DiscriminatorOut]:
    heads = [[None] * n if head is None else _split(head, n) for head in out]
    return [DiscriminatorOut(*each) for each in zip(*heads, strict=True)]
