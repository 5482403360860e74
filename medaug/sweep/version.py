"""Which version of medaug began an experiment, and whether this one may go on with it."""

from __future__ import annotations

import logging
from importlib import metadata
from pathlib import Path

from medaug.errors import EnvironmentFault
from medaug.trial_folder import read_json, write_json

log = logging.getLogger(__name__)

NOTE = "version.json"


def note_version(experiment: Path) -> None:
    """Write this version into ``experiment``; warn if another one has begun it.

    A checkpoint whose format another version cannot read is refused by the ledger; what is left
    to warn of are results that differ because the code does.
    """
    now = metadata.version("medaug")
    try:
        note = read_json(experiment / NOTE)
        if note is None:
            write_json(experiment / NOTE, {"medaug": now})
    except EnvironmentFault:
        raise
    except OSError as fault:
        raise EnvironmentFault(f"{experiment}: {fault.strerror}; check the storage") from None
    if note is not None and note["medaug"] != now:
        log.warning(
            "experiment %s was begun with medaug %s, this is %s: finished trials are kept, the "
            "others go on; to compare like with like, run it anew under another --name",
            experiment.name,
            note["medaug"],
            now,
        )
