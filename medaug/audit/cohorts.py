"""What scoring other cohorts has left on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medaug.storage.json_files import read_json, read_rows

LOG = "external.log"
"""A line of JSON for every request: ``when``, ``who``, ``configurations_tried``, ``cohort``,
``store``."""
_PREFIX = "external-"


def record_file(slices: str) -> str:
    """The file of the scores on the cohort of this slice store, of the first request."""
    return f"{_PREFIX}{slices.removeprefix('slices-')}.json"


def cohort_record(folder: Path, slices: str) -> dict[str, Any] | None:
    """The record of the run in ``folder``; None while the cohort has not been scored."""
    return read_json(folder / record_file(slices))


def cohort_records(folder: Path) -> list[dict[str, Any]]:
    """All records of the run, the oldest first."""
    found = (read_json(path) for path in sorted(folder.glob(f"{_PREFIX}*.json")))
    return sorted((r for r in found if r is not None), key=lambda r: (r["when"], r["cohort"]))


def requests_for(folder: Path, slices: str) -> list[dict[str, Any]]:
    """Every request for this cohort, the first one first."""
    return [line for line in read_rows(folder / LOG) if line.get("store") == slices]
