"""What a check says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    status: Status
    what: str
    """One line: what is there."""
    fix: str = ""
    """One line: what to do about it; empty where nothing is to be done."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Place:
    """What is examined."""

    storage: Path
    address: str | None = None
    """``HOST:PORT`` of a Ray cluster; None: an embedded one on this machine."""


def passed(check: str, what: str) -> Finding:
    return Finding(check, "pass", what)


def warned(check: str, what: str, fix: str) -> Finding:
    return Finding(check, "warn", what, fix)


def failed(check: str, what: str, fix: str) -> Finding:
    return Finding(check, "fail", what, fix)
