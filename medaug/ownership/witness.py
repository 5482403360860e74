"""What this machine has last written of a run's journal, kept beside its site key.

A journal shows that no line was changed, left out or put in; of one whose end was cut off, along
with the results of that time, nothing in the storage tells. Whoever writes the storage does not
reach this note, so on the machine that wrote the run such a roll-back is seen. It holds a number
and two hashes, no name and no path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from medaug.data.privacy import site_key_file
from medaug.errors import MedaugError
from medaug.storage.files import private_folder, write_whole
from medaug.storage.journal import Record
from medaug.storage.json_files import read_json
from medaug.storage.uri import display_uri


def note_line(folder: Path, record: Record) -> None:
    """Remember the newest line of the journal of the run in ``folder``, where there is a site key.

    A note that cannot be written is none: nothing depends on it.
    """
    if not site_key_file().exists():
        return
    path = _note_of(folder)
    body = {"first": record.seals[0], "lines": record.lines, "seal": record.seal}
    with contextlib.suppress(OSError):
        private_folder(path.parent)
        write_whole(path, json.dumps(body).encode(), durable=False)


def departure(folder: Path, record: Record | None) -> str | None:
    """How the journal of the run in ``folder`` departs from what this machine has last written of
    it, in words that go on from its name; None where it does not, or nothing is known."""
    try:
        note = read_json(_note_of(folder)) or {}
        first, lines, seal = str(note["first"]), int(note["lines"]), note["seal"]
    except (KeyError, ValueError, TypeError, MedaugError, OSError):
        return None
    if record is None:
        return "has lost its journal, which this machine has written"
    if record.seals[:1] != [first]:
        return "is another run than the one that this machine has written here"
    if record.lines < lines:
        return (
            f"its journal has {record.lines} lines, where this machine has written {lines}: it is "
            "an older copy of the run, or its end was cut off"
        )
    if record.seals[lines - 1] != seal:
        return (
            f"its journal is another one than this machine has written, from line {lines} at last"
        )
    return None


def _note_of(folder: Path) -> Path:
    key, place = site_key_file(), display_uri(folder.absolute())
    if place.startswith("/"):
        place = os.path.realpath(place)
    name = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return key.with_name(f"{key.name}.journals") / f"{name}.json"
