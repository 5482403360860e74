"""What MLflow has not been told yet: a bounded queue in memory, and a file for the rest."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path

SPOOL = "mlflow_spool.jsonl"


class Backlog:
    """Names of what has news, each once, in the order of their news.

    The news themselves stand in the run's own folder, where they outlive any crash of this process;
    so a trial whose every epoch is news takes one place here, and telling them twice does no harm.
    At most ``limit`` names wait in memory; what is more goes to the file, one JSON line each.
    """

    def __init__(self, path: Path, limit: int = 10_000) -> None:
        self._path = path
        self._limit = limit
        self._waiting: dict[str, None] = {}
        self._taken: dict[str, None] = {}
        self._closed = False
        self._changed = threading.Condition()
        self._file = threading.Lock()

    def add(self, name: str) -> None:
        """There is news of ``name``. Never waits for anything but, when full, the local disk."""
        with self._changed:
            full = len(self._waiting) >= self._limit and name not in self._waiting
            if not full:
                self._waiting[name] = None
                self._changed.notify()
        if full:
            self._store([name])

    def take(self) -> list[str]:
        """All that waits, on disk too, as soon as there is something; [] when closed and empty."""
        stored = self._read()
        with self._changed:
            self._waiting = stored | self._waiting
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._taken |= self._waiting
            names = list(self._waiting)
            self._waiting.clear()
            return names

    def done(self, name: str) -> None:
        """MLflow knows all about ``name`` that there was when it was taken."""
        with self._changed:
            self._taken.pop(name, None)

    def spill(self, last: str | None = None) -> None:
        """Move what is not done to the file, ``last`` at its end."""
        with self._changed:
            names = list(self._taken | self._waiting)
            self._taken.clear()
            self._waiting.clear()
        names.sort(key=lambda name: name == last)
        self._store(names)

    def close(self) -> None:
        """No more is coming: :meth:`take` gives what is left, then nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _store(self, names: list[str]) -> None:
        """Append to the file; what the disk cannot take stays in memory, however much that is."""
        if not names:
            return
        lines = [json.dumps({"time": round(time.time(), 3), "name": name}) for name in names]
        try:
            with self._file:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                with open(descriptor, "a") as file:
                    file.write("\n".join(lines) + "\n")
        except OSError:
            with self._changed:
                self._waiting = dict.fromkeys(names) | self._waiting
                self._changed.notify()

    def _read(self) -> dict[str, None]:
        """The names in the file, which is then gone."""
        with self._file:
            try:
                lines = self._path.read_text().splitlines()
                self._path.unlink()
            except OSError:  # not there, as a rule; or out of reach just now
                return {}
        names: dict[str, None] = {}
        for line in lines:
            with contextlib.suppress(ValueError, KeyError):  # torn by a kill
                names[json.loads(line)["name"]] = None
        return names
