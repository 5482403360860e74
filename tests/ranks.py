"""Two real ranks (spawned processes, gloo) that serve every test of a session."""

from __future__ import annotations

import multiprocessing
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from medaug.train.world import init_group, leave_group


def _serve(pipe: Connection, rank: int, size: int, port: int) -> None:
    world = init_group(rank, size, "127.0.0.1", port, timeout_s=60)
    while (job := pipe.recv()) is not None:
        function, arguments = job
        try:
            pipe.send((function(world, *arguments), None))
        except Exception:
            pipe.send((None, traceback.format_exc()))
    leave_group()


class Ranks:
    """``ranks(function, *arguments)`` -> ``function(world, *arguments)`` of each rank."""

    def __init__(self, size: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for rank in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, size, port), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send((function, arguments))
        answers = [pipe.recv() for pipe in self._pipes]
        for _, failure in answers:
            assert failure is None, failure
        return [answer for answer, _ in answers]

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(10)
            process.kill()
