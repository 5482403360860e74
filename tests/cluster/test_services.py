"""What compose.yaml starts, started by hand: PostgreSQL, an S3 store and MLflow with its login.

Commands, settings and secrets are those of ``docker/``; only names of hosts are put in their place.
``pip install -e '.[services]' && apt install postgresql && pytest -m services -s``
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.cluster.head import free_ports, listens

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 300
STUDY = """\
name: small
data: {image_size: 32, phantom: {patients: 12, slices: [3, 4]}}
split: {folds: 2}
arms: {none: {}, duplicate: {}}
classifier: {kind: linear, epochs: 3, lr: 0.05}
sweep: {n_synthetic: [12], seeds: [0]}
tracking: {required: true}
"""


def postgres(name: str) -> str:
    """The PostgreSQL program ``name``; Debian keeps them off the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    if found is None:
        pytest.skip("PostgreSQL is not installed; apt install postgresql")
    return found


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that PostgreSQL's user can enter; with the secrets of ``docker/``."""
    for module in ("moto", "boto3", "psycopg2", "flask_wtf"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; pip install -e '.[services]'")
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o711)
        shutil.copy(ROOT / "docker/make-secrets.sh", path)
        subprocess.run([path / "make-secrets.sh"], check=True, capture_output=True)
        yield path


@pytest.fixture(scope="module")
def made(place: Path) -> dict[str, str]:
    lines = (place / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture(scope="module")
def compose(made: dict[str, str], place: Path) -> dict[str, Any]:
    """``compose.yaml`` with the secrets in it, and its hosts on ports of this one."""
    text = (ROOT / "docker/compose.yaml").read_text()
    text = re.sub(r"\$\{(\w+):[?-][^}]*\}", lambda match: made.get(match[1], ""), text)
    database, s3, mlflow = free_ports(3)
    text = text.replace("@postgres/", f"@127.0.0.1:{database}/").replace(
        "s3:9000", f"127.0.0.1:{s3}"
    )
    text = text.replace("--host 0.0.0.0 --port 5000", f"--host 127.0.0.1 --port {mlflow}")
    text = text.replace("127.0.0.1:5000 ", f"127.0.0.1:{mlflow} ")
    text = text.replace("127.0.0.1:5000\n", f"127.0.0.1:{mlflow}\n")
    text = text.replace("/run/secrets/mlflow_auth", str(place / "secrets/mlflow_auth.ini"))
    auth = place / "secrets/mlflow_auth.ini"
    auth.write_text(auth.read_text().replace("@postgres/", f"@127.0.0.1:{database}/"))
    return {**yaml.safe_load(text), "ports": {"postgres": database, "s3": s3, "mlflow": mlflow}}


@contextlib.contextmanager
def process(command: list[str], port: int, log: Path, **environment: str) -> Iterator[None]:
    with open(log, "w") as output:
        started = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                **environment,
            },
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not listens("127.0.0.1", port):
            assert started.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        started.terminate()
        started.wait(60)


@pytest.fixture(scope="module")
def database(place: Path, compose: dict[str, Any], made: dict[str, str]) -> Iterator[int]:
    port = compose["ports"]["postgres"]
    folder, password = place / "postgres", place / "password"
    password.write_text(made["POSTGRES_PASSWORD"])
    folder.mkdir()
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        for path in (folder, password):
            shutil.chown(path, "postgres", "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    init = [*as_user, postgres("initdb"), "--username=mlflow", "--auth=scram-sha-256"]
    init += [f"--pwfile={password}", "--no-sync", f"--pgdata={folder}"]
    subprocess.run(init, check=True, capture_output=True, cwd="/")
    run = [*as_user, postgres("postgres"), "-D", str(folder), "-p", str(port)]
    run += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
    with process(run, port, place / "postgres.log"):
        import psycopg2

        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                connection = psycopg2.connect(
                    host="127.0.0.1", port=port, user="mlflow", dbname="postgres",
                    password=made["POSTGRES_PASSWORD"],
                )  # fmt: skip
                break
            except psycopg2.OperationalError:  # it listens, but is still starting up
                assert time.monotonic() < deadline
                time.sleep(0.2)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE mlflow;")  # the container makes it for POSTGRES_USER
            cursor.execute(compose["configs"]["second_database"]["content"])
        connection.close()
        yield port


@pytest.fixture(scope="module")
def server(database: int, place: Path, compose: dict[str, Any]) -> Iterator[str]:
    """URL of MLflow, started by the compose file's own command."""
    s3, port = compose["ports"]["s3"], compose["ports"]["mlflow"]
    moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(s3)]
    service, bucket = compose["services"]["mlflow"], compose["services"]["bucket"]
    with process(moto, s3, place / "s3.log"):
        for _ in range(2):  # the second time it is there already
            command = [sys.executable, *shlex.split(bucket["command"])[1:]]
            subprocess.run(command, check=True, env={**os.environ, **bucket["environment"]})
        command = [sys.executable, "-m", *shlex.split(service["command"]), "--workers", "1"]
        with process(command, port, place / "mlflow.log", **service["environment"]):
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + START_TIMEOUT_S
            while not healthy(url):
                assert time.monotonic() < deadline, (place / "mlflow.log").read_text()
                time.sleep(0.5)
            yield url


def healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=10).ok
    except requests.RequestException:
        return False


def test_nobody_gets_in_without_the_password(server: str, made: dict[str, str]) -> None:
    search = f"{server}/api/2.0/mlflow/experiments/search"
    user, password = made["MLFLOW_USER"], made["MLFLOW_PASSWORD"]
    asked = {"json": {"max_results": 1}, "timeout": 60}
    assert requests.post(search, **asked).status_code == 401
    assert requests.post(search, auth=(user, "password1234"), **asked).status_code == 401
    assert requests.post(search, auth=("admin", "password1234"), **asked).status_code == 401
    assert requests.post(search, auth=(user, password), **asked).status_code == 200
    elsewhere = {"Host": "evil.example"}
    refused = requests.post(search, auth=(user, password), headers=elsewhere, **asked)
    assert refused.status_code == 403


def test_a_sweep_is_tracked_there(
    server: str, made: dict[str, str], compose: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    login = {
        "MLFLOW_TRACKING_URI": server,
        "MLFLOW_TRACKING_USERNAME": made["MLFLOW_USER"],
        "MLFLOW_TRACKING_PASSWORD": made["MLFLOW_PASSWORD"],
    }
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "medaug",
            "run",
            tmp_path / "small.yaml",
            "--storage",
            tmp_path / "runs",
        ],
        env={**os.environ, **login},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert made["MLFLOW_PASSWORD"] not in run.stdout + run.stderr
    auth = (made["MLFLOW_USER"], made["MLFLOW_PASSWORD"])

    def ask(what: str, **body: Any) -> Any:
        answer = requests.post(
            f"{server}/api/2.0/mlflow/{what}/search", json=body, auth=auth, timeout=60
        )
        answer.raise_for_status()
        return answer.json()

    experiments = ask("experiments", max_results=100)["experiments"]
    (experiment,) = [found for found in experiments if found["name"] == "medaug/small"]
    runs = ask("runs", experiment_ids=[experiment["experiment_id"]], max_results=1000)["runs"]
    status = {
        tag["value"]: run["info"]["status"]
        for run in runs
        for tag in run["data"]["tags"]
        if tag["key"] == "medaug.key"
    }
    trials = [f"small/{path.name}" for path in (tmp_path / "runs/small/trials").iterdir()]
    assert trials
    assert {status.get(trial) for trial in trials} == {"FINISHED"}
    assert not list((tmp_path / "runs").glob("mlflow.db")), "it was tracked beside the server, too"

    import boto3

    settings = compose["services"]["mlflow"]["environment"]
    s3 = boto3.client(
        "s3",
        endpoint_url=settings["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        region_name=settings["AWS_DEFAULT_REGION"],
    )
    objects = [item["Key"] for item in s3.list_objects_v2(Bucket="mlflow")["Contents"]]
    assert objects
    print(
        f"\nMLflow {server} on PostgreSQL {compose['ports']['postgres']}, artifacts in s3://mlflow"
    )
    print(f"runs: {len(runs)} ({len(trials)} trials, all FINISHED); objects: {len(objects)}")
    print(*objects, sep="\n")
