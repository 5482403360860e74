"""The leaderboard as a view of MLflow's table of runs, behind a link."""

from __future__ import annotations

import json

from medaug.results.rows import Leaderboard
from medaug.spec.per_class import UNIFORM

VIEW = "leaderboard"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""The experiment's tag that the UI's own "Share" button writes, there compressed."""

SCORE, GAIN, CONCLUSION, FLAGS = "balanced accuracy", "gain", "conclusion", "flags"
"""Tags of a leaderboard's row: numbers with their intervals are read as text, sorted as metrics."""

_WORKFLOW = "?workflowType=machine_learning"
"""Without it, MLflow 3 opens every page as one about language models."""

NARROW, WIDE = 70, 230
"""Pixels; a window of 1400 shows all columns of an arm with two axes."""


def view_of(board: Leaderboard) -> str:
    """Value of :data:`VIEW_TAG`: the leaderboard's rows by rank, and the columns that matter in the
    order of reading."""
    axes = dict.fromkeys(name for row in board.rows for name in row.point)
    ways = ["per_class"] if any(row.per_class != UNIFORM for row in board.rows) else []
    sizes = ["train_rows"] if any(row.train_rows for row in board.rows) else []
    widths = {
        "attributes.`Run Name`": 220,
        "metrics.`rank`": NARROW,
        "params.`arm`": 85,
        **{f"params.`{name}`": 95 for name in ("n_synthetic", *ways, *sizes)},
        **{f"params.`{name}`": NARROW for name in axes},
        f"tags.`{SCORE}`": 155,
        f"tags.`{GAIN}`": 185,
        f"tags.`{CONCLUSION}`": 190,
        f"tags.`{FLAGS}`": WIDE,
    }
    state = {
        "searchFilter": "tags.stage = 'leaderboard'",
        "orderByKey": "metrics.`rank`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": [name for name in widths if not name.startswith("attributes")],
        "columnOrder": [*widths, "runDateAndNestInfo", "duration"],  # these two are always there
        "columnWidths": widths,
    }
    return json.dumps(state)


def artifact_page(experiment_id: str, run_id: str, artifact: str) -> str:
    """To an artifact of a run, from the UI's own address on."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{artifact}{_WORKFLOW}"


def link(experiment_id: str, *, finished: bool = True) -> str:
    """To the leaderboard, or the runs where there is none yet, from the UI's own address on."""
    page = f"#/experiments/{experiment_id}/runs{_WORKFLOW}"
    return f"{page}&viewStateShareKey={VIEW}" if finished else page
