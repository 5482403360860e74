"""A sweep submitted to a cluster: what is sent, who is let in, how it ends, and what is said."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from medaug.cli import main
from medaug.errors import UserError
from medaug.spec import load_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.sweep.cluster import jobs
from medaug.sweep.cluster.jobs import Job, Jobs, resume_command, run_command
from tests.cluster.head import Head, free_ports

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "jobs").glob("*.yaml"))

IMAGE = f"""\
#!/bin/sh
# Stands for the medaug in a cluster's image; the file `mode` says what it does.
echo "$@" >> calls
case $(cat mode) in
  wait)
    trap 'echo "error: stopped by SIGINT; medaug resume goes on"; exit 75' INT
    echo under way
    while :; do sleep 0.1; done ;;
  done) echo all good ;;
  full) echo "error: storage /x: need 9 MB, have 1 MB"; exit 3 ;;
  real) exec {sys.executable} -m medaug "$@" ;;
esac
"""


def invoke(*words: object, **environment: str | None) -> Result:
    return CliRunner().invoke(main, list(map(str, words)), env=environment)


# ---- what is sent ----


def received(command: str, folder: Path) -> tuple[str, Path]:
    """Arguments and standard input that a shell gives medaug."""
    fake = folder / "medaug"
    fake.write_text(f'#!/bin/sh\necho "$@" > {folder}/words\ncat > {folder}/study.yaml\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "RAY_ADDRESS": "head:6379"}
    subprocess.run(["sh", "-c", command], env=environment, check=True, stdin=subprocess.DEVNULL)
    return (folder / "words").read_text(), folder / "study.yaml"


def test_every_study_arrives_as_it_was_sent(tmp_path: Path) -> None:
    for path in SPECS:
        study = load_study(path, ARM_CONFIGS)
        words, arrived = received(run_command(study, storage="/a b", wait=True), tmp_path)
        assert words == "run /dev/stdin --address head:6379 --storage /a b --wait\n"
        assert load_study(arrived, ARM_CONFIGS) == study.model_copy(
            update={"storage": Path("/a b")}
        )


def test_a_name_cannot_leave_its_place(tmp_path: Path) -> None:
    words, _ = received(resume_command("x; touch y", storage="$(pwd)", wait=False), tmp_path)
    assert words == "resume x; touch y --address head:6379 --storage $(pwd)\n"


def test_what_a_resume_sets_arrives(tmp_path: Path) -> None:
    options = ["resources.max_concurrent=2", "tracking.uri=http://m/$(pwd)"]
    words, _ = received(resume_command("x", storage="/a", wait=False, overrides=options), tmp_path)
    said = " ".join(f"--set {option}" for option in options)
    assert words == f"resume x {said} --address head:6379 --storage /a\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--storage", "runs"], "--storage: 'runs' means nothing there"),
        (["--data", "scans"], "data.root: 'scans' means nothing there"),
        (["--set", "sweep.sedes=[0]"], "did you mean 'seeds'?"),
    ],
)
def test_a_study_that_cannot_run_there_is_refused_here(words: list[str], said: str) -> None:
    result = invoke("submit", ROOT / "jobs/demo.yaml", "--address", "http://127.0.0.1:1", *words)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    "address",
    ["head:6379", "ray://head:10001", "http://", "http://h:abc", "http://h:99999", "http://[::1"],
)
def test_jobs_go_to_the_dashboard(address: str) -> None:
    result = invoke("submit", ROOT / "jobs/demo.yaml", "--address", address)
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: address '{address}': write http://HOST:8265, Ray's dashboard\n",
    )


# ---- who is let in ----


def test_without_a_token_nobody_is_asked(tmp_path: Path) -> None:
    result = invoke(
        *("status", "--address", "http://127.0.0.1:1"),
        RAY_AUTH_TOKEN=None,
        RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"),
    )
    assert result.exit_code == 3
    assert "No such file or directory; put the cluster's token there (0600)" in result.stderr


def test_a_cluster_that_is_not_there() -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    result = invoke("status", "--address", address, RAY_AUTH_TOKEN="x")
    assert result.exit_code == 3
    assert f"cluster {address}: Connection refused; is its head up" in result.stderr


# ---- how it ends ----


@pytest.mark.parametrize(
    ("code", "last_words", "exit_code", "said"),
    [
        (2, "error: data.root: is no folder", 2, "job j: data.root: is no folder"),
        (4, "error: 3 trials failed", 4, "job j: 3 trials failed"),
        (5, "error: shard-0: damaged", 5, "job j: shard-0: damaged"),
        (75, "error: the Ray cluster is lost", 75, "job j: the Ray cluster is lost"),
        (127, "sh: 1: exec: medaug: not found", 3, "must be installed in the cluster's image"),
        (127, "bash: MEDAUG_STORAGE: is not set", 3, "job j: bash: MEDAUG_STORAGE: is not set"),
        (-9, "Killed", 3, "job j: Killed"),
        (None, "", 3, "left no word"),
    ],
)
def test_a_job_ends_as_its_run(
    code: int | None, last_words: str, exit_code: int, said: str
) -> None:
    job = Job("j", "run", "me@here", "failed", "2026", None, code, last_words)
    error = job.error()
    assert error is not None
    assert error.exit_code == exit_code
    assert said in str(error)


# ---- on a cluster ----


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    image = folder / "image"
    image.mkdir()
    with Head(folder, PATH=f"{image}:/usr/bin:/bin", SECRET_OF_THE_CLUSTER="s3cret") as head:
        yield head


@pytest.fixture
def ask(head: Head, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A command at a terminal that has the cluster's token."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(head.token_file))
    monkeypatch.setenv("SECRET_OF_MINE", "s3cret")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    install(head)

    def ask(*words: object, **environment: str) -> Result:
        return invoke(*words, "--address", head.url, **environment)

    return ask


def install(head: Head, mode: str = "done") -> None:
    """Put medaug into the image of the cluster."""
    script = head.folder / "image/medaug"
    script.write_text(IMAGE)
    script.chmod(0o755)
    (head.folder / "mode").write_text(mode)


def calls(head: Head) -> list[str]:
    return (head.folder / "calls").read_text().splitlines()


DEMO = ROOT / "jobs/demo.yaml"


@pytest.mark.ray
def test_a_wrong_token_is_told_from_a_missing_one(head: Head, ask: Callable[..., Result]) -> None:
    result = ask("status", RAY_AUTH_TOKEN="wrong")
    assert result.exit_code == 3
    assert "does not accept the token in RAY_AUTH_TOKEN" in result.stderr


@pytest.mark.ray
def test_submit_follow_and_what_it_takes_along(head: Head, ask: Callable[..., Result]) -> None:
    result = ask("submit", DEMO, "--storage", "/r", "--name", "first", "--follow")
    assert result.exit_code == 0, result.output
    assert "\nall good\n" in result.stdout
    assert f"medaug stop first --address {head.url}" in result.stdout
    assert re.fullmatch(r"run /dev/stdin --address \S+:\d+ --storage /r", calls(head)[-1])
    (info,) = Jobs(head.url)._client.list_jobs()
    assert info.submission_id == "medaug-first-1"
    assert info.runtime_env is not None
    assert info.runtime_env["env_vars"] == {
        "RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "40",
    }  # fmt: skip
    assert "working_dir" not in info.runtime_env
    assert "s3cret" not in repr(info)
    assert head.token_file.read_text() not in repr(info)

    result = ask("resume", "first", "--follow", MEDAUG_STORAGE="/here/not/there")
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"resume first --address \S+:\d+ --storage /r", calls(head)[-1])


@pytest.mark.ray
def test_its_own_error_is_the_commands(
    head: Head, ask: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        jobs, "SETTLE_S", 60.0
    )  # a busy machine takes more than 3 s to a first word
    install(head, "full")
    result = ask("submit", DEMO, "--storage", "/r", "--name", "full")
    assert result.exit_code == 3
    assert "job medaug-full-1: storage /x: need 9 MB, have 1 MB" in result.stderr
    result = ask("submit", DEMO, "--name", "homeless")
    assert result.exit_code == 2
    assert "MEDAUG_STORAGE: is not set on the cluster; give --storage DIR" in result.stderr
    shutil.rmtree(head.folder / "image")
    (head.folder / "image").mkdir()
    result = ask("submit", DEMO, "--storage", "/r", "--name", "missing")
    assert result.exit_code == 3
    assert "medaug must be installed in the cluster's image" in result.stderr


@pytest.mark.ray
def test_medaug_itself_reads_what_was_sent(head: Head, ask: Callable[..., Result]) -> None:
    install(head, "real")
    words = ["--data", "/nowhere", "--storage", head.folder / "runs", "--follow"]
    result = ask("submit", ROOT / "jobs/glioma.yaml", *words)
    assert result.exit_code == 2, result.output
    assert "job medaug-glioma-1: data.root: is no folder" in result.stderr


@pytest.mark.ray
def test_a_running_sweep_is_refused_then_stopped(head: Head, ask: Callable[..., Result]) -> None:
    install(head, "wait")
    started: list[Job] = []
    refused: list[str] = []
    both = threading.Barrier(2)

    def race() -> None:
        jobs = Jobs(head.url)
        both.wait()
        try:
            started.append(
                jobs.submit("busy", resume_command("busy", storage="/r", wait=False), "/r")
            )
        except UserError as error:
            refused.append(str(error))

    racers = [threading.Thread(target=race) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    (job,) = started
    assert len(refused) == 1
    jobs = Jobs(head.url)
    deadline = time.monotonic() + 120
    while jobs.last_words(job) != "under way":
        assert time.monotonic() < deadline, jobs.get(job.id)
        time.sleep(0.2)

    result = ask("submit", DEMO, "--storage", "/r", "--name", "busy")
    assert result.exit_code == 2
    for part in ("busy is running", job.id, job.by, job.since, "medaug stop busy"):
        assert part in result.stderr
    result = ask("status", "busy", "--json", "--storage", head.folder)
    (told,) = json.loads(result.stdout)["jobs"]
    assert (told["id"], told["state"]) == (job.id, "running")

    result = ask("stop", "busy")
    assert result.exit_code == 0, result.output
    assert f"{job.id}: stopped; error: stopped by SIGINT" in result.stdout
    assert f"medaug resume busy --address {head.url} --storage /r" in result.stdout
    assert jobs.running("busy") is None
    assert "busy is not running" in ask("stop", "busy").stdout
