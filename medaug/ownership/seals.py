"""Is a run what it has written? Who wrote it seals it; who reads it looks first."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medaug.data.privacy import seal_key
from medaug.errors import IntegrityError
from medaug.ownership.unsealed import OF_RESULTS, unsealed_results
from medaug.ownership.witness import departure, note_line
from medaug.storage.faults import storage_faults
from medaug.storage.journal import (
    JOURNAL,
    Journal,
    Record,
    check_files,
    check_made,
    read_journal,
)
from medaug.storage.json_files import read_json
from medaug.storage.manifest import MANIFEST

log = logging.getLogger(__name__)

OF_THE_RUN = ("study.json", "data.json", "leakage.json", "unsealed.json", "unsealed.log")
"""Files by a run's ``study.json`` that numbers or their meaning depend on."""
OF_A_TRIAL = ("config.json", "result.json", "epochs.jsonl")
OF_BUNDLES = ("bundles/*/part-*.jsonl", "bundles/*/trials.json")
SLICES = "stores/slices-"
"""What a leaderboard reads beside the run's own files: covariates."""
FIRST_SEALED = (0, 2)
FLUSH_S = 5.0


@dataclass(frozen=True)
class Sealing:
    """What vouches for a run."""

    record: Record | None
    """None: nothing, it was made before version 0.2."""
    gone: tuple[str, ...] = ()
    """Files that the journal knows and nobody finds."""
    results: int = 0
    loose: int = 0
    """Results that the journal does not know yet."""
    departure: str | None = None
    """How it departs from what this machine has last written of the run."""

    def remarks(self, name: str) -> list[str]:
        """What a reader of the run ``name`` should know; a line each, none when all is well."""
        said = [f"{name}: {self.departure}"] if self.departure else []
        if self.record is None:
            said.append(
                f"{name}: is unsealed (made by a medaug before 0.2), nothing vouches for it"
            )
            return said
        if self.gone:
            said.append(
                f"{name}: {len(self.gone)} files are missing, the first is {self.gone[0]}; "
                f"`medaug resume {name}` runs again what has no result"
            )
        if self.loose:
            said.append(
                f"{name}: {self.loose} of {self.results} results are not sealed yet; "
                f"`medaug resume {name}` seals what is there"
            )
        if self.record.foreign:
            which = "another site's key" if seal_key() else "a site's key that is not here"
            said.append(f"{name}: was sealed with {which}, which cannot be checked here")
        elif seal_key() is not None and self.record.keyed < self.record.lines:
            n = self.record.lines - self.record.keyed
            said.append(
                f"{name}: {n} of {self.record.lines} lines of its journal were sealed without this "
                "site's key"
            )
        return said


def open_journal(folder: Path) -> Journal:
    """The journal of the run in ``folder``, to be written under this machine's key."""
    older = not (folder / JOURNAL).exists() and _has_results(folder)
    return Journal(folder, seal_key(), older=older, on_line=lambda line: note_line(folder, line))


def check_run(folder: Path, *, made: bool = False) -> Sealing:
    """Compare all that the journal of the run in ``folder`` vouches for.

    ``made``: also which stores and models are the ones that it has made, for whoever computes
    with them.

    Raises:
        IntegrityError: a file, or the journal, is not what the run has written.
    """
    record = read_journal(folder, seal_key())
    if record is None:
        _refuse_without_journal(folder)
        return Sealing(None, departure=departure(folder, None) if _has_results(folder) else None)
    _refuse_another_name(folder)
    gone = check_files(folder, record)
    check_made(folder, record, "" if made else SLICES)
    loose = unsealed_results(folder, record)
    n = sum(1 for pattern in OF_RESULTS for _ in folder.glob(pattern))
    return Sealing(record, tuple(gone), n, len(loose), departure(folder, record))


def vouched(trial: Path) -> bool:
    """Whether the run that a finished trial belongs to has written what is there now.

    Where this machine has a site's key, that run has to have sealed it; what was never sealed, or
    has been changed, is left alone with a line, and whoever wants it runs the trial itself.
    """
    return _are_vouched(trial.parents[1], f"trials/{trial.name}", [trial / "result.json"])


def vouched_bundles(run: Path) -> bool:
    """The same of all trials that ``run`` has in bundles."""
    files = [path for pattern in OF_BUNDLES for path in run.glob(pattern)]
    return _are_vouched(run, "bundles", files)


def _are_vouched(run: Path, below: str, wanted: Iterable[Path]) -> bool:
    try:
        own = _files_by_folder(run).get(below, Record())
        gone = check_files(run, own)
    except IntegrityError as damage:
        log.warning("%s; not taken over from there", damage)
        return False
    names = [path.relative_to(run).as_posix() for path in wanted]
    loose = [name for name in names if name not in own.files] + sorted(own.unkeyed)
    if loose and seal_key() is not None:
        log.warning(
            "%s: run %s has not sealed it with this site's key; not taken over",
            run / loose[0],
            run.name,
        )
        return False
    return not gone


def _files_by_folder(run: Path) -> dict[str, Record]:
    """What the journal of ``run`` vouches for; read once while it does not change."""
    path = run / JOURNAL
    version = path.stat() if path.exists() else None
    return _read_by_folder(run, (version.st_size, version.st_mtime_ns) if version else None)


@functools.lru_cache(maxsize=64)
def _read_by_folder(run: Path, version: tuple[int, int] | None) -> dict[str, Record]:
    record = read_journal(run, seal_key()) or Record()
    found: dict[str, Record] = {}
    for name, sha256 in record.files.items():
        parts = name.split("/")
        below = "/".join(parts[:2]) if parts[0] == "trials" else parts[0]
        part = found.setdefault(below, Record())
        part.files[name] = sha256
        if name in record.unkeyed:
            part.unkeyed.add(name)
    return found


def planned(folder: Path) -> set[str]:
    """Keys of all trials that the run was to make, as far as its journal says."""
    record = read_journal(folder)
    return record.planned if record else set()


class RunSeals:
    """Seals what a sweep's trials leave, while it runs.

    A listener of the sweep that only keeps what it is told; its main thread writes it down, now and
    then, and hears of it when the storage fails.
    """

    def __init__(self, experiment: Path) -> None:
        self._experiment = experiment
        self._journal = open_journal(experiment)
        self._ends: dict[str, str] = {}
        self._lock = threading.Lock()
        self._due = 0.0

    def on_trial_end(self, outcome: Any) -> None:
        """Called by the sweep's controller; ``outcome`` has ``key`` and ``status``."""
        with self._lock:
            self._ends[outcome.key] = outcome.status

    def heed(self, *args: Any) -> None:
        """Of all other events nothing is kept."""

    on_wave_start = on_trial_start = on_bundle_start = on_bundle_end = heed
    on_place = on_epoch = on_wave_end = heed

    def flush_when_due(self) -> None:
        """:meth:`flush` if some seconds have passed: more of them where it takes long."""
        if time.monotonic() >= self._due:
            started = time.monotonic()
            self.flush()
            ended = time.monotonic()
            self._due = ended + max(FLUSH_S, 20 * (ended - started))

    def made(self, manifest: Path) -> None:
        """The run stands on this store, as it was when the run first saw it."""
        name = manifest.relative_to(self._experiment.parent).as_posix()
        if name not in self._journal.record.made:
            self._journal.seal_made(manifest)

    def plan(self, keys: Iterable[str]) -> None:
        """A wave of these trials comes: before anything of theirs is in the run's folder."""
        with storage_faults(self._experiment):
            self._journal.plan(keys)
            self.flush()

    def begin(self, ended: Mapping[str, str], todo: Iterable[str]) -> None:
        """The wave begins: trials of ``ended`` have been found as they are."""
        with storage_faults(self._experiment):
            self._journal.reopen(todo)
            self._note({k: s for k, s in ended.items() if not self._is_sealed(k)})
            self.flush()

    def _is_sealed(self, key: str) -> bool:
        """Whether the journal knows how the trial ended, with its result if it has one of its
        own."""
        record, name = self._journal.record, f"trials/{key}/result.json"
        known = name in record.files or not (self._experiment / name).exists()
        return key in record.ended and known

    def _note(self, ends: Mapping[str, str]) -> None:
        """Trials have ended; whoever has a result is sealed with it."""
        if ends:
            self._journal.ended(ends)
        for key in ends:
            folder = self._experiment / "trials" / key
            if (folder / "result.json").exists():
                self._journal.seal(*(folder / name for name in OF_A_TRIAL))
                self._journal.seal(*folder.glob(f"ep_*/{MANIFEST}"))
                self._journal.seal_made(*_manifests(folder))

    def flush(self) -> None:
        """Write all that is new. Raises EnvironmentFault when the storage does not take it."""
        with self._lock:
            ends, self._ends = self._ends, {}
        with storage_faults(self._experiment):
            self._note(ends)
            self._journal.seal(*(self._experiment / name for name in OF_THE_RUN))
            known = self._journal.record.files
            for path in (p for pattern in OF_BUNDLES for p in self._experiment.glob(pattern)):
                name = path.relative_to(self._experiment).as_posix()
                if path.suffix == ".json" or name not in known:  # a part is written once
                    self._journal.seal(path)
            self._journal.flush()


def _manifests(trial: Path) -> list[Path]:
    """Of the stores and models that a trial has made."""
    storage = trial.parents[2]
    result = read_json(trial / "result.json") or {}
    names = [result[role] for role in ("output", "generator") if isinstance(result.get(role), str)]
    found = [storage / "stores" / name / "manifest.json" for name in names]
    return found + [storage / "models" / name / MANIFEST for name in names]


def _refuse_without_journal(folder: Path) -> None:
    """A run that says it was begun by a medaug that seals has lost its journal."""
    note = read_json(folder / "version.json") or {}
    try:
        begun = tuple(int(part) for part in str(note["medaug"]).split(".")[:2])
    except (KeyError, ValueError):
        return
    if begun >= FIRST_SEALED and _has_results(folder):
        raise IntegrityError(
            f"{folder / JOURNAL}: missing, though medaug {note['medaug']} began this run; restore "
            f"it from a backup, or delete {folder / 'trials'} and `medaug resume {folder.name}`, "
            "which runs its trials again"
        )


def _refuse_another_name(folder: Path) -> None:
    """A whole run in another's place has all its seals; its study says whose it is."""
    study = read_json(folder / "study.json") or {}
    if (name := study.get("name")) is not None and name != folder.name:
        raise IntegrityError(
            f"{folder / 'study.json'}: is of the run {str(name)[:64]!r}, not of {folder.name!r}; "
            f"call the folder what the run is called"
        )


def _has_results(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in OF_RESULTS)
