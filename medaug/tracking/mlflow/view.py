"""The leaderboard as a view of MLflow's table of runs, behind a link."""

from __future__ import annotations

import json

from medaug.tracking.leaderboard import Leaderboard

VIEW = "leaderboard"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""The experiment's tag that the UI's own "Share" button writes, there compressed."""

METRICS = ("rank", "balanced_accuracy", "gain", "gain_low", "gain_high", "n_synthetic")


def view_of(board: Leaderboard) -> str:
    """Value of :data:`VIEW_TAG`: the leaderboard's rows by rank, and the columns that matter."""
    axes = dict.fromkeys(name for row in board.rows for name in row.point)
    columns = [
        *(f"metrics.`{name}`" for name in METRICS),
        *(f"params.`{name}`" for name in ("arm", *axes)),
        "tags.`flags`",
    ]
    state = {
        "searchFilter": "tags.stage = 'leaderboard'",
        "orderByKey": "metrics.`rank`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": columns,
    }
    return json.dumps(state)


def link(experiment_id: str, *, finished: bool = True) -> str:
    """To the leaderboard, or the runs where there is none yet, from the UI's own address on."""
    # Without a workflow, MLflow 3 opens every experiment as one about language models.
    page = f"#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    return f"{page}&viewStateShareKey={VIEW}" if finished else page
