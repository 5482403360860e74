"""The runs of one MLflow experiment, each found again by its key. Knows nothing of trials."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from medaug.tracking.params import LONGEST_TAG, safe_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

KEY = "medaug.key"
PARENT = "mlflow.parentRunId"

NAMES_PER_BATCH = 100
"""Parameters, and tags, that MLflow takes in one call; 1,000 entities in all."""
POINTS_PER_BATCH = 800

ENDED = ("FINISHED", "FAILED", "KILLED")


class Point(NamedTuple):
    """One value of a metric. MLflow keeps one of two that are equal in every field."""

    name: str
    value: float
    step: int
    time_ms: int


@dataclass
class Run:
    """What MLflow has of a run."""

    run_id: str
    artifact_uri: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    """The last value of each."""

    @staticmethod
    def of(run: MlflowRun) -> Run:
        data = run.data
        return Run(
            run.info.run_id,
            run.info.artifact_uri,
            run.info.status,
            dict(data.params),
            dict(data.tags),
            dict(data.metrics),
        )


class Runs:
    """A client of one experiment, made if it is not there; a deleted one is brought back.

    Every call may raise whatever MLflow, the network or the database raise, and may then have had
    its effect or not; all of them may be repeated.
    """

    def __init__(self, uri: str, experiment: str, artifact_uri: str | None = None) -> None:
        from mlflow import MlflowClient

        self.client: MlflowClient = MlflowClient(uri)
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            # Without a kind, the UI asks what the experiment is about, and shows LLM traces first.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            created = self.client.create_experiment(experiment, artifact_uri, tags=kind)
            self.experiment_id: str = created
        else:
            self.experiment_id = found.experiment_id
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)

    def open(
        self,
        key: str,
        name: str,
        *,
        parent: Run | None = None,
        began_ms: int | None = None,
        run_id: str | None = None,
    ) -> Run:
        """The run tagged with ``key``, made if there is none; ``run_id`` is where to look first."""
        found = self._known(run_id, key) if run_id else None
        found = found or self._find(key)
        if found is None:
            tags = {KEY: key} | ({PARENT: parent.run_id} if parent else {})
            found = self.client.create_run(self.experiment_id, began_ms, tags, name)
        return Run.of(found)

    def log(
        self,
        run: Run,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, Any] | None = None,
        points: Iterable[Point] = (),
    ) -> None:
        """Send what ``run`` has not got. A parameter that it has is never written again."""
        from mlflow.entities import Metric, Param, RunTag

        new_params = {k: v for k, v in (params or {}).items() if k not in run.params}
        texts = {safe_name(k): str(v)[:LONGEST_TAG] for k, v in (tags or {}).items()}
        new_tags = {k: v for k, v in texts.items() if run.tags.get(k) != v}
        points = list(points)
        metrics = [Metric(p.name, p.value, p.time_ms, p.step) for p in points]
        parts = itertools.zip_longest(
            _chunks([Param(k, v) for k, v in new_params.items()], NAMES_PER_BATCH),
            _chunks([RunTag(k, v) for k, v in new_tags.items()], NAMES_PER_BATCH),
            _chunks(metrics, POINTS_PER_BATCH),
            fillvalue=(),
        )
        for some_params, some_tags, some_metrics in parts:
            self.client.log_batch(run.run_id, some_metrics, some_params, some_tags)
        run.params |= new_params
        run.tags |= new_tags
        run.metrics |= {p.name: p.value for p in points}

    def set_status(self, run: Run, status: str, ended_ms: int | None = None) -> None:
        """RUNNING, FINISHED, FAILED or KILLED."""
        if status == run.status:
            return
        if status in ENDED:
            self.client.set_terminated(run.run_id, status, ended_ms)
        else:
            self.client.update_run(run.run_id, status)
        run.status = status

    def tidy(self) -> None:
        """Delete what a server made of calls that it took, but did not answer in time.

        Making a run cannot be repeated without a trace: such runs are blank twins of others.
        """
        runs: list[MlflowRun] = []
        page = None
        while page is None or page.token:
            page = self.client.search_runs(
                [self.experiment_id], max_results=1000, page_token=page.token if page else None
            )
            runs += page
        filled = {run.data.tags.get(KEY) for run in runs if not _is_blank(run)}
        for run in runs:
            if _is_blank(run) and run.data.tags.get(KEY) in filled:
                self.client.delete_run(run.info.run_id)

    def _known(self, run_id: str, key: str) -> MlflowRun | None:
        """The run of that id if it is still there and ours."""
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        active = run.info.lifecycle_stage == "active"
        return run if active and run.data.tags.get(KEY) == key else None

    def _find(self, key: str) -> MlflowRun | None:
        """The run with that key; of several the one that something was logged to."""
        found = self.client.search_runs([self.experiment_id], f"tags.`{KEY}` = '{key}'")
        return min(found, key=_is_blank, default=None)


def _is_blank(run: MlflowRun) -> bool:
    return not (run.data.params or run.data.metrics)


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[first : first + size] for first in range(0, len(items), size)]
