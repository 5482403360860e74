"""The cluster recipes: what they promise about security, and the Slurm script's behaviour."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster/slurm/medaug.sbatch"
KUBERAY = ROOT / "cluster/kuberay"


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_pods_are_closed(name: str) -> None:
    spec = read(KUBERAY / name)["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["authOptions"] == {"mode": "token"}
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
    worker = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    assert worker["resources"]["requests"]["nvidia.com/gpu"] == "1"


def test_network_is_denied_by_default() -> None:
    deny, *_ = yaml.safe_load_all((KUBERAY / "networkpolicy.yaml").read_text())
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_compose_is_closed() -> None:
    services = read(ROOT / "docker/compose.yaml")["services"]
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for key, value in service["environment"].items():
            if key.endswith(("PASSWORD", "SECRET_KEY", "ACCESS_KEY", "STORE_URI")):
                assert ":?" in value, key
    for name in ("head", "worker"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
    assert "--app-name basic-auth" in services["mlflow"]["command"]
    assert "--allowed-hosts" in services["mlflow"]["command"]


def test_image_and_launcher() -> None:
    assert "\nUSER 1000\n" in (ROOT / "docker/Dockerfile").read_text()
    launcher = read(ROOT / "cluster/vm/ray.yaml")
    for kind in ("head", "worker"):
        start = launcher[f"{kind}_start_ray_commands"][-1]
        assert start.startswith("RAY_AUTH_MODE=token ray start")


def fake(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f'#!/bin/bash\necho {name} "$@" >> $CALLS\n{body}\n')
    path.chmod(0o755)


def start(tmp_path: Path, medaug: str) -> subprocess.Popen[bytes]:
    folder = tmp_path / "bin"
    folder.mkdir()
    fake(folder, "srun", "exec sleep 20")
    fake(folder, "ray", "")
    fake(folder, "scontrol", "")
    fake(folder, "medaug", f'stat -c %a "$RAY_AUTH_TOKEN_PATH" > $CALLS.mode\n{medaug}')
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "2",
        "MEDAUG_STORAGE": str(tmp_path / "runs"),
    }
    return subprocess.Popen(["bash", str(SCRIPT), "jobs/demo.yaml", "demo"], env=environment)


@pytest.mark.parametrize(("code", "requeues"), [(0, 0), (4, 0), (75, 1), (137, 0)])
def test_only_an_interrupted_run_is_requeued(tmp_path: Path, code: int, requeues: int) -> None:
    assert start(tmp_path, f"exit {code}").wait(60) == code
    assert (tmp_path / "calls").read_text().count("scontrol requeue 7") == requeues
    assert (tmp_path / "calls.mode").read_text() == "600\n"
    assert not list(tmp_path.glob(".medaug-ray-token*"))


def test_the_time_limit_reaches_medaug(tmp_path: Path) -> None:
    body = "trap 'sleep 0.3; exit 75' USR1\ntouch $CALLS.ready\nwhile :; do sleep 0.1; done"
    process = start(tmp_path, body)
    deadline = time.monotonic() + 60
    while not (tmp_path / "calls.ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 75
    assert (tmp_path / "calls").read_text().count("scontrol requeue 7") == 1
