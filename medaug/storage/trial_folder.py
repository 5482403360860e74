"""A trial's folder: what there is to know about it on disk.

``<experiment>/trials/<key>/`` holds ``config.json``, the ledger's ``ep_000007/``, one line per
finished epoch in ``epochs.jsonl``, one per failed try in ``failures.jsonl``, where its time went in
``times.jsonl``, and at the end one of
``result.json`` (done or diverged), ``stopped.json`` (ended early by successive halving) or
``failure.json`` (tried again on resume). In the copy of a bucket, the bucket has each of them too
before anybody hears of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medaug.errors import IntegrityError
from medaug.spec import TrialConfig
from medaug.spec.legacy import is_old_trial, upgraded_trial
from medaug.spec.trial import parse_trial
from medaug.storage import storage_at
from medaug.storage.faults import storage_faults
from medaug.storage.files import private_folder
from medaug.storage.json_files import append_json, read_json, read_rows, write_json
from medaug.storage.manifest import MANIFEST
from medaug.storage.reading import read_regular
from medaug.storage.results import TrialResult, parse_result

FILES = (
    "config.json", "epochs.jsonl", "failures.jsonl", "times.jsonl",
    "result.json", "stopped.json", "failure.json",
)  # fmt: skip


@dataclass(frozen=True)
class TrialFolder:
    """The folder of the trial named ``key``. One rank writes epochs and the result."""

    experiment: Path
    key: str

    @cached_property
    def path(self) -> Path:
        return self.experiment / "trials" / self.key

    def refresh(self) -> None:
        """Bring this node's copy up to date, where the folder is one of a bucket's."""
        here = (self.path / name for name in FILES)
        storage_at(self.path).mirror(self.path, FILES.__contains__, here)

    def claim(self, config: TrialConfig) -> None:
        """Make the folder and write ``config.json`` (labels and ranks may change on resume)."""
        assert config.key == self.key
        with storage_faults(self.path):
            private_folder(self.path)
            value = config.model_dump(mode="json")
            write_json(self.path / "config.json", value, durable=False)  # rewritten by every run

    def config(self) -> TrialConfig:
        """The trial, of one of the stages.

        Raises:
            IntegrityError: its file is gone or is none of a trial.
        """
        path = self.path / "config.json"
        data = read_json(path)
        try:
            if data is not None and is_old_trial(data):
                data = upgraded_trial(data, self.key)
            config = parse_trial(data or {})
            if config.key != self.key:
                raise ValueError(f"of this name, but one that is called {config.key}")
            return config
        except (ValueError, KeyError) as why:
            remedy = f"delete {self.path} and resume the run, which makes it again"
            raise IntegrityError(
                f"{path}: describes no trial ({complaint(why)}); {remedy}"
            ) from None

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
            raise IntegrityError(f"{path}: holds no result ({complaint(why)}); {remedy}") from None

    def finish(self, result: TrialResult) -> None:
        """Record the result; from now on the trial is never run again."""
        path = self.path / "result.json"
        storage_at(path).write(path, result.model_dump_json().encode())

    def adopt(self, other: TrialFolder) -> None:
        """Take over what the same trial, finished in another experiment, has left."""
        assert other.key == self.key
        other.fetch_checkpoints()
        for checkpoint in other.path.glob("ep_*"):
            shutil.copytree(checkpoint, self.path / checkpoint.name, dirs_exist_ok=True)
            storage_at(self.path).publish(self.path / checkpoint.name, MANIFEST)
        # The result last: it says that all is here.
        for name in ("epochs.jsonl", "times.jsonl", "result.json"):
            if (content := read_regular(other.path / name)) is not None:
                storage_at(self.path).write(self.path / name, content)

    def fetch_checkpoints(self) -> None:
        """Have all of its checkpoints here."""
        storage = storage_at(self.path)
        for name in storage.whole_folders(self.path, MANIFEST):
            storage.fetch(self.path / name, MANIFEST)

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
        self._forget("failure.json", "stopped.json")

    def undo(self) -> None:
        """Forget the result: what it names is lost, and the trial runs once more."""
        self._forget("result.json")

    def _forget(self, *names: str) -> None:
        for path in (self.path / name for name in names):
            if path.exists():
                storage_at(path).remove(path)

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """Append a line to ``epochs.jsonl``; an epoch that had to be redone appears twice."""
        append_json(self.path / "epochs.jsonl", row)

    def log_failure(self, row: Mapping[str, Any]) -> None:
        """Append a line to ``failures.jsonl``: a try that failed, whatever came after it."""
        append_json(self.path / "failures.jsonl", row)

    def log_lap(self, row: Mapping[str, Any]) -> None:
        """Append a line to ``times.jsonl``: a stretch of time, and the buckets it went into."""
        append_json(self.path / "times.jsonl", row)

    def epochs(self) -> list[dict[str, Any]]:
        """The rows of ``epochs.jsonl``; torn lines are left out."""
        return read_rows(self.path / "epochs.jsonl")

    def failures(self) -> list[dict[str, Any]]:
        """The rows of ``failures.jsonl``: ``time``, ``epoch`` and the failure's own fields."""
        return read_rows(self.path / "failures.jsonl")

    def laps(self) -> list[dict[str, Any]]:
        """The rows of ``times.jsonl``: ``time`` (its end), ``sweep``, ``seconds`` by bucket, and
        ``epoch`` where one was finished."""
        return read_rows(self.path / "times.jsonl")

    def epoch(self) -> int:
        """Finished epochs, as far as ``epochs.jsonl`` knows."""
        rows = self.epochs()
        return int(rows[-1]["epoch"]) if rows else 0


def complaint(why: Exception) -> str:
    """The first complaint about a file, in a few words."""
    if isinstance(why, ValidationError):
        detail = why.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, detail['loc'])) or 'content'}: {detail['msg']}"
    return f"{why.args[0]} is missing" if isinstance(why, KeyError) else str(why)
