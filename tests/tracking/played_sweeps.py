"""Sweeps that are played: a driver's and its trials' files and events, without Ray or training."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from medaug.spec import StudySpec, TrialConfig
from medaug.storage.results import ClassifyResult, DivergedResult, HeldOut
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.events import Outcome, Status
from medaug.tracking.tracker import Tracker
from tests.tracking.made_runs import start

BLOCKED_S = 1.0  # a client that waits for its server waits ten; a busy machine less than one
QUICK = {"pace_s": 0.02, "retry_s": 0.2}


class Played:
    """A sweep of ``study`` whose trials do what the test says."""

    def __init__(self, study: StudySpec) -> None:
        self.study = study
        self.folder, self.plan = start(study)
        self.slowest_s: list[float] = []
        """How long each event took its teller."""

    def tracker(self, **options: Any) -> Tracker:
        return Tracker(self.study, self.folder, **{**QUICK, **options})

    def begin(self, tracker: Tracker, config: TrialConfig) -> None:
        trial = TrialFolder(self.folder, config.key)
        trial.claim(config)
        trial.reopen()
        self._tell(tracker.on_trial_start, config)

    def epoch(
        self,
        tracker: Tracker | None,
        config: TrialConfig,
        epoch: int,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """An epoch that is on disk; without a tracker the driver was killed before it heard."""
        metrics = {"train/loss": 1 / epoch, "val/loss": 2 / epoch} if metrics is None else metrics
        row = {"seconds": 1.5, "save_seconds": 0.5, "time": round(time.time(), 3)}
        TrialFolder(self.folder, config.key).log_epoch({"epoch": epoch, "metrics": metrics, **row})
        if tracker is not None:
            self._tell(tracker.on_epoch, config, epoch, metrics)

    def end(self, tracker: Tracker, config: TrialConfig, status: Status = "done") -> None:
        trial = TrialFolder(self.folder, config.key)
        if status == "diverged":
            trial.finish(DivergedResult(scores={"accuracy": 0.75}, why="no end in sight"))
        elif status == "done":
            trial.finish(played_result())
        elif status == "stopped":
            trial.stop(trial.epoch(), {})
        elif status == "failed":
            error = "configuration: /secret/scans/DOE^JOHN.nii is truncated; copy it again"
            trial.fail({"error": error, "kind": "configuration"})
        self._tell(tracker.on_trial_end, Outcome(config.key, status, trial.epoch()))

    def play(self, tracker: Tracker, configs: list[TrialConfig], epochs: int = 3) -> None:
        for config in configs:
            self.begin(tracker, config)
            for epoch in range(1, epochs + 1):
                self.epoch(tracker, config, epoch)
            self.end(tracker, config)

    def _tell(self, event: Any, *args: Any) -> None:
        began = time.perf_counter()
        event(*args)
        self.slowest_s.append(time.perf_counter() - began)

    def nearly_slowest_s(self) -> float:
        """What 99 of 100 events did not exceed; the last one may have waited for a busy machine."""
        return sorted(self.slowest_s)[int(len(self.slowest_s) * 0.99) - 1]


def played_result() -> ClassifyResult:
    """A result with a number and a word in it, for a trial of any stage."""
    return ClassifyResult(
        scores={"accuracy": 0.75},
        threshold=0.5,
        best_epoch=1,
        predictions=HeldOut.of([], [], [], np.empty((0, 2))),
        steps=100,
        train_rows=10,
        train_patients=5,
        split="none",
        lineage="proven",
    )


def wait_until(condition: Callable[[], Any], patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)


def client_of(study: StudySpec) -> MlflowClient:
    return MlflowClient(f"sqlite:///{study.storage}/mlflow.db")


def all_runs(client: MlflowClient, name: str = "made") -> list[Run]:
    experiment = client.get_experiment_by_name(f"medaug/{name}")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def run_of(client: MlflowClient, config: TrialConfig, name: str = "made") -> Run:
    """The only run of a trial."""
    (run,) = (r for r in all_runs(client, name) if r.data.tags.get("key") == config.key)
    return run


def note_of(played: Played, config: TrialConfig) -> Path:
    """What the tracker leaves when it has told MLflow about a trial."""
    return played.folder / "trials" / config.key / "mlflow.json"


def steps(client: MlflowClient, run: Run, metric: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run.info.run_id, metric)]


def missing_points(client: MlflowClient, folder: Path, name: str = "made") -> list[str]:
    """What stands in the trials' files and not exactly once in MLflow, and the other way round."""
    wrong = []
    runs = {run.data.tags.get("key"): run for run in all_runs(client, name)}
    for path in sorted(folder.glob("trials/*/epochs.jsonl")):
        run = runs[path.parent.name]
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for metric in {metric for row in rows for metric in row["metrics"]}:
            have = {row["epoch"]: row["metrics"][metric] for row in rows}
            history = client.get_metric_history(run.info.run_id, metric)
            if [(p.step, p.value) for p in history] != sorted(have.items()):
                wrong.append(f"{path.parent.name} {metric}: {history}")
    return wrong


def all_is_told(client: MlflowClient, played: Played) -> bool:
    try:
        return not missing_points(client, played.folder, played.study.name)
    except (KeyError, AssertionError):  # a run, or all of them, are not there
        return False


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "medaug.tracking.tracker" and record.levelno >= logging.WARNING
    ]
