"""The sandbox without its processes, for tests of what is read and not of who survives it."""

from __future__ import annotations

import pickle
import threading
from multiprocessing import Pipe

from medaug.data import sandbox


class InProcess:
    """A worker of :class:`medaug.data.sandbox.Sandbox` that is no process.

    Tasks and outcomes travel through a pipe in the same form. Nothing bounds memory or time.
    """

    def __init__(self, parser: sandbox.Parser, memory_bytes: int, wall_s: float) -> None:
        self._parser = pickle.loads(pickle.dumps(parser))

    def ask(self, task: sandbox.Task, wall_s: float) -> sandbox.Outcome:
        """The outcome of one task."""
        outcome = sandbox._parse(self._parser, pickle.loads(pickle.dumps(task)))
        ours, theirs = Pipe()
        with ours, theirs:
            sender = threading.Thread(target=sandbox._send, args=(theirs, outcome))
            sender.start()
            received = sandbox._receive(ours)
            sender.join()
        return received

    def stop(self) -> None:
        """There is nothing to end."""

    def close(self) -> None:
        """Nor to wait for."""
