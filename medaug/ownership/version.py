"""Which versions of medaug worked on an experiment, and whether this one may go on with it."""

from __future__ import annotations

import logging
from importlib import metadata
from pathlib import Path

from medaug.errors import UserError
from medaug.storage.faults import storage_faults
from medaug.storage.trial_folder import read_json, write_json

log = logging.getLogger(__name__)

NOTE = "version.json"


def note_version(experiment: Path, *, allow_skew: bool = False) -> None:
    """Write this version into ``experiment``, if it may go on there.

    Versions that differ in their last number only may mix, with a warning; others with
    ``allow_skew`` only. A checkpoint whose format this version cannot read, the ledger refuses
    whatever is allowed here.

    Raises:
        UserError: another version has begun the experiment.
        EnvironmentFault: the storage cannot be read or written.
    """
    now = metadata.version("medaug")
    with storage_faults(experiment):
        note = read_json(experiment / NOTE) or {"medaug": now, "then": []}
        first, then = note["medaug"], note.get("then", [])
        if now != first:
            _judge(experiment.name, first, now, allow_skew)
        if now not in (first, *then):
            then = [*then, now]
        if note != (noted := {"medaug": first, "then": then}) or not (experiment / NOTE).exists():
            write_json(experiment / NOTE, noted)


def _judge(name: str, first: str, now: str, allow_skew: bool) -> None:
    begun = f"experiment {name} was begun with medaug {first}, this is {now}"
    if not (allow_skew or _series(first) == _series(now)):
        raise UserError(
            f"{begun}, whose results may differ: go on with medaug {first}, run it anew under "
            "another --name, or mix them knowingly (medaug resume --allow-version-skew)"
        )
    log.warning(
        "%s: finished trials are kept, the others go on; to compare like with like, run it anew "
        "under another --name",
        begun,
    )


def _series(version: str) -> list[str]:
    """What has to be equal: ``0.1`` of ``0.1.2``."""
    return version.split(".")[:2]
