"""Worker processes for parsing files that nobody vouches for.

A parser may need absurd memory, never end, or crash. Each worker therefore has a limit on its
address space, each task a limit on its time, and what goes wrong becomes the reason why one file is
refused. Results come back as JSON and raw array bytes: the parent unpickles nothing.

Run as ``python -m medaug.data.sandbox FD`` this module is such a worker.
"""

from __future__ import annotations

import json
import math
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from medaug.data.files import BadFile
from medaug.errors import EnvironmentFault

Task = tuple[Any, ...]
Parser = Callable[..., tuple[dict[str, Any], Sequence[np.ndarray]]]
"""A function of an importable module: task -> (JSON-able facts, arrays). Raises BadFile."""

_DTYPES = ("float32", "uint8")
_ATTEMPTS = 3
_START_S = 120.0
_MAX_FACTS_BYTES = 1 << 26


@dataclass(frozen=True)
class Outcome:
    """What a parser gave for one task, or why it gave nothing."""

    facts: dict[str, Any] = field(default_factory=dict)
    arrays: tuple[np.ndarray, ...] = ()
    reason: str | None = None


class Sandbox:
    """A pool of workers that run ``parser``; a context manager that ends them.

    Args:
        parser: called as ``parser(*task)`` in a worker.
        workers: how many run at a time; each is driven by one thread here.
        memory_bytes: address space that a worker may use beyond what it has after its imports.
        wall_s: time limit of one task; a worker that exceeds it is killed and replaced.
    """

    def __init__(
        self, parser: Parser, *, workers: int, memory_bytes: int = 4 << 30, wall_s: float = 60.0
    ) -> None:
        self._start = (parser, memory_bytes, wall_s)
        self._wall_s = wall_s
        self._size = workers
        self._threads = ThreadPoolExecutor(workers, "sandbox")
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        for _ in range(workers):
            self._idle.put(None)  # started when first needed
        self._alive: set[_Worker] = set()
        self._closing = threading.Event()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        for worker in tuple(self._alive):  # whatever is still being parsed, nobody waits for
            worker.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in tuple(self._alive):
            self._bury(worker)

    def map(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """The outcome of each task, in the order of the tasks.

        At most two tasks per worker are begun ahead of the one that is awaited, so memory does not
        grow with the number of tasks.
        """
        begun: deque[Future[Outcome]] = deque()
        for task in tasks:
            begun.append(self._threads.submit(self._run, task))
            if len(begun) > 2 * self._size:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()

    def _run(self, task: Task) -> Outcome:
        """One task on an idle worker; a worker that dies of it is replaced, and tried again."""
        outcome = Outcome(reason="stopped")
        for _ in range(_ATTEMPTS):
            worker = self._idle.get()
            try:
                if worker is None:
                    worker = _Worker(*self._start)
                    self._alive.add(worker)
                if self._closing.is_set():
                    break
                outcome = worker.ask(task, self._wall_s)
                break
            except _Died as death:
                assert worker is not None
                self._bury(worker)
                worker, outcome = None, Outcome(reason=death.reason)
                if death.final:
                    break
            finally:
                self._idle.put(worker)
        return outcome

    def _bury(self, worker: _Worker) -> None:
        self._alive.discard(worker)
        worker.close()


class _Died(Exception):
    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.reason, self.final = reason, final


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, parser: Parser, memory_bytes: int, wall_s: float) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libraries print file names there
            )
        try:
            self._pipe.send((parser, memory_bytes, wall_s))
            ready = self._pipe.poll(_START_S) and self._pipe.recv_bytes() == b"ready"
        except (EOFError, OSError):
            ready = False
        if not ready:
            self.close()
            raise EnvironmentFault(
                f"ingest: a reader process did not start (exit {self._process.returncode}); "
                f"try {sys.executable} -c 'import {parser.__module__}'"
            )

    def ask(self, task: Task, wall_s: float) -> Outcome:
        """Send one task and wait for its outcome; raises _Died when the process ends instead."""
        overdue = threading.Event()

        def end() -> None:
            overdue.set()
            self.stop()

        # Ending the process ends every wait below, so this one timer bounds them all.
        timer = threading.Timer(wall_s, end)
        timer.start()
        try:
            self._pipe.send(task)
            return _receive(self._pipe)
        except (EOFError, OSError):
            code = self._process.wait()
            if overdue.is_set():
                reason = f"reading took more than {wall_s:g} s; check the file, or split it"
                raise _Died(reason, final=True) from None
            reason = f"its reader process died {_ATTEMPTS} times (exit {code}); check the file"
            raise _Died(reason, final=False) from None
        finally:
            timer.cancel()

    def stop(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._pipe.close()


def _environment() -> dict[str, str]:
    """One thread per worker: the workers themselves use the cores, and sums stay the same."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _receive(pipe: Connection) -> Outcome:
    head = json.loads(pipe.recv_bytes(_MAX_FACTS_BYTES))
    arrays = []
    for dtype, shape in head["arrays"]:
        assert dtype in _DTYPES, dtype
        array = np.empty(shape, dtype)
        pipe.recv_bytes_into(memoryview(array.reshape(-1).view(np.uint8).data))
        arrays.append(array)
    return Outcome(head["facts"], tuple(arrays), head["reason"])


def _send(pipe: Connection, outcome: Outcome) -> None:
    arrays = [np.ascontiguousarray(array) for array in outcome.arrays]
    shapes = [(array.dtype.name, array.shape) for array in arrays]
    head = {"facts": outcome.facts, "reason": outcome.reason, "arrays": shapes}
    pipe.send_bytes(json.dumps(head).encode())
    for array in arrays:
        pipe.send_bytes(array.reshape(-1).view(np.uint8).data)


# ---------------------------------------------------------------------------------- the worker


def _serve(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parser, memory_bytes, wall_s = pipe.recv()
    _limit_memory(memory_bytes)
    pipe.send_bytes(b"ready")
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        signal.alarm(math.ceil(wall_s) + 5)  # ends a worker whose parent is gone
        _send(pipe, _parse(parser, task))
        signal.alarm(0)


def _limit_memory(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold voxels
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere the wall limit has to do
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _parse(parser: Parser, task: Task) -> Outcome:
    try:
        facts, arrays = parser(*task)
    except BadFile as error:
        return Outcome(reason=str(error))
    except MemoryError:
        return Outcome(reason="needs more memory than a reader may use; crop or resample it")
    except Exception as error:
        # The text of a library's error may quote the file; its type and place do not.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        return Outcome(reason=f"cannot be parsed ({type(error).__name__} at {place}); convert it")
    return Outcome(facts, tuple(arrays))


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
