"""What a RayJob runs, against a fake medaug: which end is tried again on the next cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "cluster/kuberay/job.sh"
PATIENCE_S = 60


def start(tmp_path: Path, medaug: str) -> subprocess.Popen[str]:
    """One try, where ``medaug`` is this piece of bash."""
    fake = tmp_path / "bin" / "medaug"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/calls\n{medaug}\n')
    fake.chmod(0o755)
    environment = {
        "PATH": f"{fake.parent}:{os.environ['PATH']}",
        "MEDAUG_STORAGE": str(tmp_path / "runs"),
        "RAY_ADDRESS": "head:6379",
    }
    command = ["bash", str(SCRIPT), "jobs/demo.yaml", "demo", "--data", "/scans"]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def tries(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def test_medaug_is_given_the_cluster(tmp_path: Path) -> None:
    assert start(tmp_path, "exit 0").wait(PATIENCE_S) == 0
    assert tries(tmp_path) == [
        "run jobs/demo.yaml --name demo --address head:6379 --wait --data /scans"
    ]


@pytest.mark.parametrize(("code", "again"), [(75, 3), (2, 1), (3, 1), (4, 1), (5, 1), (137, 1)])
def test_only_an_interrupted_run_is_tried_again(tmp_path: Path, code: int, again: int) -> None:
    """KubeRay's backoffLimit makes three tries of it in any case."""
    for number in range(3):
        process = start(tmp_path, f"exit {code}")
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code
        assert ("not tried again" in said) == (number > 0 and code != 75), said
    assert len(tries(tmp_path)) == again


def test_what_is_mended_goes_on(tmp_path: Path) -> None:
    start(tmp_path, "exit 3").wait(PATIENCE_S)
    process = start(tmp_path, "exit 0")
    _, said = process.communicate(timeout=PATIENCE_S)
    file = Path(said.partition("remove ")[2].partition(",")[0])
    assert file.parent == tmp_path / "runs/demo"
    file.unlink()
    assert start(tmp_path, "exit 0").wait(PATIENCE_S) == 0
    assert len(tries(tmp_path)) == 2


def test_a_stop_is_waited_for(tmp_path: Path) -> None:
    """Ray sends it to the script and to medaug alike."""
    saves = "trap 'sleep 0.5; exit 75' USR1\n" + (
        f"touch {tmp_path}/ready\nwhile :; do sleep 0.05; done"
    )
    process = start(tmp_path, f"echo $$ > {tmp_path}/pid\n{saves}")
    deadline = time.monotonic() + PATIENCE_S
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGUSR1)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 75
