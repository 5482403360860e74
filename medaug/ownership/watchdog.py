"""Ends the process when its storage hangs: a dead network disk blocks every call for ever."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from medaug.errors import Interrupted
from medaug.storage.probe import write_probe

TIMEOUT_S = 60.0
BEAT_S = 1.0
PROBE_EVERY_S = 5.0


class StorageWatchdog:
    """While it is entered, a thread writes a small file to ``storage`` every few seconds. If one
    write takes longer than ``timeout_s``, the process ends at once with exit code 75.

    At once, because everything that ends a process properly writes to the storage too, and would
    hang with it. What was committed is whole; an embedded cluster ends with its driver. Errors are
    answers: who writes something that matters meets them as well, and can say more.
    """

    def __init__(self, storage: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._storage = storage
        self._timeout_s = timeout_s
        self._answered = threading.Event()
        self._left = threading.Event()

    def __enter__(self) -> StorageWatchdog:
        for work in (self._probe, self._watch):
            threading.Thread(target=work, name="storage watchdog", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()

    def _probe(self) -> None:
        while not self._left.wait(min(PROBE_EVERY_S, self._timeout_s / 4)):
            with suppress(OSError):
                write_probe(self._storage)
            self._answered.set()

    def _watch(self) -> None:
        # Counted in its own beats: a process that was stopped for an hour has not waited for one.
        silent_s = 0.0
        while not self._left.wait(BEAT_S):
            silent_s = 0.0 if self._answered.is_set() else silent_s + BEAT_S
            self._answered.clear()
            if silent_s > self._timeout_s:
                print(
                    f"error: storage {self._storage} has not answered for {self._timeout_s:.0f} s; "
                    "look at its server or mount, then `medaug resume` goes on",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(Interrupted.exit_code)
