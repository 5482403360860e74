"""What may be ranked: the same patients, the same steps, enough replicates, the controls there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from medaug.results.configuration import Configuration
from medaug.results.rows import UNCHECKED, UNRANKABLE, Row
from medaug.spec import StudySpec
from medaug.storage.results import ClassifyResult

MIN_REPLICATES = 3
"""Seeds, or draws: fewer do not tell what chance does."""
CONTROLS = ("duplicate", "classical")
"""Arm kinds that every synthetic row must be compared with, with as many rows added to the same
classes."""
REWEIGHTING = ("class_weights", "logit_adjust")
"""Arm kinds that get for nothing what an arm gains by balancing the classes."""

KNOWN_LINEAGES = {"proven", "declared", "unknown"}
"""What may be ranked; rows of unknown lineage have a flag of their own."""

Peer = tuple[Row, Configuration]


def gate(row: Row, found: Configuration, peers: Sequence[Peer], study: StudySpec) -> list[str]:
    """Flags that say why the row cannot be compared with the others; empty when it can.

    ``peers``: rows of the same training-set size, itself included.
    """
    mine = [trial.classified for trial in found.done]
    reasons = []
    if study.protocol != "honest":
        reasons.append(f"protocol as_published{_seen_before(mine)}")
    if row.replicates < row.expected:
        ends = Counter(trial.status for trial in found.trials if trial.status != "done")
        said = sorted(set(ends) - {"stopped"})
        said += [f"{ends['stopped']} stopped early"] if ends["stopped"] else []
        reasons.append(
            f"{row.replicates} of {row.expected} replicates"
            + (f" ({', '.join(said)})" if said else "")
        )
    reasons += _too_few(row, found, study)
    if len(set().union(*(theirs.splits for _, theirs in peers))) > 1:
        reasons.append("not the same split as the other rows")
    if doubts := {result.lineage for result in mine} - KNOWN_LINEAGES:
        violated = doubts == {"violated as published"}
        reasons.append(f"lineage {'violated as published' if violated else 'not proven'}")
    complete = [
        (other, theirs)
        for other, theirs in peers
        if other.replicates == other.expected and other.classifier == row.classifier
    ]
    unaugmented = [theirs for other, theirs in complete if other.kind == "none"]
    if not unaugmented:
        reasons.append("no complete arm 'none' to compare with")
    elif not found.steps <= set().union(*(theirs.steps for theirs in unaugmented)):
        reasons.append("not the same number of optimiser steps as arm 'none'")
    if row.synthetic:
        have = {other.kind for other, _ in complete if other.added == row.added}
        missing = [kind for kind in CONTROLS if kind not in have]
        if missing:
            reasons.append(f"no complete {' and no '.join(missing)} arm with {row.added}")
    return [UNRANKABLE + why for why in reasons]


def unchecked(row: Row, peers: Sequence[Peer]) -> list[str]:
    """The flag of a synthetic row that no reweighting of the classes stands beside."""
    if not row.synthetic:
        return []
    have = {other.kind for other, _ in peers if other.replicates == other.expected}
    missing = [kind for kind in REWEIGHTING if kind not in have]
    return [UNCHECKED + " and ".join(missing)] if missing else []


def _too_few(row: Row, found: Configuration, study: StudySpec) -> list[str]:
    """Too few replicates. Draws vary all that seeds do; without chance one replicate says all."""
    n = len(study.sweep.seeds)
    if found.without_chance or max(n, row.draws) >= MIN_REPLICATES:
        return []
    return [f"{n} seed{'s' * (n != 1)}, fewer than {MIN_REPLICATES}"]


def _seen_before(results: Sequence[ClassifyResult]) -> str:
    """What a published protocol let its trials see of the patients that they are scored on."""
    ways = {
        "chose": "chose epoch and threshold",
        "trained_on": "were trained on",
        "seen_by_generator": "were seen by the generator",
    }
    exposures = [result.exposure for result in results if result.exposure is not None]
    said = []
    for way, what in ways.items():
        if seen := max((getattr(each, way).patients for each in exposures), default=0):
            said.append(f"{seen} {what}")
    if not said:
        return ""
    return f": of {exposures[0].scored.patients} test patients {', '.join(said)}"
