"""What opening a run's sealed test set has left on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medaug.storage.json_files import read_json, read_rows

FILE = "unsealed.json"
"""The scores on the test patients, of the first opening."""
LOG = "unsealed.log"
"""A line of JSON for every opening: ``when``, ``who``, ``configurations_tried``."""


def unsealed_of(folder: Path) -> dict[str, Any] | None:
    """The record of the run in ``folder``; None while its test set is sealed."""
    return read_json(folder / FILE)


def openings_of(folder: Path) -> list[dict[str, Any]]:
    """Every opening, the first one first; also one that was cut off before it had scores."""
    return read_rows(folder / LOG)
