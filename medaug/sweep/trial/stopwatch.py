"""Puts every second of a trial into exactly one bucket, and writes it into the trial's folder."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from medaug.storage.trial_folder import TrialFolder


class Stopwatch:
    """Starts when it is made. Each :meth:`lap` says what the time since the last one went into.

    A trial that was here before was interrupted: the time since its last lap was a ``restart`` if
    the same sweep goes on with it, and ``idle`` if the sweep itself had ended meanwhile.
    ``sweep`` tells one from another.
    """

    def __init__(self, folder: TrialFolder, sweep: str) -> None:
        self._folder = folder
        self._sweep = sweep
        self._last = time.monotonic()
        laps = folder.laps()
        self.restarts = bool(laps) and laps[-1]["sweep"] == sweep
        """Whether this sweep has run the trial before."""
        if laps:
            away_s = max(0.0, time.time() - laps[-1]["time"])
            self._write({"restart" if self.restarts else "idle": away_s})

    def lap(self, bucket: str, *, epoch: int | None = None, **parts: float) -> None:
        """All time since the last lap went into ``bucket``, but for ``parts`` in seconds.

        ``epoch``: the number of the epoch that it finished.
        """
        now = time.monotonic()
        total, self._last = now - self._last, now
        seconds: dict[str, float] = {}
        for name, part in parts.items():
            seconds[name] = min(max(part, 0.0), total - sum(seconds.values()))
        self._write(seconds | {bucket: total - sum(seconds.values())}, epoch)

    def _write(self, seconds: dict[str, float], epoch: int | None = None) -> None:
        row: dict[str, Any] = {
            "time": time.time(),
            "sweep": self._sweep,
            "seconds": {name: round(value, 6) for name, value in seconds.items()},
        }
        if epoch is not None:
            row["epoch"] = epoch
        with contextlib.suppress(OSError):  # what is wrong with the storage, others have to say
            self._folder.log_lap(row)
