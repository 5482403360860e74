"""Other cohorts that a run's classifiers were scored on, in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medaug.results.numbers import share, with_interval

Record = Mapping[str, Any]
"""One that :mod:`medaug.score` wrote."""


@dataclass(frozen=True)
class ExternalRow:
    """A configuration on another cohort."""

    title: str
    score: str
    """Balanced accuracy of patients with its interval; nothing where it is undefined."""
    gain: str
    """Over the reference; nothing for the reference itself."""
    recalls: tuple[str, ...]
    before: str
    """The balanced accuracy that the run itself came to."""


def heading(record: Record) -> str:
    """Which cohort, of whom, when, and after how much was tried."""
    patients = " + ".join(f"{n} {name}" for name, n in record["patients"].items())
    return (
        f"External cohort {record['cohort']}: {patients} patients, scored {record['when']} by "
        f"{record['who']}, after {record['configurations_tried']} configurations were tried"
    )


def rows_of(record: Record, classes: tuple[str, ...]) -> Iterator[ExternalRow]:
    for row in record["rows"]:
        scores = row["scores"]
        yield ExternalRow(
            row["configuration"],
            text(scores["balanced_accuracy"]),
            text(row["gain"], signed=True) if row["gain"] is not None else "",
            tuple(share(scores[f"recall/{name}"]["mean"]) for name in classes),
            text(row["cross_validated"]),
        )


def remarks(record: Record) -> Iterator[str]:
    """What else is to be known of a record."""
    if n := record["known_ids"]:
        yield (
            f"{n} of its patients have ids that the study has, too: if they are the same people, "
            "this cohort is not external"
        )
    if n := record["left_out"]:
        yield f"{n} of its scans could not be read and were left out"
    if missing := [name for name, n in record["patients"].items() if not n]:
        yield f"no patient of class {', '.join(missing)}: balanced accuracy is undefined"


def text(value: Record, *, signed: bool = False) -> str:
    """A number of a record with its bounds; nothing where it is undefined."""
    numbers = [math.nan if value[key] is None else value[key] for key in ("mean", "low", "high")]
    return with_interval(*numbers, signed=signed)
