"""Training a GAN: rows in, a generator that makes more of them out.

What one step does is in :mod:`medaug.train.gan_step`. Replicates of one configuration (its seeds
and folds) may share their steps' passes through the networks (:func:`train_gans`); all else, from
the order of rows to the checkpoint, is each one's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from medaug.errors import UserError
from medaug.train.checkpoint import Progress
from medaug.train.gan_run import Gan, GanTask, Quality, Run
from medaug.train.gan_step import Deal, Step
from medaug.train.loop import run_epochs
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
    """
    (alone,) = train_gans([task], world)
    yield from alone


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
    runs = [Run(task, world) for task in tasks]
    together = _Together(runs, world)
    return [together.epochs_of(run) for run in runs]


class _Together:
    """Runs whose epochs are trained side by side, step by step."""

    def __init__(self, runs: Sequence[Run], world: World) -> None:
        self._runs, self._world = list(runs), world
        self._fused = len(runs) > 1
        self._ahead: dict[Run, dict[str, float]] = {}
        """Metrics of an epoch that a run has trained with others, until it is asked for them."""
        self._steps: dict[tuple[Run, ...], Step] = {}
        self._failed = False

    def epochs_of(self, run: Run) -> Iterator[Progress]:
        spec, seed = run.task.spec, run.task.seed
        one_epoch = partial(self._one_epoch, run)
        try:
            yield from run_epochs(
                run.training, self._world, seed, spec.epochs, one_epoch, run.finish
            )
        finally:
            self._runs.remove(run)

    def _one_epoch(self, run: Run, epoch: int) -> dict[str, float]:
        if self._failed:
            raise RuntimeError(
                "a replicate that shares its passes failed in the middle of an epoch"
            )
        if run not in self._ahead:
            self._failed = True
            self._train([other for other in self._runs if other is run or self._waits(other)])
            self._failed = False
        return self._ahead.pop(run)

    def _waits(self, run: Run) -> bool:
        """Whether a run stands between two epochs: its last was accepted, and there is another."""
        training, epochs = run.training, run.task.spec.epochs
        return run not in self._ahead and run.trained < training.epoch < epochs

    def _train(self, runs: Sequence[Run]) -> None:
        for run in runs:
            run.begin()
        while True:
            dealt = [(run, deal) for run in runs if (deal := run.deal()) is not None]
            if not dealt:
                break
            # Resumed apart, replicates may be at different points of n_critic.
            rounds: dict[int, list[tuple[Run, Deal]]] = defaultdict(list)
            for run, deal in dealt:
                rounds[run.point].append((run, deal))
            for some, deals in (zip(*each, strict=True) for each in rounds.values()):
                for run, moved in zip(some, self._step(some).take(deals), strict=True):
                    run.note(moved)
        for run in runs:
            self._ahead[run] = run.end()

    def _step(self, runs: tuple[Run, ...]) -> Step:
        if runs not in self._steps:
            spec = runs[0].task.spec
            self._steps[runs] = Step(spec, runs, self._world, fused=self._fused)
        return self._steps[runs]


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
