"""What a CUDA graph does, done on a CPU: a step is written down, and replayed without Python.

The process boundary is the driver. :class:`Tape` writes down each operation that torch dispatches,
with the tensors that it reads and writes; a replay runs these operations again on these very
tensors, the results written to where they lay. What a graph cannot do is refused as the driver and
torch's CUDA generators refuse it: to wait for the device, to make a tensor of numbers on the host
(a copy from pageable memory), to draw from a generator that is not registered.

While it is written nothing is computed, as on a GPU: what was changed is put back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.train.counting import WAITS

FROM_HOST = {"lift_fresh", "lift"}


class Tape(TorchDispatchMode):
    """A recorded step."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.generators = list(generators)
        self.entries: list[Callable[[], None]] = []
        self.operations: list[str] = []
        self.replays = 0
        self._made: set[int] = set()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._keep: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in WAITS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        if name in FROM_HOST:
            raise RuntimeError(f"a copy from pageable memory while a stream is capturing: {name}")
        for given in tree_leaves((args, kwargs)):
            if isinstance(given, torch.Generator) and given not in self.generators:
                raise RuntimeError(f"a generator that is not registered, in {name}")
        self._save(func, args, kwargs)
        out = func(*args, **kwargs)
        self._write(func, args, kwargs, out)
        self.operations.append(name)
        return out

    def _save(self, func: Any, args: Any, kwargs: Any) -> None:
        """What ``func`` changes and was there before, as it is."""
        for argument, given in _with_schema(func, args, kwargs):
            if not _is_written(func, argument):
                continue
            for x in tree_leaves(given):
                if isinstance(x, Tensor) and _memory(x) not in self._made | self._before.keys():
                    whole = _storage_of(x)
                    self._before[_memory(x)] = whole, whole.clone()

    def _write(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        outs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        given = {_memory(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = [x for x in outs if _memory(x) not in given]
        self._made |= {_memory(x) for x in made}
        self._keep.append((args, kwargs, outs))  # an address is used once in a recording

        def again() -> None:
            results = tree_leaves(func(*args, **kwargs))
            results = [x for x in results if isinstance(x, Tensor)]
            for x, result in zip(outs, results, strict=True):
                assert (x.shape, x.dtype, x.stride()) == (
                    result.shape,
                    result.dtype,
                    result.stride(),
                )
                if _memory(x) not in given and x.numel():
                    x.detach().copy_(result)

        self.entries.append(again)

    def put_back(self) -> None:
        for whole, before in self._before.values():
            whole.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for entry in self.entries:
            entry()


class TapeRecorder:
    """Records steps on a CPU (:class:`medaug.train.captured.Recorder`)."""

    made: ClassVar[list[TapeRecorder]] = []

    def __init__(self, device: torch.device) -> None:
        assert device.type == "cpu"
        self.tapes: list[Tape] = []
        self.eager = 0
        self.writing: Tape | None = None
        TapeRecorder.made.append(self)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        self.eager += 1
        yield

    def record(self, step: Callable[[], None], generators: Sequence[torch.Generator]) -> Tape:
        tape = self.writing = Tape(generators)
        states = [torch.get_rng_state(), *(g.get_state() for g in generators)]
        try:
            with tape:
                step()
        finally:
            self.writing = None
            tape.put_back()
            torch.set_rng_state(states[0])
            for generator, state in zip(generators, states[1:], strict=True):
                generator.set_state(state)
        self.tapes.append(tape)
        return tape

    @contextlib.contextmanager
    def drawing_from(self, generator: torch.Generator) -> Iterator[None]:
        """As :func:`medaug.models.fused.drawing_from` on a GPU: the graph knows of it."""
        default = torch.default_generator

        def begin() -> None:
            default.set_state(generator.get_state())

        def end() -> None:
            generator.set_state(default.get_state())

        if self.writing is not None:
            assert generator in self.writing.generators, "a generator that is not registered"
            self.writing.entries.append(begin)
        begin()
        yield
        end()
        if self.writing is not None:
            self.writing.entries.append(end)


def _is_written(func: Any, argument: Any) -> bool:
    if func.overloadpacket.__name__ == "native_batch_norm":  # its schema does not say
        return argument.name in ("running_mean", "running_var")
    return argument.alias_info is not None and argument.alias_info.is_write


def _with_schema(func: Any, args: Any, kwargs: Any) -> Iterator[tuple[Any, Any]]:
    for i, argument in enumerate(func._schema.arguments):
        if i < len(args):
            yield argument, args[i]
        elif argument.name in kwargs:
            yield argument, kwargs[argument.name]


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _storage_of(x: Tensor) -> Tensor:
    """All memory that ``x`` is a view of, as bytes."""
    return torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage())
