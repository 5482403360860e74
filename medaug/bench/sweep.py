"""What a sweep costs beside the trainings in it: ``medaug bench sweep``.

Parts: ``start`` (real processes, several trials to a core) and ``controller`` (thousands of trials
whose ranks do nothing: see :mod:`medaug.bench.sweep_slots`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from medaug.bench.result import Figure, Options, Result, Size, stated
from medaug.errors import EnvironmentFault

START_S, OVERHEAD = 3.0, 1.15
CPU_MS, DRIVER_MIB = 15.0, 600.0
"""Of the driver at 10,000 trials: CPU time a trial, and memory in all."""
PACKED_SLOTS, CPUS_PER_SLOT = 4, 0.5


@dataclass(frozen=True)
class _Sizes:
    packed: int
    """Trials of the part with real processes."""
    train_s: float
    """How long each of them trains; the target is stated for 60 s."""
    simulated: Sequence[int]
    """Numbers of trials of the simulation, one process each."""
    slots: int


_SIZES: Mapping[Size, _Sizes] = {
    "full": _Sizes(12, 60.0, (1000, 3000, 10000), 8),
    "quick": _Sizes(12, 2.0, (100, 400), 8),
    "tiny": _Sizes(4, 0.0, (8,), 4),
}


def run(options: Options) -> Result:
    """Both parts, each in processes of its own."""
    sizes = _SIZES[options.size]
    figures: list[Figure] = []
    notes: list[str] = []
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="medaug-bench-", dir=options.folder) as name:
        if options.wants("start"):
            packed = _child(name, "packed", sizes.packed, PACKED_SLOTS, sizes.train_s)
            figures += _packed_figures(packed, sizes)
            details["packed"] = packed
        if options.wants("controller"):
            told = [_child(name, "simulated", n, sizes.slots, 0.0) for n in sizes.simulated]
            figures += _controller_figures(told, sizes)
            notes.append(
                f"controller: {sizes.slots} slots; our driver, Ray Tune, placement groups and the "
                "trials' own processes are real, their ranks are stubs that do nothing"
            )
            details["simulated"] = told
    return Result(
        "sweep", stated(figures, options.size), options.size, notes=notes, details=details
    )


def _packed_figures(told: Mapping[str, Any], sizes: _Sizes) -> list[Figure]:
    part = f"{sizes.packed} trials of {sizes.train_s:g} s, {PACKED_SLOTS} on 2 CPUs"
    trials = sorted(told["trials"], key=lambda trial: trial["begun"])
    gaps = start_times(trials)
    span = max(t["ended"] for t in trials) - trials[0]["begun"]
    trained = sum(t["ended"] - t["begun"] for t in trials)
    figures = [
        Figure(part, "first trial of a sweep", trials[0]["begun"] - told["asked"], "s"),
        Figure(
            part, "trial after the first", _median(gaps), "s", target=START_S, better="lower",
            note=f"{len(gaps)} of them, the longest {max(gaps, default=0):.2f} s",
        ),
    ]  # fmt: skip
    if trained > 0:
        as_stated = sizes.train_s >= 60
        figures.append(
            Figure(
                part, "wall x slots / training", span * PACKED_SLOTS / trained, "x",
                target=OVERHEAD if as_stated else None, better="lower",
                note="" if as_stated else "the target is stated for trials of 60 s",
            )
        )  # fmt: skip
    return figures


def start_times(trials: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds between a trial's end and the next one's beginning in the same process."""
    by_process: dict[int, list[Mapping[str, Any]]] = {}
    for trial in sorted(trials, key=lambda trial: trial["begun"]):
        by_process.setdefault(trial["pid"], []).append(trial)
    return [
        later["begun"] - earlier["ended"]
        for own in by_process.values()
        for earlier, later in pairwise(own)
    ]


def _controller_figures(told: Sequence[Mapping[str, Any]], sizes: _Sizes) -> list[Figure]:
    figures = []
    for one in told:
        part = f"{one['trials']} trials on {sizes.slots} slots"
        spent = one["cpu_s"] / one["trials"]
        driver = (one["before_bytes"] + one["grown_bytes"]) / 2**20
        figures += [
            Figure(part, "driver CPU per trial", 1000 * spent, "ms", target=CPU_MS, better="lower"),
            Figure(part, "trials per second", one["trials"] / one["wall_s"], "1/s"),
            Figure(part, "driver memory", driver, "MiB", target=DRIVER_MIB, better="lower"),
        ]
    least, most = told[0], told[-1]
    if most["trials"] > least["trials"]:
        part = f"from {least['trials']} to {most['trials']} trials"
        per_trial = (most["grown_bytes"] - least["grown_bytes"]) / 1024
        per_trial /= most["trials"] - least["trials"]
        growth = (most["cpu_s"] / most["trials"]) / (least["cpu_s"] / least["trials"])
        figures += [
            Figure(part, "driver CPU per trial", growth, "x"),
            Figure(part, "driver memory per trial", per_trial, "KiB"),
        ]
    return figures


def _child(folder: str, kind: str, trials: int, slots: int, seconds: float) -> dict[str, Any]:
    """What :mod:`medaug.bench.sweep_run` prints; EnvironmentFault with its last words."""
    with tempfile.TemporaryDirectory(prefix=f"{kind}-", dir=folder) as storage:
        arguments = [kind, str(trials), str(slots), str(seconds), storage]
        command = [sys.executable, "-m", "medaug.bench.sweep_run", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise EnvironmentFault(f"the sweep that was to be measured ended: {lines[-1]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def _median(values: Sequence[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None
