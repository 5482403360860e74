"""Trials over several hosts: a lost one changes no number; trials wait for hosts and share GPUs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.head import Head, Node
from tests.cluster.hosts import HERE, hosts

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

PATIENCE_S = 900
STUDY = """\
name: calm
data: {image_size: 32, phantom: {patients: 12, slices: [3, 4]}}
split: {folds: 2}
arms: {none: {}, duplicate: {}}
classifier: {kind: linear, epochs: 12, lr: 0.05}
sweep: {n_synthetic: [12], seeds: [0, 1, 2]}
resources: {ranks: 2, strategy: STRICT_SPREAD, hang_timeout_s: 300, checkpoint_every_s: 0}
"""


def ranks_on(node: Node) -> list[int]:
    """Process ids of the ranks that run there."""
    return [process.pid for process in node.processes() if process.name().startswith("ray::Rank")]


def epochs(folder: Path) -> int:
    """Finished epochs of all its trials."""
    return sum(len(path.read_text().splitlines()) for path in folder.glob("trials/*/epochs.jsonl"))


def board(head: Head, name: str, storage: Path) -> dict[str, Any]:
    """Its leaderboard, without the run's name and the hours it took."""
    told = head.medaug("leaderboard", name, "--json", "--storage", storage)
    assert told.returncode == 0, told.stderr
    told_board = json.loads(told.stdout)
    rows = [{k: v for k, v in row.items() if k != "device_hours"} for row in told_board["rows"]]
    return {**told_board, "run": None, "rows": rows}


def predictions(folder: Path) -> dict[str, Any]:
    results = {
        path.parent.name: json.loads(path.read_text())
        for path in folder.glob("trials/*/result.json")
    }
    return {key: result.get("predictions") for key, result in results.items()}


def test_a_lost_host_changes_no_number(tmp_path: Path) -> None:
    spec, storage = tmp_path / "study.yaml", tmp_path / "runs"
    other = tmp_path / "other"  # in one storage, trials of the first run would be taken over
    spec.write_text(STUDY)
    with hosts(4) as places, Head(tmp_path, cpus=0, host=places[0], dashboard=False) as head:
        workers = [head.join(place, "--num-cpus=1") for place in places[1:]]
        run = ["run", spec, "--address", head.address, "--storage"]
        calm = head.medaug(*run, storage, timeout_s=PATIENCE_S)
        assert calm.returncode == 0, calm.stderr

        struck = subprocess.Popen(
            head.command(*run, other, "--name", "struck"),
            env=head.environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + PATIENCE_S
        while not epochs(other / "struck") >= 16:  # in the middle of the second trial, or later
            assert struck.poll() is None, struck.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        places_of_ranks = [node for node in workers if ranks_on(node)]
        assert len(places_of_ranks) == 2, "two ranks of a trial are on one host"
        done_before = epochs(other / "struck")
        places_of_ranks[1].kill()
        output, _ = struck.communicate(timeout=PATIENCE_S)
        assert struck.returncode == 0, output

        assert [node for node in workers if ranks_on(node)] == []
        before, after = board(head, "calm", storage), board(head, "struck", other)
    lost = [
        json.loads(line)
        for path in (other / "struck").glob("trials/*/failures.jsonl")
        for line in path.read_text().splitlines()
    ]
    redone = epochs(other / "struck") - epochs(storage / "calm")
    assert redone <= 1
    assert predictions(other / "struck") == predictions(storage / "calm")
    assert before == after
    print(f"\nhosts: {[place.ip for place in places]}, namespaces: {bool(places[0].enter)}")
    # A trial whose own actor was on that host is begun again by Tune, which notes no failure.
    told = [row["error"] for row in lost] or ["the trial's own actor went with it"]
    print(f"a host killed after {done_before} epochs: {'; '.join(told)}")
    print(f"epochs redone: {redone}; leaderboard and all predictions equal")
    print(output)


def test_trials_wait_for_a_gpu_then_share_it(tmp_path: Path) -> None:
    """Ray counts the GPUs that a node says it has; nothing here computes on one."""
    script = Path(__file__).with_name("meeting.py")
    path = {"PYTHONPATH": str(script.parent)}
    with Head(tmp_path, cpus=1, dashboard=False, **path) as head:
        command = [sys.executable, str(script), str(tmp_path), head.address]
        refused = subprocess.run(command, env=head.environment, capture_output=True, text=True)
        assert refused.returncode == 3, refused.stderr
        assert "a trial wants 1 ranks of 0.25 CPU and 0.25 GPU" in refused.stdout
        assert "room for 0 (1 CPU and 0 GPU on 1 node)" in refused.stdout

        patient = subprocess.Popen(
            [*command, "--wait"], env=head.environment, stdout=subprocess.PIPE, text=True
        )
        assert patient.stdout is not None
        assert patient.stdout.readline() == "under way\n"
        head.join(HERE, "--num-cpus=1", "--num-gpus=1")
        output, _ = patient.communicate(timeout=PATIENCE_S)
    assert patient.returncode == 0, output
    assert output.split() == ["0", "0", "0", "0"], "not four on the one GPU"
