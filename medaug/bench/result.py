"""What a benchmark says: figures with their peers and targets, and the machine they are from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from medaug.bench.machine import Machine
from medaug.bench.timing import Spread

Size = Literal["full", "quick", "tiny"]


@dataclass(frozen=True)
class Options:
    """What all benchmarks are asked with."""

    size: Size = "full"
    """``full``: what the targets are stated for; ``quick``: the same in under two minutes;
    ``tiny``: seconds, shows only that everything runs."""
    parts: tuple[str, ...] = ()
    """Names of the parts to run; empty: all. Each benchmark's documentation lists its own."""
    folder: Path | None = None
    """Where to put data while it runs; None: a temporary folder."""

    def wants(self, part: str) -> bool:
        return not self.parts or part in self.parts


@dataclass(frozen=True)
class Figure:
    """One measured number, alone or next to a peer's."""

    part: str
    """What was done: ``random 15x15x1024``."""
    subject: str
    """Who did it: ``medaug``, ``np.memmap``, ``reference step``."""
    value: float | None
    """The median; None when it could not be measured, and ``note`` says why."""
    unit: str
    ratio: Spread | None = None
    """Against ``against``, over pairs that were measured one right after the other."""
    against: str = ""
    """The peer, reference, limit or quantity that the ratio refers to."""
    target: float | None = None
    """What the ratio (or, without one, the value) shall be."""
    better: Literal["higher", "lower"] = "higher"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without target or measurement."""
        measured = self.value if self.ratio is None else self.ratio.median
        if self.target is None or measured is None:
            return None
        return measured >= self.target if self.better == "higher" else measured <= self.target


@dataclass(frozen=True)
class Result:
    """All figures of one benchmark on one machine."""

    name: str
    figures: Sequence[Figure]
    size: Size
    machine: Machine = field(default_factory=Machine.here)
    notes: Sequence[str] = ()
    """What a reader must know to read the figures right: how they came about, what is missing."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Anything else worth keeping, as JSON: single measurements, growth curves."""

    def to_json(self) -> str:
        body = asdict(self)
        for figure, row in zip(self.figures, body["figures"], strict=True):
            row["met"] = figure.met
        return json.dumps(body, indent=1, allow_nan=False)


def stated(figures: Sequence[Figure], size: Size) -> Sequence[Figure]:
    """``figures``, without targets where sizes are tiny: nothing can be measured there."""
    return [replace(f, target=None) for f in figures] if size == "tiny" else figures
