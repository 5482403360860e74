"""Who runs a run, how far it is, and to stop it from another terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from medaug.cli import main
from medaug.ownership.status import runs_in, state_of, stop
from medaug.spec import GenerateTrial, WrittenArm
from medaug.storage.results import ExtractResult
from medaug.storage.trial_folder import TrialFolder

DRIVER = """
import signal, sys
from pathlib import Path
from medaug.ownership.lease import Lease
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append("SIGTERM"))
with Lease(Path(sys.argv[1])):
    print("under way", flush=True)
    while not asked:
        signal.pause()
sys.exit(75)
"""


def a_run(storage: Path) -> Path:
    """A run with one trial of each kind."""
    folder = storage / "demo"
    folder.mkdir()
    (folder / "study.json").write_text("{}")
    for seed, end in enumerate(["done", "stopped early", "failed", "begun", "waiting"]):
        config = GenerateTrial(
            arm="x", maker=WrittenArm(kind="noise"), n=1, features="none", fold=0, seed=seed
        )
        trial = TrialFolder(folder, config.key)
        trial.claim(config)
        if end != "waiting":
            trial.log_epoch({"epoch": 1, "metrics": {}})
        if end == "done":
            trial.finish(ExtractResult(output="none", rows=0, shape=()))
        if end == "stopped early":
            trial.stop(1, {})
        if end == "failed":
            trial.fail({"error": "hang"})
    return folder


def drive(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, str(folder)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "under way\n"
    return driver


def test_stop_ends_the_driver_and_says_who_it_was(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    driver = drive(folder)
    state = state_of(folder)
    assert state.trials == dict.fromkeys(["done", "stopped early", "failed", "begun", "waiting"], 1)
    assert state.holder is not None
    assert state.holder.pid == driver.pid
    told = CliRunner().invoke(main, ["status", "--storage", str(tmp_path)])
    assert told.stdout == (
        f"demo: running ({state.holder}); trials: 1 done, 1 stopped early, 1 failed, 1 begun, "
        "1 waiting\n"
    )
    result = CliRunner().invoke(main, ["stop", "demo", "--storage", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert f"stopped demo ({state.holder})" in result.stdout
    assert f"medaug resume demo --storage {tmp_path}" in result.stdout
    assert driver.wait(60) == 75
    again = CliRunner().invoke(main, ["stop", "demo", "--storage", str(tmp_path)])
    assert (again.exit_code, again.stdout) == (0, "demo is not running\n")


def test_a_driver_elsewhere_is_named_not_signalled(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    driver = drive(folder)
    try:
        lease = max(folder.glob("lease-*.json"))
        here = json.loads(lease.read_text())
        lease.write_text(json.dumps(here | {"machine": "elsewhere", "host": "far"}))
        result = CliRunner().invoke(main, ["stop", "demo", "--storage", str(tmp_path)])
        assert result.exit_code == 3
        assert f"its driver is elsewhere (host far, pid {driver.pid}" in result.stderr
        assert driver.poll() is None
    finally:
        driver.kill()
        driver.wait()


def test_nothing_runs(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    before = sorted(folder.rglob("*"))
    assert runs_in(tmp_path) == ["demo"]
    assert state_of(folder).holder is None
    assert stop(folder) is None
    told = json.loads(
        CliRunner().invoke(main, ["status", "--json", "--storage", str(tmp_path)]).stdout
    )
    assert told["runs"][0]["holder"] is None
    assert sorted(folder.rglob("*")) == before
    empty = tmp_path / "empty"
    result = CliRunner().invoke(main, ["status", "--storage", str(empty)])
    assert (result.exit_code, result.stdout) == (0, f"no runs in {empty}\n")


@pytest.mark.parametrize("command", ["stop", "status"])
def test_a_name_that_was_mistyped(tmp_path: Path, command: str) -> None:
    a_run(tmp_path)
    result = CliRunner().invoke(main, [command, "dmeo", "--storage", str(tmp_path)])
    assert result.exit_code == 2
    assert "no such run" in result.stderr
    assert "have demo" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["run", "jobs/demo.yaml"],
        ["submit", "jobs/demo.yaml", "--address", "http://127.0.0.1:1"],
        ["resume", "demo"],
        ["status"],
        ["stop", "demo"],
        ["leaderboard", "demo"],
    ],
)
def test_an_address_that_is_none_of_a_bucket_is_refused_at_once(words: list[str]) -> None:
    result = CliRunner().invoke(main, [*words, "--storage", "ftp://host/runs"])
    assert result.exit_code == 2
    assert "ftp:// is not known; give a path that all nodes see" in result.stderr
    assert not Path("ftp:").exists()
