"""A GAN's step recorded once as a CUDA graph, and replayed: one launch instead of hundreds.

Small networks keep a GPU waiting for launches, not for arithmetic (medaug.bench.gpu measures it).
A recording is a list of kernels with the addresses that they read and write. Python does not run
again in a replay, so what a step computes with has to lie where it lay:

* what differs from step to step is copied to one place before it: the numbers of its rows, and its
  random numbers (:class:`medaug.train.draws.HeldDraws`); dropout's generators are registered;
* what outlives a step (weights, moments, averages, statistics, guards) is changed in place;
* what only changes between epochs (learning rates, tensors that a checkpoint replaced) is looked
  at when one begins: if it did, the step is recorded anew.

Steps that compute different things, without and with the generator (``n_critic``), are recorded
apart. The first of each are taken eagerly, on the stream that records: state is made in them, and
kernels are chosen. Numbers are those of the eager step, so nothing here is part of a trial's name.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from medaug.errors import lines_of
from medaug.models import foreach
from medaug.train.draws import HeldDraws
from medaug.train.gan_batch import StepDraw
from medaug.train.gan_step import GanStep
from medaug.train.graph_pool import end_recording
from medaug.train.world import World

log = logging.getLogger(__name__)

WARM_UP, WARM_UP_OF_RANKS = 3, 11
"""Eager steps of each kind before it is recorded; DistributedDataParallel wants eleven
(https://docs.pytorch.org/docs/stable/notes/cuda.html#usage-with-distributeddataparallel)."""
NCCL_HANDLING = "TORCH_NCCL_ASYNC_ERROR_HANDLING"


class Recording(Protocol):
    """A recorded step (:class:`torch.cuda.CUDAGraph`)."""

    def replay(self) -> None: ...


class Recorder(Protocol):
    """What records steps on one kind of device."""

    def __init__(self, device: torch.device) -> None: ...

    def apart(self) -> AbstractContextManager[None]:
        """Where steps are taken eagerly before one is recorded."""
        ...

    def record(self, step: Callable[[], None], generators: Sequence[torch.Generator]) -> Recording:
        """Run ``step`` so that nothing is computed, but what it would compute is written down.
        ``generators``: from which it may draw, besides torch's default one."""
        ...


class CudaGraphs:
    """Recordings as CUDA graphs. Those of one training share their memory: what a step leaves
    behind for the next lies outside."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def apart(self) -> AbstractContextManager[None]:
        return _on(self._stream)

    def record(self, step: Callable[[], None], generators: Sequence[torch.Generator]) -> Recording:
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # Only this thread records: what others ask the driver for (NCCL's watchdog) is no error.
        mode = "thread_local"
        recording = torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode=mode)
        try:
            # Torch's own does not come back to the stream before if its end fails: this one does.
            with torch.cuda.stream(self._stream), recording:
                step()
        except RuntimeError:
            end_recording(self._device, self._pool)
            raise
        return graph


@contextlib.contextmanager
def _on(stream: torch.cuda.Stream) -> Iterator[None]:
    """What is done within it comes after all before it, and before all that follows."""
    here = torch.cuda.current_stream(stream.device)
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        yield
    here.wait_stream(stream)


RECORDERS: dict[str, type[Recorder]] = {"cuda": CudaGraphs}
"""Kind of device -> what records on it."""


class Taker(Protocol):
    """What takes steps: a :class:`GanStep`, or one that is recorded."""

    def begin_epoch(self) -> None: ...

    def take(self, drawn: Sequence[StepDraw]) -> None: ...


def recorded(step: GanStep) -> Taker:
    """``step`` as a :class:`CapturedStep` where that can be, else as it is, and a line why."""
    world = step.world
    if (reason := why_not(step)) is None:
        return CapturedStep(step)
    if world.step_graphs == "always" or world.device.type in RECORDERS:
        level = logging.WARNING if world.step_graphs == "always" else logging.INFO
        log.log(level, "steps are not recorded as graphs: %s", reason)
    return step


@contextlib.contextmanager
def ready_to_record(world: World) -> Iterator[None]:
    """Where a step is made that may be recorded: DistributedDataParallel keeps to the stream that
    it is made on, and the default one cannot be recorded."""
    if world.device.type != "cuda" or world.size == 1 or world.step_graphs != "always":
        yield
        return
    with _on(torch.cuda.Stream(world.device)):
        yield


def why_not(step: GanStep) -> str | None:
    """Why ``step`` is taken eagerly; None if it can be recorded."""
    world, trainings = step.world, [each.training for each in step.replicates]
    groups = [g for t in trainings for o in t.optimizers.values() for g in o.param_groups]
    if world.step_graphs == "never":
        return "resources.step_graphs is never"
    if world.device.type not in RECORDERS:
        return "there is no GPU"
    if not all(each.resident for each in step.replicates):
        return "the training rows do not fit on the GPU, and are sent step by step"
    if step.spec.compile == "cuda_graphs":
        return "compile: cuda_graphs records each network by itself; compile: default goes with it"
    if world.device.type == "cuda" and not all(group.get("capturable") for group in groups):
        return "its optimisers cannot be recorded"
    return _why_not_ranks(world)


def _why_not_ranks(world: World) -> str | None:
    if world.size == 1:
        return None
    if world.step_graphs != "always":
        return (
            "several ranks exchange gradients in them, which no GPU has tried yet "
            "(resources.step_graphs: always does)"
        )
    if os.environ.get(NCCL_HANDLING) != "0":
        return f"NCCL can be recorded only with {NCCL_HANDLING}=0 in the environment of all ranks"
    return None


class CapturedStep:
    """Takes the steps of ``step`` by replaying them, once each kind has been recorded."""

    def __init__(self, step: GanStep) -> None:
        world = step.world
        self._step, self._world = step, world
        self._recorder = RECORDERS[world.device.type](world.device)
        self._held = [HeldDraws(world.device) for _ in step.replicates]
        self._rows: Tensor | None = None
        self._warm_up = WARM_UP if world.size == 1 else WARM_UP_OF_RANKS
        self._warm: Counter[bool] = Counter()
        self._recordings: dict[bool, Recording] = {}
        self._recorded_with: list[Any] = []
        self._gave_up = False

    @property
    def replays(self) -> bool:
        """Whether every kind of step that has been warmed up is replayed from now on."""
        return bool(self._recordings) and not self._gave_up

    def begin_epoch(self) -> None:
        self._step.begin_epoch()
        if self._recordings and _whereabouts(self._step) != self._recorded_with:
            self._recordings.clear()
            self._warm.clear()

    def take(self, drawn: Sequence[StepDraw]) -> None:
        inputs = self._put(drawn)
        kind = self._step.generator_is_due
        if kind not in self._recordings and not self._gave_up and self._warm[kind] >= self._warm_up:
            self._record(kind, inputs)
        if kind in self._recordings:
            self._recordings[kind].replay()
            return
        self._warm[kind] += 1
        with self._recorder.apart():
            self._step.take(inputs)

    def _put(self, drawn: Sequence[StepDraw]) -> list[StepDraw]:
        """What differs from step to step, in the place where every step looks for it."""
        numbers = [draw.rows for draw in drawn if isinstance(draw.rows, Tensor)]
        assert len(numbers) == len(drawn), "rows that are sent have no fixed place"
        if self._rows is None:
            self._rows = torch.stack(numbers)
        places = self._rows.unbind()
        foreach.copy_(places, numbers)
        for held, draw in zip(self._held, drawn, strict=True):
            held.draw(draw.draws)
        each = zip(places, drawn, self._held, strict=True)
        return [StepDraw(place, replace(draw.draws, held=held)) for place, draw, held in each]

    def _record(self, kind: bool, inputs: Sequence[StepDraw]) -> None:
        for held in self._held:
            held.sealed = True
        # Alone, dropout draws from the default generator, which every graph knows.
        masks = [each.masks for each in self._step.replicates] if self._step.fused else []
        where = _whereabouts(self._step)
        if where != self._recorded_with:
            self._recordings.clear()
        try:
            recording = self._recorder.record(lambda: self._step.take(inputs), masks)
        except RuntimeError as error:  # nothing was computed: the step can still be taken
            if self._world.step_graphs == "always":
                raise
            self._gave_up = True
            log.warning("steps are not recorded as graphs: %s", lines_of(_first(error))[0])
        else:
            self._recordings[kind], self._recorded_with = recording, where
        finally:
            for held in self._held:
                held.sealed = False


def _first(error: BaseException) -> BaseException:
    """What failed first: the end of a recording says only that something did."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _whereabouts(step: GanStep) -> list[Any]:
    """Where all that outlives a step lies, and the numbers that a recording holds as they were."""
    found: list[Any] = []
    for each in step.replicates:
        training = each.training
        for module in training.modules.values():
            found += [x.data_ptr() for x in (*module.parameters(), *module.buffers())]
        for optimizer in training.optimizers.values():
            found += [group["lr"] for group in optimizer.param_groups]
            states = (x for state in optimizer.state.values() for x in state.values())
            found += [x.data_ptr() if isinstance(x, Tensor) else x for x in states]
        tensors = (*training.extra.values(), training.guard.skipped, training.guard.last_bad)
        found += [x.data_ptr() for x in tensors]
    return found
