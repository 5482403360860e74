"""A whole study whose storage is a bucket: killed, and gone on with by another machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from tests.storage.conftest import SECRET, keys

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

STUDY = """\
name: small
data: {image_size: 64, phantom: {patients: 12, d_prime: 2.6, slices: [3, 4]}}
split: {folds: 2}
segmenter: {base: 4, init: kaiming, epochs: 2, lr: 3.0e-4, batch_size: 4, pretrain: null}
features: {tap: conv5}
arms: {none: {}, duplicate: {}, acgan: {epochs: 20, ngf: 8, ndf: 8, filter: none}}
classifier: {kind: linear, epochs: 3, lr: 0.05}
controls: none
sweep: {n_synthetic: [12], seeds: [0]}
resources: {checkpoint_every_s: 0, max_concurrent: 1}
"""
EPOCHS = 20
URI = "s3://medaug-tests/studies"


class Machine:
    """One that has nothing but the command, and a disk of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.said = ""
        place.mkdir()
        (place / "small.yaml").write_text(STUDY)
        self.environment = {
            **os.environ,
            "MEDAUG_BUCKET_COPIES": str(place / "copies"),
            "MLFLOW_TRACKING_URI": "",
            "COLUMNS": "100",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "medaug", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.place,
            env=self.environment,
        )

    def run(self, *words: str) -> tuple[int, str]:
        process = self.start(*words)
        said, _ = process.communicate(timeout=600)
        self.said += said
        return process.returncode, said

    def board(self, storage: str) -> Any:
        code, said = self.run("leaderboard", "small", "--json", "--storage", storage)
        assert code == 0, said
        return json.loads(said)


def without_times(board: Any) -> Any:
    """What of a leaderboard does not depend on how long it took."""
    if isinstance(board, dict):
        return {k: without_times(v) for k, v in board.items() if k != "device_hours"}
    return [without_times(each) for each in board] if isinstance(board, list) else board


def epochs(client: boto3.client, key: str) -> list[int]:
    body = client.get_object(Bucket="medaug-tests", Key=key)["Body"].read()
    return [json.loads(line)["epoch"] for line in body.splitlines()]


@pytest.fixture
def machines(client: boto3.client, tmp_path: Path) -> list[Machine]:
    return [Machine(tmp_path / name) for name in ("one", "two", "three")]


def test_killed_on_one_machine_and_finished_on_another(
    client: boto3.client, machines: list[Machine], tmp_path: Path
) -> None:
    one, two, three = machines
    killed = one.start("run", "small.yaml", "--storage", URI)

    def wait_for(part: str) -> None:
        deadline = time.monotonic() + 600
        while not any(re.search(part, key) for key in of_generators(client)):
            assert killed.poll() is None, killed.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)

    wait_for("small/lease-")
    code, said = two.run("run", "small.yaml", "--storage", URI)
    assert code == 2, said
    assert f"experiment small is running (host {os.uname().nodename}, pid {killed.pid}" in said
    wait_for(r"/ep_\d+/MANIFEST")
    wait_for(r"/epochs\.jsonl$")  # its line follows the checkpoint
    processes = [killed, *psutil.Process(killed.pid).children(recursive=True)]
    for process in processes:  # as when a machine loses its power
        process.send_signal(signal.SIGKILL)
    one.said += killed.communicate()[0]
    done = [key for key in keys(client, "studies/small/") if key.endswith("result.json")]
    assert done
    cut = [key for key in of_generators(client) if key.endswith("epochs.jsonl")]
    assert not set(cut) <= {key.replace("result.json", "epochs.jsonl") for key in done}
    before = {key: epochs(client, key.replace("result.json", "epochs.jsonl")) for key in done}

    code, said = two.run("resume", "small", "--storage", URI)
    assert code == 0, said
    assert "segment: 2 trials, 2 done before" in said, said
    for key, rows in before.items():
        assert epochs(client, key.replace("result.json", "epochs.jsonl")) == rows, "not run again"
    for key in cut:
        rows = epochs(client, key)
        lost = set(range(1, EPOCHS + 2)) - set(rows)  # the last one makes the rows
        assert len(lost) <= 1, "but the line of an epoch whose checkpoint was just there"
        assert len(rows) <= EPOCHS + 2, "one epoch is lost at most"

    code, said = three.run("run", "small.yaml", "--storage", str(tmp_path / "folder"))
    assert code == 0, said
    expected = without_times(three.board(str(tmp_path / "folder")))
    assert without_times(two.board(URI)) == expected
    assert without_times(three.board(URI)) == expected
    assert not list((three.place / "copies").rglob("*.safetensors"))

    code, said = three.run("status", "--storage", URI)
    assert (code, said.split(":")[0]) == (0, "small")
    assert "not running" in said
    code, said = three.run("report", "small", "--storage", URI)
    assert code == 0, said
    assert "studies/small/report.html" in keys(client)
    code, said = three.run("export", "small", "--storage", URI, "--allow-near-copies")
    assert code == 0, said
    assert not [key for key in keys(client) if "mlflow" in key or "/." in key or "site" in key]
    for machine in machines:
        assert SECRET not in machine.said
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()


def of_generators(client: boto3.client) -> list[str]:
    """Objects of trials that generate rows, and the lease."""
    found = keys(client, "studies/small/")
    generating = [
        key.rpartition("/")[0]
        for key in found
        if key.endswith("config.json") and generates(client, key)
    ]
    return [key for key in found if "lease" in key or key.startswith((*generating, "-"))]


_STAGES: dict[str, bool] = {}


def generates(client: boto3.client, key: str) -> bool:
    """Whether a configuration, which never changes, is of a trial that generates rows."""
    if key not in _STAGES:
        body = client.get_object(Bucket="medaug-tests", Key=key)["Body"].read()
        _STAGES[key] = b'"generate"' in body
    return _STAGES[key]
