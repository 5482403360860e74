"""A run's folder as MLflow shows it: one run for the sweep, one for each of its trials for ever.

The folder is the truth. Telling MLflow about a trial means to compare the two and to send what is
missing, so it may be done at any time, any number of times, and after any accident.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medaug.results.goodput import BUCKETS, Spent, spent_by
from medaug.results.records import TrialRecord, read_trial
from medaug.spec import ClassifyTrial, DrawTrial, GenerateTrial, StudySpec
from medaug.storage.files import write_whole
from medaug.tracking import uri as place
from medaug.tracking.configurations import Configurations, send_configurations
from medaug.tracking.params import finite, study_params, trial_params
from medaug.tracking.runs import Point, Run, Runs

RESULTS = ("done", "diverged")
"""Ends of a trial that nothing follows."""

STATUS = {
    "running": "RUNNING",
    "done": "FINISHED",
    "diverged": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
"""Of a trial or a sweep, in MLflow's words. A trial that successive halving stopped has done what
was asked of it; one that diverged has a result."""

NOTE = "mlflow.json"
"""In a trial's folder: where its MLflow run is. In the sweep's folder: how the sweep ended."""


@dataclass(frozen=True)
class Sent:
    """What a trial's note says: its MLflow run, the sweep's, and the last status sent."""

    run_id: str
    parent: str
    status: str


class Mirror:
    """Brings MLflow up to date with ``folder``. For one thread; imports MLflow on first use."""

    def __init__(self, study: StudySpec, folder: Path) -> None:
        self.study = study
        self.folder = folder
        self.uri = place.tracking_uri(study, folder.parent)
        self._inode: int | None = None
        # Asked for when they are wanted. Not by cached_property, whose lock is one for all mirrors
        # in Python 3.11: a run whose server hangs would hold up the others.
        self._runs: Runs | None = None
        self._parent: Run | None = None
        self._configurations = Configurations(folder)
        self._trials: dict[str, Run] = {}
        """Of those that are running."""

    def forget(self) -> None:
        """Trust nothing that was learnt from MLflow: a call has failed, and may have had effect."""
        self._trials.clear()
        self._runs = self._parent = None
        self._configurations = Configurations(self.folder)

    def look(self) -> bool:
        """Whether the database is another file than the one that was told of this run, or gone.

        If so, all that was learnt from it is forgotten.
        """
        if self._inode is None or place.inode(self.uri) == self._inode:
            return False
        self.forget()
        self._inode = None
        return True

    @property
    def runs(self) -> Runs:
        if self._runs is None:
            self._runs = self._find_runs()
        return self._runs

    def _find_runs(self) -> Runs:
        storage, artifacts = self.folder.parent, None
        if self.uri == place.database_uri(storage):
            place.private_database(storage)
            artifacts = place.artifact_folder(storage).as_uri()
        before = place.inode(self.uri)
        runs = Runs(place.as_it_is(self.uri), place.PREFIX + self.folder.name, artifacts)
        self._inode = before or place.inode(self.uri)
        return runs

    @property
    def parent(self) -> Run:
        """The sweep's run."""
        if self._parent is None:
            self._parent = self._open_parent()
        return self._parent

    def _open_parent(self) -> Run:
        name = self.folder.name
        began_ms = _ms((self.folder / "study.json").stat().st_mtime)
        run = self.runs.open(name, name, began_ms=began_ms)
        tags = {
            "stage": "sweep",
            "protocol": self.study.protocol,
            "paper": self.study.paper or "none",
            "signature": self.study.signature(),
        }
        self.runs.log(run, params=study_params(self.study), tags=tags)
        return run

    def send_bundles(self) -> None:
        """Send what MLflow has not got of trials that ran in bundles."""
        send_configurations(self, self._configurations)

    def send_sweep(self, status: str) -> None:
        """``running``, ``done``, ``interrupted`` or ``failed``."""
        self.runs.log(self.parent, tags={"status": status})
        self.runs.set_status(self.parent, STATUS[status])

    def trial_keys(self) -> list[str]:
        """Of all trials that have a folder."""
        return sorted(path.parent.name for path in self.folder.glob("trials/*/config.json"))

    def send_trial(self, key: str, *, running: bool = False) -> bool:
        """Send what MLflow has not got of a trial; whether there was anything to look at.

        A trial that has not begun, or whose folder was deleted, is not shown.
        """
        folder = self.folder / "trials" / key
        if not (folder / "config.json").exists():
            return False
        sent = read_sent(folder)
        if sent and sent.parent != self.parent.run_id:
            sent = None  # told to another MLflow, or its runs were deleted
        if sent and sent.status in RESULTS and (folder / "result.json").exists():
            return False
        record = read_trial(folder)
        status = record.status
        if status == "unfinished":
            if not running and not record.epochs:
                return False
            status = "running" if running else "interrupted"
        run = self._trials.get(key) or self._open(record, sent.run_id if sent else None)
        points, bad = new_points(record, run)
        tags = facts(record) | {"status": status}
        if bad:
            tags["not_finite"] = ", ".join(bad)
        if run.tags.get("failure"):  # of an earlier try
            tags = {"failure": ""} | tags
        self.runs.log(run, tags=tags, points=points)
        self.runs.set_status(run, STATUS[status], ended_ms=_ended_ms(record))
        if status == "running":
            self._trials[key] = run
        else:  # a sweep may have thousands
            self._trials.pop(key, None)
        now = Sent(run.run_id, self.parent.run_id, status)
        if now != sent:
            write_whole(folder / NOTE, json.dumps(vars(now)).encode())
        return True

    def _open(self, record: TrialRecord, run_id: str | None) -> Run:
        config = record.config
        first = record.epochs[0] if record.epochs else None
        began = first["time"] - first["seconds"] if first else time.time()
        run = self.runs.open(
            f"{self.folder.name}/{config.key}",
            config.full_title,
            parent=self.parent,
            began_ms=_ms(began),
            run_id=run_id,
        )
        tags = {"key": config.key, "stage": config.stage, "fold": config.fold, "seed": config.seed}
        if isinstance(config, DrawTrial | GenerateTrial | ClassifyTrial):
            tags["arm"] = config.arm
        self.runs.log(run, params=trial_params(config, self.study), tags=tags)
        return run


def new_points(record: TrialRecord, run: Run) -> tuple[list[Point], list[str]]:
    """(values that ``run`` has not got, names of metrics that were not finite at some time)."""
    points: list[Point] = []
    bad: set[str] = set()
    # Beside its metrics each epoch sends its own number, as the last one: what MLflow says of that
    # is how far it has got, and part of an epoch that arrived is sent again, times and all.
    last = run.metrics.get("epoch", 0)
    scores = record.scores  # the last epoch of a generator carries them
    for epoch, row in sorted({row["epoch"]: row for row in record.epochs}.items()):
        own = {name: row[name] for name in ("seconds", "save_seconds", "epoch") if name in row}
        learnt = {name: value for name, value in row["metrics"].items() if name not in scores}
        good, wrong = finite(learnt | own)
        bad.update(wrong)
        if epoch > last:
            points += [Point(name, x, epoch, _ms(row["time"])) for name, x in good.items()]
    good, wrong = finite(_result_metrics(record))
    known = {name for name, value in good.items() if run.metrics.get(name) == value}
    when = _ended_ms(record) or 0
    points += [Point(name, x, 0, when) for name, x in good.items() if name not in known]
    return points, sorted(bad.union(wrong))


def _result_metrics(record: TrialRecord) -> dict[str, Any]:
    if record.result is None:
        return {}
    parts = {"score": record.scores, "result": record.result.model_dump(exclude=_TOLD_OTHERWISE)}
    named = {f"{part}/{name}": value for part, all in parts.items() for name, value in all.items()}
    return named | seconds_by_bucket(spent_by([record]))


_TOLD_OTHERWISE = {"predictions", "history", "scores", "stage", "status"}


def seconds_by_bucket(time: Spent) -> dict[str, float]:
    """Every second of the trials in one bucket, and the share that is in the models."""
    return {f"seconds/{name}": getattr(time, name) for name in BUCKETS} | {"goodput": time.goodput}


def facts(record: TrialRecord) -> dict[str, str]:
    """What a trial's end says in words. Of a failure only its class: messages quote file names."""
    told = record.result.model_dump(exclude=_TOLD_OTHERWISE) if record.result else {}
    words = {k: v for k, v in told.items() if isinstance(v, str)}
    if record.error is not None:
        words["failure"] = record.error.partition(":")[0]
    return words


def read_sent(folder: Path) -> Sent | None:
    """The note in a trial's folder, if there is a whole one."""
    with suppress(OSError, ValueError, TypeError):
        return Sent(**json.loads((folder / NOTE).read_text()))
    return None


def write_status(folder: Path, status: str) -> None:
    """Note in the sweep's folder how the sweep stands, for a later ``sync``."""
    write_whole(folder / NOTE, json.dumps({"status": status}).encode())


def read_status(folder: Path) -> str:
    """How the sweep stands. One whose driver was killed says ``running``."""
    with suppress(OSError, ValueError, KeyError):
        return json.loads((folder / NOTE).read_text())["status"]
    return "running"


def _ended_ms(record: TrialRecord) -> int | None:
    """When the trial ended, by the file that says how."""
    ends: Mapping[str, str] = {"stopped": "stopped.json", "failed": "failure.json"}
    if record.status == "unfinished":
        return _ms(record.ended) if record.epochs else None
    end = record.folder / ends.get(record.status, "result.json")
    return _ms(end.stat().st_mtime)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
