"""Training a GAN: rows in, a generator that makes more of them out.

The way from here to a loss: an epoch (:meth:`_Together.train_epoch`) takes steps, a step moves the
discriminator and the generator (:mod:`medaug.train.gan_step`), and what they minimise is there too.
On a GPU a step is recorded once and replayed (:mod:`medaug.train.captured`).

Replicates of one configuration (its seeds and folds) may share their steps' passes through the
networks (:func:`train_gans`); all else, from the order of rows to the checkpoint, is each one's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from medaug.errors import UserError
from medaug.train.captured import Taker, ready_to_record, recorded
from medaug.train.checkpoint import Progress
from medaug.train.compiled import forget_compiled
from medaug.train.gan_batch import StepDraw
from medaug.train.gan_run import Gan, GanTask, Replicate
from medaug.train.gan_step import GanStep
from medaug.train.judging import Quality
from medaug.train.loop import Epochs
from medaug.train.world import World

__all__ = ["Gan", "GanTask", "Quality", "train_gan", "train_gans"]


def train_gan(task: GanTask, world: World) -> Iterator[Progress]:
    """Train on the task's rows; the last Progress carries a :class:`Gan`.

    Metrics per epoch: ``train/d_loss``, ``train/g_loss``, ``train/d_real`` and ``train/d_fake``
    (mean probability of being real), with a class head ``train/class_acc_real`` and
    ``train/class_acc_fake``, ``train/diversity`` (within-class deviation of generated over real
    rows), ``collapsed`` (0 or 1), and the scores of ``quality``.

    Without batch norm N ranks equal one rank with the same global batch up to rounding; batch
    norm is synchronised, which makes them equal too.

    Raises:
        UserError: rows without a label, or too few rows in a batch for its ranks and parts.
        Diverged: see :class:`medaug.train.loop.Guard`.
        Collapsed: rows without variety in the last ``collapse_patience`` epochs.
    """
    (epochs,) = train_gans([task], world)
    return epochs


def train_gans(tasks: Sequence[GanTask], world: World) -> list[Iterator[Progress]]:
    """Replicates of one configuration trained in shared passes: for each task its own epochs.

    Each yields, ends and diverges as :func:`train_gan` does, with equal numbers up to rounding;
    its checkpoints are those of a training alone, which may go on either way. Drawing an epoch
    from one trains that epoch of all that have come as far and are not closed.

    Raises:
        UserError: as :func:`train_gan`, or replicates that cannot share passes.
    """
    if len(tasks) > 1:
        _check_alike(tasks, world)
    if tasks[0].spec.compile != "none":
        forget_compiled()
    replicates = [Replicate(task, world) for task in tasks]
    together = _Together(replicates, world)
    return [together.epochs_of(replicate) for replicate in replicates]


class _Together:
    """Replicates whose epochs are trained side by side, step by step."""

    def __init__(self, replicates: Sequence[Replicate], world: World) -> None:
        self._open, self._world = list(replicates), world
        self._fused = len(replicates) > 1
        self._ahead: dict[Replicate, dict[str, float]] = {}
        """Metrics of an epoch that one has trained with others, until it is asked for them."""
        self._steps: dict[tuple[Replicate, ...], GanStep] = {}
        self._takers: dict[tuple[Replicate, ...], Taker] = {}
        """Of each group that shares passes: its step, and what takes it."""
        self._failed = False

    def epochs_of(self, me: Replicate) -> Iterator[Progress]:
        spec, seed = me.task.spec, me.task.seed
        epochs = Epochs(me.training, self._world, seed, spec.epochs, me.finish)
        try:
            if epochs.finished:
                yield epochs.nothing_left()
            while not epochs.finished:
                if me not in self._ahead:
                    epochs.begin()
                    self.train_epoch(
                        [each for each in self._open if each is me or self._waits(each)]
                    )
                if (progress := epochs.end(self._ahead.pop(me))) is not None:
                    me.check_modes()
                    yield progress
        finally:
            self._open.remove(me)

    def train_epoch(self, replicates: Sequence[Replicate]) -> None:
        """One epoch of each of ``replicates``, side by side."""
        if self._failed:
            raise RuntimeError(
                "a replicate that shares its passes failed in the middle of an epoch"
            )
        self._failed = True
        for each in replicates:
            each.begin_epoch()
        self._forget_groups()
        for taker in self._takers.values():
            taker.begin_epoch()
        while drawn := [(r, draw) for r in replicates if (draw := r.next_draw()) is not None]:
            for group, draws in self._in_phase(drawn):
                self._takers[group].take(draws)
                for each in group:
                    each.training.step += 1
        for each in replicates:
            steps = [step for step in self._steps.values() if each in step.replicates]
            self._ahead[each] = each.end_epoch(steps)
        self._failed = False

    def _waits(self, replicate: Replicate) -> bool:
        """Whether one stands between two epochs: its last was accepted, and there is another."""
        training, epochs = replicate.training, replicate.task.spec.epochs
        return replicate not in self._ahead and replicate.trained < training.epoch < epochs

    def _forget_groups(self) -> None:
        """Steps of groups with a replicate that is closed are not taken again; recorded ones hold
        memory of the GPU."""
        for group in [group for group in self._steps if not set(group) <= set(self._open)]:
            del self._steps[group], self._takers[group]

    def _in_phase(
        self, drawn: Sequence[tuple[Replicate, StepDraw]]
    ) -> Iterator[tuple[tuple[Replicate, ...], list[StepDraw]]]:
        """Resumed apart, replicates may be at different points of ``n_critic``."""
        phases: dict[int, list[tuple[Replicate, StepDraw]]] = defaultdict(list)
        for replicate, draw in drawn:
            phases[replicate.phase].append((replicate, draw))
        for phase in phases.values():
            group = tuple(replicate for replicate, _ in phase)
            if group not in self._steps:
                spec, n_classes = group[0].task.spec, group[0].n_classes
                with ready_to_record(self._world):
                    step = GanStep(spec, group, n_classes, self._world, fused=self._fused)
                self._steps[group], self._takers[group] = step, recorded(step)
            yield group, [draw for _, draw in phase]


def _check_alike(tasks: Sequence[GanTask], world: World) -> None:
    kind = tasks[0].spec.kind
    if world.size > 1:
        raise UserError(f"{kind}: fused replicates share one rank, not {world.size}; set ranks 1")
    kinds: dict[str, set[Any]] = {
        "configurations": {task.spec.signature() for task in tasks},
        "shapes": {task.train.schema.shape for task in tasks},
        "batches": {min(task.spec.batch_size, len(task.train)) for task in tasks},
        "classes": {tuple(task.train.classes) for task in tasks},
    }
    for name, values in kinds.items():
        if len(values) > 1:
            raise UserError(f"{kind}: replicates of different {name}; train them separately")
