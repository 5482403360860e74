"""How long until the first answer: ``medaug bench first``.

Parts: ``images`` (``medaug init`` and ``medaug run`` on folders of pictures, until the
leaderboard), ``demo`` (``jobs/demo.yaml``), ``commands`` (those that only read) and ``ray`` (an
embedded cluster). Every command is a process of its own, as a person would start it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from medaug.bench.machine import cores
from medaug.bench.result import Figure, Options, Result, Size, stated
from medaug.errors import EnvironmentFault, UserError
from medaug.results.goodput import spent_by
from medaug.results.records import read_study, read_trials
from medaug.seeding import numpy_generator

IMAGES_S: Mapping[int, float] = {150: 180.0, 1000: 600.0}
"""By number of images: until the leaderboard, on two idle cores."""
DEMO_S, COMMAND_S = 240.0, 1.0
OUTSIDE = 0.1
"""Of a command's time: what takes more of it, and is no training, wants a look."""
DEMO = Path("jobs/demo.yaml")
PIXELS = 160
EACH = 2
"""Images of a patient."""
TURNS = 3


@dataclass(frozen=True)
class _Sizes:
    images: Sequence[int]
    demo: bool


_SIZES: Mapping[Size, _Sizes] = {
    "full": _Sizes((150, 1000), True),
    "quick": _Sizes((150,), False),
    "tiny": _Sizes((40,), False),
}


def run(options: Options) -> Result:
    """All parts, one after the other: beside each other they would be slower."""
    sizes = _SIZES[options.size]
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="medaug-bench-", dir=options.folder) as name:
        home = Path(name)
        numbers = sizes.images if options.wants("images") else sizes.images[:1]
        if options.wants("images") or options.wants("commands"):
            for n in numbers:
                found, details[f"{n} images"] = _images(home / str(n), n)
                figures += found if options.wants("images") else []
        if options.wants("demo") and sizes.demo:
            found, details["demo"] = _demo(home / "demo")
            figures += found
        if options.wants("commands"):
            figures += _commands(home / str(numbers[0]))
        if options.wants("ray"):
            figures.append(_ray(home))
    note = "training: the ranks' seconds of steps that are in a model, over wall seconds x slots"
    return Result(
        "first", stated(figures, options.size), options.size, notes=[note], details=details
    )


def write_images(folder: Path, n: int) -> None:
    """``n`` grey pictures of two classes in folders, :data:`EACH` of a patient: discs in noise,
    those of the second class with a bright spot."""
    from PIL import Image

    rng = numpy_generator("bench", "first", n)
    y, x = np.mgrid[:PIXELS, :PIXELS] / PIXELS - 0.5
    for patient in range(n // EACH):
        kind = ("clear", "lesion")[patient % 2]
        place = folder / kind
        place.mkdir(parents=True, exist_ok=True)
        radius, angle = rng.uniform(0.3, 0.45), rng.uniform(0, 2 * np.pi)
        spot = 0.2 * np.array([np.cos(angle), np.sin(angle)])
        for i in range(EACH):
            image = 90.0 * (np.hypot(y, x) < radius) + rng.normal(60, 25, (PIXELS, PIXELS))
            if kind == "lesion":
                image += 70 * (np.hypot(y - spot[0], x - spot[1]) < rng.uniform(0.03, 0.06))
            pixels = image.clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"patient{patient:04d}_{i}.png")


def _images(home: Path, n: int) -> tuple[list[Figure], dict[str, Any]]:
    write_images(home / "scans", n)
    init_s = _timed(home, "init", "first", "scans")
    run_s = _timed(home, "run", "first.yaml", "--storage", "runs")
    shares = _shares(home / "runs" / "first", run_s)
    part = f"{n} images"
    figures = [
        Figure(part, "medaug init", init_s, "s"),
        Figure(part, "medaug run", run_s, "s"),
        Figure(
            part, "to the leaderboard", init_s + run_s, "s",
            target=IMAGES_S.get(n), better="lower",
        ),
        Figure(part, "training", shares["training"], "", note=_most(shares)),
    ]  # fmt: skip
    return figures, {"init_s": init_s, "run_s": run_s, "shares": shares}


def _demo(home: Path) -> tuple[list[Figure], dict[str, Any]]:
    home.mkdir()
    if not DEMO.is_file():
        note = f"no {DEMO} here: run the benchmark in a checkout"
        return [Figure("demo", "to the leaderboard", None, "s", note=note)], {}
    run_s = _timed(home, "run", str(DEMO.resolve()), "--storage", "runs")
    shares = _shares(home / "runs" / "demo", run_s)
    figures = [
        Figure("demo", "to the leaderboard", run_s, "s", target=DEMO_S, better="lower"),
        Figure("demo", "training", shares["training"], "", note=_most(shares)),
    ]
    return figures, {"run_s": run_s, "shares": shares}


def _commands(home: Path) -> list[Figure]:
    figures = []
    for words in (
        ("--help",),
        ("show", "first.yaml"),
        ("leaderboard", "first", "--storage", "runs"),
        ("status", "first", "--storage", "runs"),
    ):
        seconds = median(_timed(home, *words) for _ in range(TURNS))
        name = " ".join(("medaug", *(w for w in words if w not in ("--storage", "runs"))))
        figures.append(Figure("commands", name, seconds, "s", target=COMMAND_S, better="lower"))
    return figures


def _ray(home: Path) -> Figure:
    """An embedded cluster's start, in a process that has imported what a run imports."""
    program = (
        "import sys, time; from pathlib import Path; from medaug.spec import ResourceSpec;"
        "from medaug.sweep.runner import Sweep; home = Path(sys.argv[1]);"
        "sweep = Sweep(home / 'ray', home, ResourceSpec());"
        "sweep.__enter__(); began = time.monotonic(); sweep.prepare();"
        "print(time.monotonic() - began); sweep.__exit__(None, None, None)"
    )
    done = _done([sys.executable, "-c", program, str(home)], home)
    return Figure("ray", "an embedded cluster's start", float(done.stdout.split()[-1]), "s")


def _shares(folder: Path, run_s: float) -> dict[str, float]:
    """What became of the time of the slots: shares of wall seconds x slots."""
    resources = read_study(folder).resources
    slots = max(1, int(cores() // (resources.ranks * resources.cpus_per_rank)))
    trials = spent_by(read_trials(folder))
    whole = run_s * slots
    named = {
        "training": trials.good,
        "saving": trials.saving,
        "waiting in trials": trials.waiting,
        "redone": trials.redone,
    }
    shares = {name: seconds / whole for name, seconds in named.items()}
    return {**shares, "outside of trials": max(0.0, 1 - sum(shares.values()))}


def _most(shares: Mapping[str, float]) -> str:
    large = {name: s for name, s in shares.items() if s > OUTSIDE and name != "training"}
    return ", ".join(f"{name} {share:.2f}" for name, share in large.items())


def _timed(folder: Path, *words: str) -> float:
    began = time.monotonic()
    _done([sys.executable, "-m", "medaug", *words], folder)
    return time.monotonic() - began


def _done(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        last = lines[-1] if lines else f"exit code {done.returncode}"
        kind = UserError if done.returncode == 2 else EnvironmentFault
        raise kind(f"{' '.join(command[2:4])}: {last}")
    return done
