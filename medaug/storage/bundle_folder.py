"""The folder of many short trials that are run one after the other by the same ranks.

``<experiment>/bundles/<key>/`` holds ``trials.json``, the configurations of its trials, and
``part-*.jsonl``: the results of those that ended since the part before. A part is written once, as
a whole, and begins with the keys in it and the hash of the rest, so a thousand trials cost some
tens of durable writes, and which of them have ended is known without reading their results. What a
trial's folder has beside that (tries, times, the end of the whole) is here of the bundle.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medaug.errors import IntegrityError
from medaug.spec import TrialConfig, signature
from medaug.spec.trial import parse_trial
from medaug.storage import storage_at
from medaug.storage.faults import storage_faults
from medaug.storage.files import private_folder
from medaug.storage.json_files import read_json, write_json
from medaug.storage.reading import read_first_line, read_regular
from medaug.storage.results import TrialResult, parse_result
from medaug.storage.trial_folder import FILES, TrialFolder, complaint

TRIALS = "trials.json"


@dataclass(frozen=True)
class Member:
    """How one trial of a bundle ended."""

    key: str
    result: TrialResult | None
    """None: it failed."""
    seconds: float
    """That it took, by itself."""
    time: float
    """When it ended, in seconds since 1970."""
    failure: Mapping[str, Any] | None = None
    """As in ``failure.json``; a trial that failed is tried again on resume."""


def bundle_key(trials: Iterable[TrialConfig]) -> str:
    """Twelve hex digits: the signature of the keys of a bundle's trials."""
    return signature({"trials": [trial.key for trial in trials]})


@dataclass(frozen=True)
class BundleFolder(TrialFolder):
    """The folder of the bundle named ``key``. One rank writes."""

    @cached_property
    def path(self) -> Path:
        return self.experiment / "bundles" / self.key

    def refresh(self) -> None:
        here = (self.path / name for name in (*FILES, TRIALS))
        storage_at(self.path).mirror(self.path, _is_record, here)

    def claim_all(self, trials: Sequence[TrialConfig]) -> None:
        """Make the folder and write down what belongs to the bundle.

        Raises:
            EnvironmentFault: the storage does not take it.
        """
        values = [trial.model_dump(mode="json") for trial in trials]
        with storage_faults(self.path):
            private_folder(self.path)
            self.reopen()
            write_json(self.path / TRIALS, {"trials": values}, durable=False)

    def reopen(self) -> None:
        """Forget that the bundle came to its end: some of its trials run again."""
        self._forget("failure.json", "result.json")

    def trials(self) -> list[TrialConfig]:
        """The configurations of its trials, in the order in which they are run."""
        path = self.path / TRIALS
        data = read_json(path) or {"trials": []}
        try:
            return [parse_trial(value) for value in data["trials"]]
        except (ValueError, KeyError, TypeError, RecursionError) as why:
            remedy = f"delete {self.path} and resume the run, which makes them again"
            raise IntegrityError(
                f"{path}: describes no trials ({complaint(why)}); {remedy}"
            ) from None

    def result(self) -> TrialResult | None:
        """That the bundle came to its end, else None; its trials' results are its members'."""
        data = read_json(self.path / "result.json")
        return TrialResult.model_validate(data) if data else None

    def commit(self, members: Sequence[Member]) -> None:
        """Write down how these trials ended, durably and all at once."""
        if not members:
            return
        body = b"".join(map(_line, members))
        head = {
            "ended": [member.key for member in members if member.result is not None],
            "failed": [member.key for member in members if member.result is None],
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        numbers = [_number(path) for path in self.parts()]
        path = self.path / f"part-{max(numbers, default=0) + 1:06d}.jsonl"
        storage_at(path).write(path, json.dumps(head).encode() + b"\n" + body)

    def parts(self) -> list[Path]:
        """The parts written so far, oldest first."""
        return sorted(self.path.glob("part-*.jsonl"))

    def ended(self) -> set[str]:
        """Keys of its trials that have a result."""
        return {key for part in self.parts() for key in _head(part)["ended"]}


class Bundled:
    """All trials of ``experiment`` that are kept in bundles, looked up by key.

    Raises:
        IntegrityError: a part is not what was written; names it.
    """

    def __init__(self, experiment: Path) -> None:
        self._experiment = experiment
        ended: dict[str, Path] = {}
        failed: dict[str, Path] = {}
        for folder in self._folders():
            for part in folder.parts():
                head = _head(part)
                ended |= dict.fromkeys(head["ended"], part)
                failed |= dict.fromkeys(head["failed"], part)
        self._part_of = failed | ended
        self._ended = ended.keys()

    def ended(self, key: str) -> bool:
        """Whether the trial has a result."""
        return key in self._ended

    def members(self, keys: Iterable[str]) -> dict[str, Member]:
        """How those of the trials ended that are in a bundle and did; each part is read once."""
        by_part: dict[Path, list[str]] = defaultdict(list)
        for key in keys:
            if key in self._part_of:
                by_part[self._part_of[key]].append(key)
        found: dict[str, Member] = {}
        for part, its_keys in by_part.items():
            members = {member.key: member for member in read_part(part)}
            found |= {key: members[key] for key in its_keys}
        return found

    def trials(self) -> dict[str, TrialConfig]:
        """Every trial of a bundle by its key, ended or not."""
        return {trial.key: trial for folder in self._folders() for trial in folder.trials()}

    def _folders(self) -> list[BundleFolder]:
        paths = sorted((self._experiment / "bundles").glob(f"*/{TRIALS}"))
        return [BundleFolder(self._experiment, path.parent.name) for path in paths]


def keys_of_part(path: Path, *, failed: bool = True) -> list[str]:
    """Keys of the trials in this part, in no order; those that failed only if wanted.

    Raises:
        IntegrityError: it is not what was written.
    """
    head = _head(path)
    return [*head["ended"], *(head["failed"] if failed else ())]


def read_part(path: Path) -> list[Member]:
    """How the trials in this part ended.

    Raises:
        IntegrityError: it is not what was written.
    """
    head, _, body = (read_regular(path) or b"").partition(b"\n")
    try:
        if json.loads(head)["sha256"] == hashlib.sha256(body).hexdigest():
            return [_member(json.loads(line)) for line in body.splitlines()]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise _damaged(path)


def _line(member: Member) -> bytes:
    result = member.result.model_dump(mode="json") if member.result else None
    return json.dumps({**vars(member), "result": result}).encode() + b"\n"


def _member(data: dict[str, Any]) -> Member:
    result = parse_result(data["result"]) if data["result"] else None
    return Member(**{**data, "result": result})


def _head(path: Path) -> dict[str, Any]:
    line = read_first_line(path)
    try:
        head = json.loads(line)
        return {"ended": list(head["ended"]), "failed": list(head["failed"])}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(path) from None


def _damaged(path: Path) -> IntegrityError:
    return IntegrityError(f"{path}: is not what was written; delete it and resume the run")


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("part-"))


def _is_record(name: str) -> bool:
    return name in (*FILES, TRIALS) or (name.startswith("part-") and name.endswith(".jsonl"))
