"""A finished run in MLflow: its leaderboard as runs, its report and figures, its best generator."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medaug.results.goodput import spent_by
from medaug.results.numbers import with_interval
from medaug.results.records import read_trials
from medaug.results.report.answer import answer
from medaug.results.report.document import REPORT
from medaug.results.report.row_figures import ROWS, row_folder
from medaug.results.rows import REFERENCE, Leaderboard, Row
from medaug.results.table import explanation, worth_of
from medaug.tracking.generators import register_best
from medaug.tracking.mirror import Mirror, read_sent, seconds_by_bucket
from medaug.tracking.params import as_text, finite
from medaug.tracking.runs import Point, Run
from medaug.tracking.view import (
    CONCLUSION,
    FLAGS,
    GAIN,
    SCORE,
    VIEW_TAG,
    artifact_page,
    link,
    view_of,
)

NOTE = "mlflow.note.content"
"""The tag that the UI shows as a description."""
RATIO = "figures/ratio.png"


def is_finished(folder: Path) -> bool:
    """Whether the run in ``folder`` has come to its end, which leaves a report."""
    return (folder / REPORT).is_file()


def show(mirror: Mirror, board: Leaderboard) -> None:
    """Send ``board`` and what stands in the run's folder; again is no harm."""
    for row in reversed(board.rows):  # the UI shows the newest run first
        _send_row(mirror, row)
    _send_sweep(mirror, board)
    _send_files(mirror, board)
    register_best(mirror, board)


def _send_row(mirror: Mirror, row: Row) -> None:
    """One configuration as a run beside the trials: filter by ``tags.stage = 'leaderboard'``."""
    key = f"{mirror.folder.name}/row-{row.key}"
    run = mirror.runs.open(key, row.title, parent=mirror.parent)
    points, bad = _news(run, _row_metrics(row))
    tags = {
        "stage": "leaderboard",
        "arm": row.arm,
        "synthetic": as_text(row.synthetic),
        "rank": "not rankable" if row.rank is None else row.rank,
        SCORE: with_interval(row.mean, row.low, row.high),
        GAIN: _gain(row),
        CONCLUSION: " · ".join(filter(None, (row.ending, worth_of(row)))) or "none",
        FLAGS: "; ".join(row.flags),
        "reference": row.reference or "none",
        "status": "done",
    }
    if bad:
        tags["not_finite"] = ", ".join(bad)
    params = {name: as_text(value) for name, value in row.labels.items()}
    files = sorted(row_folder(mirror.folder, row).glob("*"))
    if files:
        named = {path.stem: f"figures/{path.name}" for path in files}
        tags[NOTE] = "Figures: " + " · ".join(_links(mirror, run.run_id, named))
    mirror.runs.log(run, params=params, tags=tags, points=points)
    for path in files:
        mirror.runs.client.log_artifact(run.run_id, str(path), "figures")
    mirror.runs.set_status(run, "FINISHED")


def _send_sweep(mirror: Mirror, board: Leaderboard) -> None:
    """The answer and the leaderboard as the description of the sweep's run, and what it took."""
    time_spent = spent_by(read_trials(mirror.folder))
    tried = {"configurations_tried": board.tried, "trials_unfinished": board.unfinished}
    parent = mirror.parent
    points, _ = _news(parent, seconds_by_bucket(time_spent) | tried)
    experiment, client = mirror.runs.experiment_id, mirror.runs.client
    headline = answer(board).headline
    files = {"report": REPORT, "ratio curve": RATIO}
    there = {name: path for name, path in files.items() if (mirror.folder / path).is_file()}
    linked = " · ".join(
        [
            f"[leaderboard as a table of runs]({link(experiment)})",
            *_links(mirror, parent.run_id, there),
        ]
    )
    note = f"**{headline}** {linked}\n\n{_as_markdown(board)}"
    mirror.runs.log(parent, tags={NOTE: note}, points=points)
    client.set_experiment_tag(experiment, NOTE, headline)
    client.set_experiment_tag(experiment, VIEW_TAG, view_of(board))


def _news(run: Run, metrics: Mapping[str, Any]) -> tuple[list[Point], list[str]]:
    """(values that ``run`` has not got, rounded for a table; names of those not finite)."""
    good, bad = finite(metrics)
    rounded = {name: round(value, 4) for name, value in good.items()}
    now_ms = int(time.time() * 1000)
    return [Point(k, v, 0, now_ms) for k, v in rounded.items() if run.metrics.get(k) != v], bad


def _row_metrics(row: Row) -> dict[str, Any]:
    return {
        "balanced_accuracy": row.mean,
        "low": row.low,
        "high": row.high,
        "gain": row.gain,
        "gain_low": row.gain_low,
        "gain_high": row.gain_high,
        "n_synthetic": row.n_synthetic,
        "replicates": row.replicates,
        "patients": row.patients,
        "device_hours": row.device_hours,
        **({} if row.rank is None else {"rank": row.rank}),
        **{f"score/{name}": value for name, value in row.scores.items()},
        **{f"quality/{name}": value for name, value in row.quality.items()},
    }


def _send_files(mirror: Mirror, board: Leaderboard) -> None:
    client, parent = mirror.runs.client, mirror.parent
    client.log_dict(parent.run_id, board.to_json(), "leaderboard.json")
    if (report := mirror.folder / REPORT).is_file():
        client.log_artifact(parent.run_id, str(report))
    own: dict[str, dict[str, str]] = {}
    for figure, key, place in _figures(mirror.folder):
        sent = read_sent(mirror.folder / "trials" / key) if key else None
        if sent is None or sent.parent != parent.run_id:
            client.log_artifact(parent.run_id, str(figure), place)
        else:
            client.log_artifact(sent.run_id, str(figure), "figures")
            own.setdefault(sent.run_id, {})[figure.stem] = f"figures/{figure.name}"
    for run_id, figures in own.items():
        client.set_tag(run_id, NOTE, "Figures: " + " · ".join(_links(mirror, run_id, figures)))


def _gain(row: Row) -> str:
    """The gain of the configuration that all others are compared with is zero by definition."""
    if REFERENCE in row.flags:
        return "reference"
    return with_interval(row.gain, row.gain_low, row.gain_high, signed=True)


def _links(mirror: Mirror, run_id: str, artifacts: Mapping[str, str]) -> list[str]:
    """Markdown links to a run's artifacts by what they are called."""
    experiment = mirror.runs.experiment_id
    pages = {name: artifact_page(experiment, run_id, path) for name, path in artifacts.items()}
    return [f"[{name}]({page})" for name, page in pages.items()]


def _figures(folder: Path) -> Iterator[tuple[Path, str | None, str]]:
    """(file, the trial that it is of, where it belongs among the sweep's artifacts)."""
    root = folder / "figures"
    for figure in sorted(root.rglob("*.png")):
        place = figure.parent.relative_to(folder)
        first = figure.relative_to(root).parts[0]
        if first == ROWS:
            continue  # of the leaderboard's rows, whose runs have them
        is_trials = (folder / "trials" / first).is_dir()
        yield figure, first if is_trials else None, place.as_posix()


def _as_markdown(board: Leaderboard) -> str:
    """The leaderboard for the description of the sweep's run."""
    lines = [
        "| rank | configuration | balanced accuracy | gain | conclusion | n | flags |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in board.rows:
        cells = (
            "–" if row.rank is None else str(row.rank),
            row.title,
            with_interval(row.mean, row.low, row.high),
            _gain(row),
            " · ".join(filter(None, (row.ending, worth_of(row)))),
            f"{row.replicates}/{row.expected}",
            "; ".join(row.flags),
        )
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join([*lines, "", explanation(board)])
