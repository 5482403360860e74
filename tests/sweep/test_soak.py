"""A thousand tiny trials: what the driver holds does not grow with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.tracking.made_runs import study
from tests.tracking.played_sweeps import Played, wait_until

TRIALS = int(os.environ.get("MEDAUG_SOAK_TRIALS", "1000"))
EVERY = TRIALS // 10
MOST = {
    "rss_bytes": 60e3 * TRIALS,
    "descriptors": 8,
    "threads": 6,
    "processes": 2,
    "shm_bytes": 8e6,
}
"""By how much a reading may grow from the second to the last. 60 kB a trial is what a driver of
10,000 trials may have in 600 MB: Ray Tune keeps what it was told of each."""


def assert_flat(rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print()
        for row in rows:
            print("  ".join(f"{name} {value:,}" for name, value in row.items()))
    first, last = rows[1], rows[-1]
    grown = {name: last[name] - first[name] for name in MOST if name in last}
    too_much = {name: by for name, by in grown.items() if by > MOST[name]}
    assert not too_much, f"{too_much} since {first['trials']} trials; {MOST} are allowed"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_a_thousand_trials(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Path(__file__).parent
    script = [sys.executable, str(here / "soak.py"), str(tmp_path), str(TRIALS), str(EVERY)]
    done = subprocess.run(
        script,
        env={**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parents[1]}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["trials"] for row in rows] == list(range(EVERY, TRIALS + 1, EVERY))
    assert_flat(rows, capsys)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_trials_told_to_mlflow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tracker of one sweep, and MLflow's client in the driver's process."""
    seeds = list(range(TRIALS // 12 + 1))
    played = Played(study(tmp_path, sweep={"n_synthetic": [24], "seeds": seeds}))
    trials = list(played.plan.classify)[:TRIALS]
    assert len(trials) == TRIALS
    rows = []
    with played.tracker() as tracker:
        for first in range(0, TRIALS, EVERY):
            part = trials[first : first + EVERY]
            played.play(tracker, part, epochs=2)
            notes = [played.folder / "trials" / one.key / "mlflow.json" for one in part]
            wait_until(lambda: all(note.exists() for note in notes), 1200)  # noqa: B023
            me = psutil.Process()
            rows.append(
                {
                    "trials": first + len(part),
                    "rss_bytes": me.memory_info().rss,
                    "descriptors": me.num_fds(),
                    "threads": me.num_threads(),
                }
            )
    assert_flat(rows, capsys)
