"""A trial's folder: what there is to know about it on disk.

``<experiment>/trials/<key>/`` holds ``config.json``, the ledger's ``ep_000007/``, one line per
finished epoch in ``epochs.jsonl``, one per failed try in ``failures.jsonl``, where its time went in
``times.jsonl``, and at the end one of
``result.json`` (done or diverged), ``stopped.json`` (ended early by successive halving) or
``failure.json`` (tried again on resume). In the copy of a bucket, the bucket has each of them too
before anybody hears of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medaug.errors import EnvironmentFault, IntegrityError
from medaug.spec import TrialConfig
from medaug.spec.legacy import is_old_trial, upgraded_trial
from medaug.spec.trial import parse_trial
from medaug.storage import bucket
from medaug.storage.results import TrialResult, parse_result

FILES = (
    "config.json", "epochs.jsonl", "failures.jsonl", "times.jsonl",
    "result.json", "stopped.json", "failure.json",
)  # fmt: skip

MANIFEST = "MANIFEST.json"
"""Of a checkpoint: the last of its files to be there."""


@dataclass(frozen=True)
class TrialFolder:
    """The folder of the trial named ``key``. One rank writes epochs and the result."""

    experiment: Path
    key: str

    @property
    def path(self) -> Path:
        return self.experiment / "trials" / self.key

    def refresh(self) -> None:
        """Bring this node's copy up to date, where the folder is one of a bucket's."""
        here = [self.path / name for name in FILES]
        bucket.mirror(self.path, FILES.__contains__, here)

    def claim(self, config: TrialConfig) -> None:
        """Make the folder and write ``config.json`` (labels and ranks may change on resume)."""
        assert config.key == self.key
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            value = config.model_dump(mode="json")
            write_json(self.path / "config.json", value, durable=False)  # rewritten by every run
        except bucket.BucketFault:
            raise
        except OSError as fault:
            raise EnvironmentFault(f"{self.path}: {fault.strerror}; check the storage") from None

    def config(self) -> TrialConfig:
        """The trial, of one of the four stages.

        Raises:
            IntegrityError: its file is gone or is none of a trial.
        """
        path = self.path / "config.json"
        data = read_json(path)
        try:
            if data is not None and is_old_trial(data):
                data = upgraded_trial(data, self.key)
            return parse_trial(data or {})
        except (ValueError, KeyError) as why:
            remedy = f"delete {self.path} and resume the run, which makes it again"
            raise IntegrityError(f"{path}: describes no trial ({_first(why)}); {remedy}") from None

    def result(self) -> TrialResult | None:
        """The result of a finished trial, else None.

        Raises:
            IntegrityError: its file is none of a result.
        """
        path = self.path / "result.json"
        data = read_json(path)
        if data is None:
            return None
        try:
            return parse_result(data)
        except (ValueError, KeyError, TypeError) as why:
            remedy = "delete it and resume the run, which runs the trial again"
            raise IntegrityError(f"{path}: holds no result ({_first(why)}); {remedy}") from None

    def finish(self, result: TrialResult) -> None:
        """Record the result; from now on the trial is never run again."""
        _write(self.path / "result.json", result.model_dump_json().encode())

    def adopt(self, other: TrialFolder) -> None:
        """Take over what the same trial, finished in another experiment, has left."""
        assert other.key == self.key
        other.fetch_checkpoints()
        for checkpoint in other.path.glob("ep_*"):
            shutil.copytree(checkpoint, self.path / checkpoint.name, dirs_exist_ok=True)
            bucket.send_folder(self.path / checkpoint.name, MANIFEST)
        # The result last: it says that all is here.
        for name in ("epochs.jsonl", "times.jsonl", "result.json"):
            if (content := _content(other.path / name)) is not None:
                _write(self.path / name, content)

    def fetch_checkpoints(self) -> None:
        """Have all of its checkpoints in this node's copy, where it is one of a bucket's."""
        if bucket.is_remote(self.path):
            for name in bucket.folders(self.path):
                bucket.fetch_folder(self.path / name, MANIFEST)

    def stopped(self) -> dict[str, Any] | None:
        return read_json(self.path / "stopped.json")

    def stop(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record that successive halving ended the trial after ``epoch``."""
        write_json(self.path / "stopped.json", {"epoch": epoch, "metrics": dict(metrics)})

    def fail(self, failure: Mapping[str, Any]) -> None:
        """Keep class, message and traceback of what ended the trial."""
        write_json(self.path / "failure.json", failure)

    def failure(self) -> dict[str, Any] | None:
        """What ended the trial the last time, else None."""
        return read_json(self.path / "failure.json")

    def reopen(self) -> None:
        """Forget an earlier failure or early stop: the trial runs on."""
        for path in (self.path / "failure.json", self.path / "stopped.json"):
            if path.exists():
                path.unlink()
                if bucket.is_remote(path):
                    bucket.remove(path)

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """Append a line to ``epochs.jsonl``; an epoch that had to be redone appears twice."""
        _append(self.path / "epochs.jsonl", row)

    def log_failure(self, row: Mapping[str, Any]) -> None:
        """Append a line to ``failures.jsonl``: a try that failed, whatever came after it."""
        _append(self.path / "failures.jsonl", row)

    def log_lap(self, row: Mapping[str, Any]) -> None:
        """Append a line to ``times.jsonl``: a stretch of time, and the buckets it went into."""
        _append(self.path / "times.jsonl", row)

    def epochs(self) -> list[dict[str, Any]]:
        """The rows of ``epochs.jsonl``; torn lines are left out."""
        return _rows(self.path / "epochs.jsonl")

    def failures(self) -> list[dict[str, Any]]:
        """The rows of ``failures.jsonl``: ``time``, ``epoch`` and the failure's own fields."""
        return _rows(self.path / "failures.jsonl")

    def laps(self) -> list[dict[str, Any]]:
        """The rows of ``times.jsonl``: ``time`` (its end), ``sweep``, ``seconds`` by bucket, and
        ``epoch`` where one was finished."""
        return _rows(self.path / "times.jsonl")

    def epoch(self) -> int:
        """Finished epochs, as far as ``epochs.jsonl`` knows."""
        rows = self.epochs()
        return int(rows[-1]["epoch"]) if rows else 0


def _first(why: Exception) -> str:
    """The first complaint about a file, in a few words."""
    if isinstance(why, ValidationError):
        detail = why.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, detail['loc'])) or 'content'}: {detail['msg']}"
    return f"{why.args[0]} is missing" if isinstance(why, KeyError) else str(why)


def write_json(path: Path, value: Mapping[str, Any], *, durable: bool = True) -> None:
    """Write ``value``: readers see the old content or the new, never a part.

    ``durable``: also after a power cut. It takes two syncs of the disk, some 10 ms.
    """
    _write(path, json.dumps(value, indent=1).encode(), durable=durable)


def _write(path: Path, content: bytes, *, durable: bool = True) -> None:
    with bucket.synced_write(path):
        _write_here(path, content, durable)


def _write_here(path: Path, content: bytes, durable: bool) -> None:
    temporary = path.with_name(f".tmp_{path.name}_{uuid.uuid4().hex[:8]}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if not durable:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _append(path: Path, row: Mapping[str, Any]) -> None:
    with (
        bucket.synced_write(path),
        open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb+") as file,
    ):
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        torn = end > 0 and file.read(1) != b"\n"  # a writer was killed in the middle of a line
        file.seek(end)
        file.write((b"\n" if torn else b"") + json.dumps(row).encode() + b"\n")


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in (_content(path) or b"").splitlines():
        with contextlib.suppress(ValueError):  # torn by a kill
            rows.append(json.loads(line))
    return rows


def read_json(path: Path) -> dict[str, Any] | None:
    """What :func:`write_json` wrote, or None where there is nothing.

    Raises:
        IntegrityError: it is not whole.
    """
    if (content := _content(path)) is None:
        return None
    try:
        return json.loads(content)
    except ValueError:
        raise IntegrityError(f"{path}: is not whole; delete it and resume the run") from None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
