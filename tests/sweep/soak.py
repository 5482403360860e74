"""A long sweep of tiny trials that tells what its driver holds: soak.py STORAGE TRIALS EVERY.

After every so many trials a line of JSON on standard output: resident memory, descriptors and
threads of the driver, those of the cluster's head and node, and what is used of /dev/shm.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from toy_trials import config, count

from medaug.cli.display import TerminalDisplay
from medaug.spec import ResourceSpec, TrialConfig
from medaug.sweep import Outcome, Sweep
from medaug.sweep.log import LogListener, run_log

HELPERS = {"gcs_server": "head", "raylet": "node"}


class Gauge:
    """A listener that reads the meters after every ``every`` trials."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._ended = 0
        self._began = time.monotonic()

    def on_wave_start(self, stage: str, n: int, reused: int) -> None: ...
    def on_trial_start(self, config: TrialConfig) -> None: ...
    def on_place(self, config: TrialConfig, device: str) -> None: ...
    def on_epoch(self, config: TrialConfig, epoch: int, metrics: Mapping[str, float]) -> None: ...
    def on_wave_end(self) -> None: ...

    def on_trial_end(self, outcome: Outcome) -> None:
        assert outcome.status == "done", outcome
        self._ended += 1
        if self._ended % self._every == 0:
            row = {"trials": self._ended, "seconds": round(time.monotonic() - self._began, 1)}
            print(json.dumps(row | reading()), flush=True)


def reading() -> dict[str, Any]:
    """What this process and its cluster hold just now."""
    gc.collect()
    me = psutil.Process()
    shm = os.statvfs("/dev/shm")
    row: dict[str, Any] = {
        "rss_bytes": me.memory_info().rss,
        "descriptors": me.num_fds(),
        "threads": me.num_threads(),
        "processes": len(me.children(recursive=True)),
        "shm_bytes": (shm.f_blocks - shm.f_bfree) * shm.f_frsize,
    }
    for child in me.children():
        if name := HELPERS.get(child.name()):
            row[f"{name}_rss_bytes"] = child.memory_info().rss
            row[f"{name}_descriptors"] = child.num_fds()
    return row


def main(storage: Path, trials: int, every: int) -> int:
    experiment = storage / "experiment"
    experiment.mkdir(parents=True)
    resources = ResourceSpec(cpus_per_rank=0.5)  # four trials at once
    listeners = [TerminalDisplay(), LogListener(), Gauge(every)]
    with (
        run_log(experiment),
        Sweep(experiment, storage, resources, cpus=2, listeners=listeners) as sweep,
    ):
        outcomes = sweep.run([config(f"tiny-{n}", epochs=1) for n in range(trials)], work=count)
    assert [outcome.status for outcome in outcomes] == ["done"] * trials
    return 0


if __name__ == "__main__":
    path, *numbers = sys.argv[1:]
    sys.exit(main(Path(path), *map(int, numbers)))
