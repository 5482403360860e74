"""What doctor says of a machine with one trap set at a time."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from medaug.cli import main
from medaug.doctor import limits, machine, storage, tracking
from medaug.doctor.cluster import idle_gpus, judge
from medaug.doctor.examine import examine
from medaug.doctor.finding import Finding, Place
from medaug.sweep.cluster.nodes import Answer, Node


@pytest.fixture(autouse=True)
def quiet_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with nothing set up yet."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("MEDAUG_SITE_KEY_FILE", raising=False)


def one(findings: list[Finding], check: str) -> Finding:
    (found,) = [finding for finding in findings if finding.check == check]
    return found


def of_machine(place: Place) -> list[Finding]:
    return list(machine.examine(place))


def secret(path: Path, mode: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("0" * 64)
    path.chmod(mode)
    return path


def test_installed_versions_are_those_that_pyproject_wants(tmp_path: Path) -> None:
    findings = of_machine(Place(tmp_path))
    assert {one(findings, name).status for name in ("python", "torch", "ray", "mlflow")} == {"pass"}


def test_a_wrong_version_is_named_with_the_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed distribution with another version, as ``pip install ray==2.40`` leaves it."""
    folder = tmp_path / "site" / "ray-2.40.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.40.0\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    found = one(of_machine(Place(tmp_path)), "ray")
    assert (found.status, found.what) == ("fail", "2.40.0, wants <3,>=2.54")
    assert found.fix.startswith("pip install -c constraints.txt 'ray")


def test_the_site_key_is_private_and_outside_of_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path / "runs")
    assert one(of_machine(place), "site key").status == "pass"
    key = secret(tmp_path / "elsewhere" / "key", 0o644)
    monkeypatch.setenv("MEDAUG_SITE_KEY_FILE", str(key))
    assert one(of_machine(place), "site key").fix == f"chmod 600 {key}"
    monkeypatch.setenv("MEDAUG_SITE_KEY_FILE", str(tmp_path / "runs" / "key"))
    found = one(of_machine(place), "site key")
    assert found.status == "fail"
    assert "inside the storage" in found.what


def test_a_token_that_others_can_read_or_that_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = Place(tmp_path), Place(tmp_path, "head:6379")
    assert one(of_machine(here), "ray token").status == "pass"
    assert one(of_machine(there), "ray token").status == "warn"
    token = secret(tmp_path / "home" / ".ray" / "auth_token", 0o644)
    assert one(of_machine(here), "ray token").fix == f"chmod 600 {token}"
    token.chmod(0o600)
    assert one(of_machine(there), "ray token").fix == "export RAY_AUTH_MODE=token"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert one(of_machine(there), "ray token").status == "pass"


def test_storage_is_left_as_it_was(tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert {finding.status for finding in storage.examine(Place(new))} <= {"pass", "warn"}
    assert not new.exists()
    file = tmp_path / "file"
    file.touch()
    (found,) = storage.examine(Place(file / "runs"))
    assert (found.status, found.check) == ("fail", "storage")
    open_to_all = tmp_path / "shared"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    assert one(list(storage.examine(Place(open_to_all))), "storage").status == "warn"
    assert not list(open_to_all.iterdir())


@pytest.mark.parametrize(
    ("finding", "status"),
    [
        (limits.open_files("x", 256), "fail"),
        (limits.open_files("x", 1024), "warn"),
        (limits.open_files("x", 65536), "pass"),
        (limits.shared_memory("x", 64_000_000), "fail"),
        (limits.shared_memory("x", 512 << 20), "warn"),
        (limits.shared_memory("x", 8 << 30), "pass"),
        (limits.free_disk("x", "here", 10), "fail"),
        (limits.free_disk("x", "here", 5 << 30), "warn"),
        (limits.free_disk("x", "here", 500 << 30), "pass"),
        (limits.clock_skew("x", -7200, 3), "fail"),
        (limits.clock_skew("x", 10, 3), "warn"),
        (limits.clock_skew("x", 10, 30), "pass"),
    ],
)
def test_bounds(finding: Finding, status: str) -> None:
    assert finding.status == status
    assert bool(finding.fix) == (status != "pass")


def test_mlflow_that_is_a_folder_or_away_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = tracking.examine(Place(tmp_path))
    assert found.status == "pass"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    (found,) = tracking.examine(Place(tmp_path))
    assert (found.status, "is a folder" in found.what) == ("warn", True)
    assert "http://HOST:PORT" in found.fix


def node(**changes: object) -> Node:
    from importlib import metadata

    versions = {name: metadata.version(name) for name in ("medaug", "torch", "ray", "mlflow")}
    body = {
        "versions": versions, "gpus": 0, "nccl": False, "seen": "a", "wrote": "b",
        "storage_error": "", "disk_bytes": 1 << 40, "shm_bytes": 1 << 34, "open_files": 65536,
        "umask": 0o077, "clock_s": 0.0,
    }  # fmt: skip
    answer = Answer(**{**body, **{k: v for k, v in changes.items() if k in body}})  # type: ignore[arg-type]
    whole = Node("10.0.0.7", {"CPU": 4.0}, answer, "", 0.0, 1.0, True)
    return replace(whole, **{k: v for k, v in changes.items() if k not in body})  # type: ignore[arg-type]


def test_a_sound_node_passes_every_check() -> None:
    findings = list(judge(node()))
    assert {finding.status for finding in findings} == {"pass"}
    assert len(findings) == 7


@pytest.mark.parametrize(
    ("changes", "check", "status", "says"),
    [
        ({"answer": None, "error": "no answer within 60 s"}, "node 10.0.0.7", "fail", "no answer"),
        ({"seen": None, "wrote": None, "same_file": False, "storage_error": "No such file or directory"}, "storage", "fail", "does not see the file"),
        ({"wrote": None, "same_file": False, "storage_error": "Read-only file system"}, "storage", "fail", "cannot write (Read-only"),
        ({"same_file": False}, "storage", "fail", "reads otherwise"),
        ({"versions": {"torch": "1.0"}}, "versions", "fail", "has no medaug"),
        ({"versions": {"medaug": "0", "torch": "2.13.0"}}, "versions", "fail", "medaug 0, here"),
        ({"skew_s": 7200.0}, "clock", "fail", "+7200.0 s"),
        ({"umask": 0o022}, "umask", "warn", "readable by everybody"),
        ({"shm_bytes": 64 << 20}, "shared memory", "fail", "67 MB"),
        ({"resources": {"GPU": 8.0}}, "nccl", "fail", "without NCCL"),
    ],
)  # fmt: skip
def test_a_node_with_a_trap(changes: dict[str, object], check: str, status: str, says: str) -> None:
    (found,) = [f for f in judge(node(**changes)) if f.check.endswith(check)]
    assert found.status == status
    assert says in found.what
    assert found.fix


@pytest.mark.parametrize(
    ("gpus", "seen", "status", "says"),
    [
        (0, 0, "pass", "ranks compute on CPUs"),
        (8, 8, "pass", "one GPU for each rank, of 8 GPUs"),
        (8, 0, "warn", "8 GPUs stand idle"),
    ],
)
def test_gpus_that_stand_idle(gpus: int, seen: int, status: str, says: str) -> None:
    there = node(resources={"GPU": float(gpus)}, gpus=seen)
    found = idle_gpus([there], gpus)
    assert found.status == status
    assert says in found.what


def test_what_hangs_is_ended_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLflow that takes connections and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        ((group, found),) = examine(Place(tmp_path), {"tracking": 0.5})
    assert (group, found.status) == ("tracking", "fail")
    assert found.what == "gave no answer within 0.5 s"
    assert found.fix


def test_the_command_ends_with_3_when_a_check_fails(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        words = ["doctor", "--json", "--storage", str(tmp_path / "runs"), "--address", address]
        ended = CliRunner().invoke(main, words)
    assert ended.exit_code == 3
    body, _, error = ended.output.rpartition("]")
    assert "checks failed" in error
    found = one([Finding(**row) for row in json.loads(body + "]")], "cluster")
    assert (found.status, "nothing listens there" in found.what) == ("fail", True)
    assert not os.path.exists(tmp_path / "runs")
