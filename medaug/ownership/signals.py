"""Stop requests: SIGTERM (Slurm, Kubernetes, spot machines), SIGINT (Ctrl-C), SIGUSR1 (Slurm),
SIGHUP (the terminal was closed).

While trials run, the first asks to end after the current epoch, the second not to wait for it. At
any other time - scans are read, the report is drawn - nothing is lost by ending at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from medaug.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class StopRequests:
    """Owns the stop signals of the process while a sweep runs in it.

    Ray and Tune bring handlers of their own, which end the driver by SIGABRT (134), drop the last
    epoch or raise within somebody's lock. They are started in threads, where Python allows none;
    one that Ray sets below Python only prints a page: call :meth:`own` again after starting it. In
    another thread than the main one nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.asked_twice = threading.Event()
        self.name = ""
        """Name of the first signal."""
        self._before: dict[int, Any] = {}
        self._noting = 0

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Within it, signals set ``asked`` and ``asked_twice``; elsewhere they raise
        :class:`Interrupted`."""
        self._noting += 1
        try:
            yield
        finally:
            self._noting -= 1

    def check(self) -> None:
        """
        Raises:
            Interrupted: a signal was noted.
        """
        if self.asked.is_set():
            raise Interrupted(f"stopped by {self.name}; `medaug resume` goes on")

    def own(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup: to go on without a terminal is what it is for
            handler = signal.signal(number, self._receive)
            self._before.setdefault(number, handler)

    def give_back(self) -> None:
        """Put back the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.note(number)
        if not self._noting:
            self.check()

    def note(self, number: int) -> None:
        """Take down a signal that has come, by whatever way."""
        if self.asked.is_set():
            self.asked_twice.set()
        else:
            self.name = signal.Signals(number).name
            self.asked.set()
