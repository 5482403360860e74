"""A run's journal: what was planned, how each trial ended, and the hash of every file behind a
number.

``<run>/journal.jsonl`` only grows. Each line is canonical JSON sealed like a manifest, and carries
the seal of the line before: none can be changed, left out or put in between. Where the writer has a
site's key, a line also carries an HMAC under it, so that whoever can write the storage but has not
the key cannot make one. One line may stand for thousands of trials: it is written, and synced,
when it is time, not when a trial ends.

What can be read of it:
``plan`` keys of trials that are to run; ``ended`` how trials ended, by key; ``reopened`` keys of
trials that run once more, whose files are no longer vouched for; ``files`` SHA-256 by path below
the run's folder; ``made`` SHA-256 of manifests by path below the storage; ``older`` that there were
results before the first line.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medaug.errors import IntegrityError
from medaug.storage import storage_at
from medaug.storage.locks import one_at_a_time
from medaug.storage.manifest import canonical, parse_sealed, sealed
from medaug.storage.reading import read_regular

JOURNAL = "journal.jsonl"
_REMEDY = "restore it from a backup, or run the study again under another --name"


@dataclass
class Record:
    """What a journal says, all lines together."""

    seals: list[str] = field(default_factory=list)
    """Of each line."""
    older: bool = False
    """There were results before there was a journal: a medaug before 0.2 has made them."""
    keyed: int = 0
    """Lines whose HMAC was made with the key at hand."""
    foreign: int = 0
    """Lines with the HMAC of another key, which cannot be checked here."""
    planned: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    unkeyed: set[str] = field(default_factory=set)
    """Those of ``files`` whose line has no HMAC of the key at hand."""
    made: dict[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> int:
        return len(self.seals)

    @property
    def seal(self) -> str:
        """Of the last line."""
        return self.seals[-1] if self.seals else ""

    def add(self, body: Mapping[str, Any], seal: str, *, keyed: bool) -> None:
        """Take in one line; ``keyed``: its HMAC is of the key at hand."""
        self.seals.append(seal)
        self.older |= body.get("older", False)
        self.planned.update(body.get("plan", ()))
        for key in body.get("reopened", ()):
            self.ended.pop(key, None)
            below = f"trials/{key}/"
            self.files = {n: sha256 for n, sha256 in self.files.items() if not n.startswith(below)}
        self.ended.update(body.get("ended", {}))
        self.files.update(body.get("files", {}))
        self.keyed += keyed
        if keyed:
            self.unkeyed.difference_update(body.get("files", {}))
        else:
            self.unkeyed.update(body.get("files", {}))
        self.made.update(body.get("made", {}))


def read_journal(folder: Path, key: bytes | None = None) -> Record | None:
    """The journal of the run in ``folder``, every seal checked; None where there is none.

    A last line that is not whole is what a killed writer leaves: it has not happened.

    Raises:
        IntegrityError: a line is not what was written, or does not follow the one before.
    """
    content = read_regular(folder / JOURNAL)
    if content is None:
        return None
    record = Record()
    for body, seal, keyed in _bodies(content, folder / JOURNAL, record, key):
        record.add(body, seal, keyed=keyed)
    return record


def _bodies(
    content: bytes, path: Path, record: Record, key: bytes | None
) -> Iterator[tuple[dict[str, Any], str, bool]]:
    """(line, its seal, whether it was written with ``key``) of each; ``record`` has those before
    it, and counts the lines of other keys."""
    whole, _, _torn = content.rpartition(b"\n")
    for number, line in enumerate(whole.splitlines(), start=1):
        name = f"{path} line {number}"
        try:
            body = parse_sealed(line, name)
        except IntegrityError as damage:
            raise IntegrityError(f"{damage}; {_REMEDY}") from None
        if body.get("before") != record.seal or not _is_well_formed(body):
            raise IntegrityError(f"{name}: does not follow the line before it; {_REMEDY}")
        mac, of = body.pop("mac", None), body.get("key")
        keyed = of is not None and key is not None and of == key_name(key)
        if keyed:
            assert key is not None
            if not hmac.compare_digest(str(mac), _mac(body, key)):
                raise IntegrityError(f"{name}: was not written with this site's key; {_REMEDY}")
        elif of is not None:
            record.foreign += 1
        yield body, hashlib.sha256(line).hexdigest(), keyed


class Journal:
    """Collects what is to be said of a run, and appends it when asked to; one writer a run.

    ``older``: a new journal says that the run has results from before. ``on_line`` is called with
    the record after each line.
    """

    def __init__(
        self,
        folder: Path,
        key: bytes | None = None,
        *,
        older: bool = False,
        on_line: Callable[[Record], None] = lambda record: None,
    ) -> None:
        self._folder = folder
        self._key = key
        self._older = older
        self._on_line = on_line
        self._lines: dict[str, Any] = {}
        self._pending: dict[str, Path] = {}
        self._made: dict[str, Path] = {}
        self._record: Record | None = None

    @property
    def record(self) -> Record:
        """What is written; raises IntegrityError as :func:`read_journal`."""
        if self._record is None:
            self._record = read_journal(self._folder, self._key) or Record()
        return self._record

    def plan(self, keys: Iterable[str]) -> None:
        """These trials are to run, or have ended already."""
        if new := sorted(set(keys) - self.record.planned):
            self._lines["plan"] = sorted({*self._lines.get("plan", ()), *new})

    def reopen(self, keys: Iterable[str]) -> None:
        """These trials run once more: their files will change."""
        ended = self.record.ended
        if again := sorted(key for key in keys if key in ended):
            self._lines["reopened"] = again
            self.flush()

    def ended(self, ends: Mapping[str, str]) -> None:
        """How trials ended."""
        self._lines.setdefault("ended", {}).update(ends)

    def seal(self, *paths: Path) -> None:
        """Vouch for what these files of the run hold when the line is written."""
        for path in paths:
            self._pending[path.relative_to(self._folder).as_posix()] = path

    def seal_made(self, *manifests: Path) -> None:
        """The same for manifests of stores and models."""
        for path in manifests:
            self._made[path.relative_to(self._folder.parent).as_posix()] = path

    def flush(self) -> None:
        """Append a line with all that is new, if there is any; durably. Raises OSError."""
        files = _new(self._pending, self.record.files)
        made = _new(self._made, self.record.made)
        body = self._lines | ({"files": files} if files else {}) | ({"made": made} if made else {})
        if body:
            with one_at_a_time(self._folder / f".{JOURNAL}.lock"):
                self._append(body)
        self._lines, self._pending, self._made = {}, {}, {}

    def _append(self, body: Mapping[str, Any]) -> None:
        path = self._folder / JOURNAL
        content = read_regular(path) or b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # a writer was killed in the middle of a line
            storage_at(path).write(path, whole)
        if _seal(whole) != self.record.seal:  # another has written meanwhile
            self._record = read_journal(self._folder, self._key)
        record = self.record
        body = {"n": record.lines + 1, "before": record.seal, "time": round(time.time(), 3), **body}
        if self._older and not record.lines:
            body["older"] = True
        if self._key is not None:
            body["key"] = key_name(self._key)
            body["mac"] = _mac(body, self._key)
        line = sealed(body)
        storage_at(path).append(path, line, durable=True)
        record.add(body, hashlib.sha256(line).hexdigest(), keyed=self._key is not None)
        self._on_line(record)


def _seal(whole: bytes) -> str:
    """That of the last line."""
    return hashlib.sha256(whole[:-1].rpartition(b"\n")[2]).hexdigest() if whole else ""


def check_files(folder: Path, record: Record) -> list[str]:
    """Compare all files that the journal vouches for; those that are gone.

    Raises:
        IntegrityError: one has changed; says what ``resume`` will do about it.
    """
    gone = []
    at = storage_at(folder)
    for name, sha256 in record.files.items():
        try:
            content = read_regular(folder / name)
        except IntegrityError as damage:
            raise IntegrityError(f"{damage}; {_remedy(folder, name)}") from None
        if content is None and not at.nodes_see_files:  # it comes here only where it is used
            content = at.read(folder / name)
        if content is None:
            gone.append(name)
        elif hashlib.sha256(content).hexdigest() != sha256:
            raise IntegrityError(
                f"{folder / name}: is not what this run has written; {_remedy(folder, name)}"
            )
    return gone


def check_made(folder: Path, record: Record, begins: str = "") -> None:
    """Compare the manifests of the stores and models that the journal vouches for and that are
    there, those whose name begins so; what a manifest vouches for is compared where it is read.

    Raises:
        IntegrityError: one is not what the run has made.
    """
    for name, sha256 in record.made.items():
        if not name.startswith(begins):
            continue
        path = folder.parent / name
        content = storage_at(path).read(path)
        if content is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise IntegrityError(f"{path}: is not what this run has made; {_REMEDY}")


def key_name(key: bytes) -> str:
    """Tells one key from another, and nothing about it."""
    return hmac.new(key, b"medaug journal key", hashlib.sha256).hexdigest()[:12]


def _mac(body: Mapping[str, Any], key: bytes) -> str:
    return hmac.new(key, canonical(body), hashlib.sha256).hexdigest()


def _new(paths: Mapping[str, Path], known: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of those that are there and not written down so."""
    found = {}
    for name, path in paths.items():
        content = storage_at(path).read(path)
        if content is not None:
            sha256 = hashlib.sha256(content).hexdigest()
            if known.get(name) != sha256:
                found[name] = sha256
    return found


def _remedy(folder: Path, name: str) -> str:
    parts = name.split("/")
    if parts[0] == "trials" and len(parts) > 2:
        trial = folder / parts[0] / parts[1]
        return f"delete {trial} and `medaug resume {folder.name}`, which runs that trial again"
    if parts[0] == "bundles" and len(parts) > 2:
        return f"delete it and `medaug resume {folder.name}`, which runs its trials again"
    if name == "leakage.json":
        return f"delete it and `medaug resume {folder.name}`, which looks for copies again"
    return _REMEDY


def _is_well_formed(body: Mapping[str, Any]) -> bool:
    lists = all(
        isinstance(body.get(name, []), list) and all(isinstance(k, str) for k in body.get(name, []))
        for name in ("plan", "reopened")
    )
    tables = (body.get(name, {}) for name in ("ended", "files", "made"))
    flags = isinstance(body.get("older", False), bool)
    return (
        lists
        and flags
        and all(
            isinstance(table, dict) and all(isinstance(v, str) for v in table.values())
            for table in tables
        )
    )
