"""The Slurm script against fake commands: who is started, what is requeued, who hears signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).parents[2] / "cluster/slurm/medaug.sbatch"
PATIENCE_S = 120


def fake(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f'#!/bin/bash\necho {name} "$@" >> $CALLS\n{body}\n')
    path.chmod(0o755)


def start(
    tmp_path: Path, medaug: str, *options: str, srun: str = "exec sleep 600", ray: str = ""
) -> subprocess.Popen[bytes]:
    """The script in an allocation of two nodes, where ``medaug`` is this piece of bash."""
    folder = tmp_path / "bin"
    folder.mkdir()
    fake(folder, "srun", srun)
    fake(folder, "ray", ray)
    fake(folder, "scontrol", "")
    fake(folder, "medaug", f'stat -c %a "$RAY_AUTH_TOKEN_PATH" > $CALLS.mode\n{medaug}')
    limits = {k: v for k, v in os.environ.items() if k == "SLURM_RESTART_COUNT"}
    environment = {
        **limits,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "2",
        "MEDAUG_STORAGE": str(tmp_path / "runs"),
    }
    command = ["bash", str(SCRIPT), "jobs/demo.yaml", "demo", *options]
    return subprocess.Popen(command, env=environment)


def calls(tmp_path: Path, name: str) -> list[str]:
    lines = (tmp_path / "calls").read_text().splitlines()
    return [line for line in lines if line.startswith(f"{name} ")]


@pytest.mark.parametrize(
    ("code", "requeues", "advice"),
    [
        (0, 0, ""),
        (2, 0, "the same again would end the same"),
        (3, 0, "mend that, then sbatch the same again"),
        (4, 0, "medaug resume demo"),
        (5, 0, "the same again would end the same"),
        (75, 1, ""),
        (137, 0, "the same again would end the same"),
    ],
)
def test_only_an_interrupted_run_is_requeued(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], code: int, requeues: int, advice: str
) -> None:
    assert start(tmp_path, f"exit {code}").wait(PATIENCE_S) == code
    assert calls(tmp_path, "scontrol") == ["scontrol requeue 7"] * requeues
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("medaug")]
    assert [advice in line for line in said] == ([True] if advice else [])
    assert (tmp_path / "calls.mode").read_text() == "600\n"
    assert not list(tmp_path.glob(".medaug-ray-token*"))


def test_a_run_that_never_gets_anywhere_leaves_the_queue(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "100")
    assert start(tmp_path, "exit 75").wait(PATIENCE_S) == 75
    assert calls(tmp_path, "scontrol") == []
    assert "interrupted 100 times: not put back" in capfd.readouterr().err


def test_ray_has_a_closed_folder_of_its_own_on_every_node(tmp_path: Path) -> None:
    """``srun`` runs the head's command here (a worker's is another node's: its folder has the same
    name); ``ray`` says where it may write, and waits to be ended."""
    srun = """\
[[ $* == *--head* ]] || exec sleep 600
while [[ $1 == --* ]]; do shift; done
exec "$@\""""
    ray = """\
[[ $1 == start ]] || exit 0
last=${@: -1}
folder=${last#--temp-dir=}
echo "$folder $(stat -c %a "${folder%/r}")" > $CALLS.folder
echo $$ > $CALLS.pid
exec sleep 600"""
    ready = "until [ -s $CALLS.pid ]; do sleep 0.05; done"
    process = start(tmp_path, ready, srun=srun, ray=ray)
    assert process.wait(PATIENCE_S) == 0
    folder, mode = (tmp_path / "calls.folder").read_text().split()
    assert re.fullmatch(r"/tmp/medaug-[0-9a-f]{12}/r", folder)
    assert mode == "700"
    pid = int((tmp_path / "calls.pid").read_text())
    deadline = time.monotonic() + PATIENCE_S
    while Path(folder).parent.exists() or psutil.pid_exists(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_head_workers_on_the_other_nodes_and_the_run(tmp_path: Path) -> None:
    until_both_began = "until [ $(grep -c ^srun $CALLS) = 2 ]; do sleep 0.05; done"
    assert start(tmp_path, until_both_began, "--data", "/scans").wait(PATIENCE_S) == 0
    (run,) = calls(tmp_path, "medaug")
    assert run.startswith("medaug run jobs/demo.yaml --name demo --address ")
    assert run.endswith(":20007 --wait --data /scans")
    head, worker = sorted(calls(tmp_path, "srun"), key=lambda call: "--exclude" in call)
    assert "--nodes=1 --ntasks=1 --nodelist=" in head
    assert " ray start --head --block --port=20007 --include-dashboard=false" in head
    assert "--nodes=1 --ntasks=1 --exclude=" in worker
    assert worker.endswith(":20007")


def test_a_requeued_job_resumes(tmp_path: Path) -> None:
    study = tmp_path / "runs/demo/study.json"
    study.parent.mkdir(parents=True)
    study.touch()
    assert start(tmp_path, "exit 0").wait(PATIENCE_S) == 0
    assert calls(tmp_path, "medaug")[0].startswith("medaug resume demo --address ")


def test_the_time_limit_reaches_medaug(tmp_path: Path) -> None:
    body = "trap 'sleep 0.3; exit 75' USR1\ntouch $CALLS.ready\nwhile :; do sleep 0.1; done"
    process = start(tmp_path, body)
    deadline = time.monotonic() + PATIENCE_S
    while not (tmp_path / "calls.ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(PATIENCE_S) == 75
    assert calls(tmp_path, "scontrol") == ["scontrol requeue 7"]
