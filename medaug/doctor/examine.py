"""Every group of checks in a process of its own, so that none can hang the others or doctor."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

import psutil

from medaug.doctor.finding import Finding, Place, failed

Examine = Callable[[Place], Iterator[Finding]]

GROUPS: Mapping[str, float] = {
    "machine": 60.0,
    "storage": 60.0,
    "gpu": 120.0,
    "tracking": 120.0,
    "cluster": 300.0,
}
"""Group (a module of this room) -> seconds until it counts as hanging: many times what it takes."""


def examine(place: Place, limits: Mapping[str, float] = GROUPS) -> Iterator[tuple[str, Finding]]:
    """(group, finding) of every check, group by group; all groups are at work at once."""
    children = {group: _start(group, place) for group in limits}
    began = time.monotonic()
    try:
        for group, child in children.items():
            left_s = limits[group] - (time.monotonic() - began)
            for finding in _answers(group, child, max(0.1, left_s), limits[group]):
                yield group, finding
    finally:
        for child in children.values():
            _end(child)


def run_group(group: str, place: Place) -> None:
    """What the process of a group does: a line of JSON for each finding, as it comes."""
    for finding in import_module(f"medaug.doctor.{group}").examine(place):
        print(json.dumps(finding.to_json()), flush=True)


def _start(group: str, place: Place) -> subprocess.Popen[str]:
    words = [group, str(place.storage), *([place.address] if place.address else [])]
    return subprocess.Popen(
        [sys.executable, "-m", "medaug.doctor", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _answers(
    group: str, child: subprocess.Popen[str], left_s: float, limit_s: float
) -> Iterator[Finding]:
    try:
        out, err = child.communicate(timeout=left_s)
    except subprocess.TimeoutExpired:
        _end(child)
        out, err = child.communicate()
        yield from _read(out)
        what = f"gave no answer within {limit_s:g} s"
        yield failed(group, what, _HANGS[group])
        return
    yield from _read(out)
    if child.returncode != 0:
        what = (err.strip().splitlines() or [f"ended with code {child.returncode}"])[-1][:300]
        yield failed(group, what, "run `medaug doctor` with --debug, and report what it prints")


_HANGS = {
    "machine": "its file systems or process table hang: look at dmesg",
    "storage": "the storage hangs: is its server up?",
    "gpu": "the driver hangs: look at nvidia-smi and dmesg",
    "tracking": "look at MLflow's log, or restart it",
    "cluster": "look at `ray status` on its head, or give another --address",
}


def _read(out: str) -> Iterator[Finding]:
    for line in out.splitlines():
        if line.startswith("{"):  # libraries print too
            with contextlib.suppress(ValueError, TypeError):
                yield Finding(**json.loads(line))


def _end(child: subprocess.Popen[str]) -> None:
    """End the process and what it has started, a Ray cluster of its own for one."""
    if child.poll() is not None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(child.pid)
        for each in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def place_of(storage: str, address: str | None = None) -> Place:
    """From the words that :func:`examine` gives to a child."""
    return Place(Path(storage), address)
