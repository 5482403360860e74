"""MLflow dead, hung, refusing or locked: the sweep does not notice, and nothing is lost."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from medaug.errors import EnvironmentFault, UserError
from medaug.spec import TrialConfig
from medaug.tracking import server
from medaug.tracking.gate import TOKEN_ENV
from medaug.tracking.mirror import read_sent
from medaug.tracking.spool import SPOOL, Backlog
from medaug.tracking.tracker import sync
from medaug.tracking.uri import as_it_is, diagnosis, tracking_uri, without_password
from medaug.tracking.view import VIEW_TAG
from tests.tracking.made_runs import study
from tests.tracking.mlflow_server import MlflowServer
from tests.tracking.played_sweeps import (
    Played,
    all_is_told,
    all_runs,
    client_of,
    missing_points,
    note_of,
    wait_until,
)

BLOCKED_S = 1.0  # a client that waits for its server waits ten; a busy machine less than one


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> MlflowServer:
    database = tmp_path_factory.mktemp("server") / "mlflow.db"
    return MlflowServer(shutil.copy(empty_database, database))


@pytest.fixture
def mlflow_server(
    one_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MlflowServer]:
    """Up, and patience with it is short."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    one_server.recover()
    yield one_server
    one_server.recover()


@pytest.fixture
def play(
    tmp_path: Path, mlflow_server: MlflowServer, request: pytest.FixtureRequest
) -> Callable[..., Played]:
    """Starts a sweep that is tracked by the server, under the test's own name."""

    def start(**changes: Any) -> Played:
        name = request.node.name.replace("[", "-").replace("]", "")[-60:].strip("_-")
        tracking = {"uri": mlflow_server.url}
        return Played(study(tmp_path, **{"name": name, "tracking": tracking, **changes}))

    return start


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "medaug.tracking.tracker" and record.levelno >= logging.WARNING
    ]


def test_a_sweep_without_mlflow_is_told_later(
    play: Callable[..., Played], mlflow_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    played = play()
    mlflow_server.die()
    began = time.monotonic()
    with played.tracker() as tracker:
        assert time.monotonic() - began < 5  # the client's patience is longer
        trials = list(played.plan.classify[:4])
        played.play(tracker, trials, epochs=50)
        spool = played.folder / SPOOL
        wait_until(lambda: spool.exists() and trials[0].key in spool.read_text())
    assert played.nearly_slowest_s() < BLOCKED_S
    first, last = warnings_in(caplog)
    assert "cannot be reached; start it" in first
    assert "Training goes on" in first
    assert f"`medaug sync {played.study.name}`" in last
    assert spool.stat().st_mode & 0o777 == 0o600
    with pytest.raises(EnvironmentFault, match="cannot be reached"):
        sync(played.folder)

    mlflow_server.start()
    assert sync(played.folder) == 4
    assert not spool.exists()
    client = mlflow_server.client()
    assert missing_points(client, played.folder, played.study.name) == []
    assert {run.info.status for run in all_runs(client, played.study.name)} == {"FINISHED"}
    assert sync(played.folder) == 0


def test_a_server_that_comes_back_is_told_at_once(
    play: Callable[..., Played], mlflow_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    played = play()
    first, second = played.plan.classify[:2]
    client = mlflow_server.client()
    with played.tracker() as tracker:
        played.play(tracker, [first])
        wait_until(note_of(played, first).exists)
        mlflow_server.die()
        played.play(tracker, [second])
        wait_until(lambda: (played.folder / SPOOL).exists())
        mlflow_server.start()
        wait_until(lambda: all_is_told(client, played))
    assert not (played.folder / SPOOL).exists()
    assert len(warnings_in(caplog)) == 1


def test_a_server_that_hangs_blocks_nobody(
    play: Callable[..., Played], mlflow_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    played = play()
    config, *_ = played.plan.classify
    with played.tracker() as tracker:
        played.begin(tracker, config)
        played.epoch(tracker, config, 1)
        wait_until(note_of(played, config).exists)
        mlflow_server.hang()
        for epoch in range(2, 200):
            played.epoch(tracker, config, epoch)
        wait_until(lambda: len(warnings_in(caplog)) == 1)
        mlflow_server.recover()
        wait_until(lambda: all_is_told(mlflow_server.client(), played))
    assert played.nearly_slowest_s() < BLOCKED_S
    assert "does not answer" in warnings_in(caplog)[0]


def test_what_a_server_does_too_late_is_not_there_twice(
    play: Callable[..., Played], mlflow_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    played = play()
    config, *_ = played.plan.classify
    with played.tracker() as tracker:
        mlflow_server.hang("runs/create")
        played.play(tracker, [config])
        wait_until(lambda: len(warnings_in(caplog)) == 1)
        mlflow_server.recover()
        wait_until(lambda: all_is_told(mlflow_server.client(), played))
        assert len(all_runs(mlflow_server.client(), played.study.name)) > 2
    runs = all_runs(mlflow_server.client(), played.study.name)
    assert len(runs) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.parametrize(
    ("status", "hint"),
    [(403, "start it with --allowed-hosts 127.0.0.1:"), (500, "fails (")],
    ids=["403", "500"],
)
def test_a_server_that_refuses_is_explained_once(
    play: Callable[..., Played],
    mlflow_server: MlflowServer,
    caplog: pytest.LogCaptureFixture,
    status: int,
    hint: str,
) -> None:
    played = play()
    mlflow_server.refuse(status)
    with played.tracker(retry_s=0.01) as tracker:
        played.play(tracker, list(played.plan.classify[:3]))
        wait_until(lambda: tracker._trouble is not None)
        time.sleep(0.5)
        assert len(warnings_in(caplog)) == 1
    assert hint in warnings_in(caplog)[0]
    mlflow_server.recover()
    sync(played.folder)
    assert missing_points(mlflow_server.client(), played.folder, played.study.name) == []


def test_a_locked_database_blocks_nobody(tmp_path: Path, empty_database: Path) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    played = Played(study(tmp_path, tracking={"required": True}))
    trials = list(played.plan.classify[:3])
    with played.tracker() as tracker:
        other = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        played.play(tracker, trials, epochs=30)
        time.sleep(1)
        assert played.nearly_slowest_s() < BLOCKED_S
        other.execute("COMMIT")
        other.close()
    sync(played.folder)
    assert missing_points(client_of(played.study), played.folder) == []


@pytest.mark.chaos
def test_a_database_locked_for_two_minutes(
    tmp_path: Path, empty_database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    played = Played(study(tmp_path))
    first, second = played.plan.classify[:2]
    with played.tracker(retry_s=1.0) as tracker:
        played.play(tracker, [first])
        wait_until(note_of(played, first).exists)
        other = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        unlocked = time.monotonic() + 120
        played.begin(tracker, second)
        for epoch in range(1, 100):
            played.epoch(tracker, second, epoch)
        assert played.nearly_slowest_s() < BLOCKED_S
        wait_until(lambda: "is locked by another process" in str(warnings_in(caplog)), 110)
        time.sleep(max(0.0, unlocked - time.monotonic()))
        other.execute("COMMIT")
        other.close()
        wait_until(lambda: all_is_told(client_of(played.study), played))
    assert 1 <= len(warnings_in(caplog)) <= 3  # one a minute


def into_nothing(database: Path, empty: Path) -> None:
    database.unlink()


def into_an_empty_one(database: Path, empty: Path) -> None:
    shutil.copy(empty, database.with_name("other.db"))
    database.with_name("other.db").rename(database)


@pytest.mark.parametrize("turn", [into_nothing, into_an_empty_one])
def test_a_database_that_is_another_one_in_the_middle_gets_all_again(
    tmp_path: Path,
    empty_database: Path,
    caplog: pytest.LogCaptureFixture,
    turn: Callable[[Path, Path], None],
) -> None:
    """SQLite goes on reading a file that has no name any more, and writes nothing to it."""
    database = Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))
    played = Played(study(tmp_path))
    first, second, third = played.plan.classify[:3]
    with played.tracker() as tracker:
        played.play(tracker, [first])
        wait_until(note_of(played, first).exists)
        before = parent_of(played, first)
        turn(database, empty_database)
        played.play(tracker, [second], epochs=40)
        for config in (first, second):
            wait_until(lambda: parent_of(played, config) not in ("", before))  # noqa: B023
    client = known_by(database)
    assert missing_points(client, played.folder) == []
    assert len(all_runs(client)) == 3
    assert played.nearly_slowest_s() < BLOCKED_S
    (line,) = warnings_in(caplog)
    assert "mlflow.db was deleted or replaced: it gets all of this run again" in line

    database.unlink()  # after the run, and in the same process
    assert sync(played.folder) == 2
    assert missing_points(known_by(database), played.folder) == []
    assert sync(played.folder) == 0
    assert database.stat().st_mode & 0o777 == 0o600
    with played.tracker() as tracker:  # as one that is resumed
        played.play(tracker, [third])
    assert missing_points(known_by(database), played.folder) == []


def known_by(database: Path) -> MlflowClient:
    """A client of the file that is there now."""
    assert database.exists()  # it would be made
    return MlflowClient(as_it_is(f"sqlite:///{database}"))


def parent_of(played: Played, config: TrialConfig) -> str:
    """Where the tracker has told of a trial: the sweep's run in MLflow."""
    sent = read_sent(played.folder / "trials" / config.key)
    return sent.parent if sent else ""


def test_a_database_that_is_none_ends_nothing(
    tmp_path: Path, empty_database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))
    played = Played(study(tmp_path))
    first, second = played.plan.classify[:2]
    with played.tracker() as tracker:
        played.play(tracker, [first])
        wait_until(note_of(played, first).exists)
        database.unlink()
        database.write_bytes(b"not SQLite, whatever its name says" * 100)
        played.play(tracker, [second])
    assert "`medaug sync made`" in warnings_in(caplog)[-1]
    with pytest.raises(EnvironmentFault, match="is no database, or a damaged one; put it aside"):
        sync(played.folder)
    database.unlink()
    assert sync(played.folder) == 2
    assert missing_points(known_by(database), played.folder) == []


def test_a_server_that_is_slow_is_waited_for(
    play: Callable[..., Played], mlflow_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    played = play()
    mlflow_server.slow(0.3)
    with played.tracker() as tracker:
        played.play(tracker, list(played.plan.classify[:2]), epochs=40)
        assert played.nearly_slowest_s() < BLOCKED_S
        wait_until(lambda: all_is_told(mlflow_server.client(), played))
        mlflow_server.recover()
    assert warnings_in(caplog) == []


def test_what_mlflow_cannot_take_does_not_keep_the_rest_back(
    play: Callable[..., Played], mlflow_server: MlflowServer
) -> None:
    played = play()
    broken, *others = played.plan.classify[:3]
    with played.tracker() as tracker:
        played.begin(tracker, broken)
        played.epoch(tracker, broken, 1)
        result = played.folder / "trials" / broken.key / "result.json"
        result.write_text("{")
        played.play(tracker, others)
    client = mlflow_server.client()
    keys = {config.key for config in others}
    shown = {
        run.data.tags["key"]: run.info.status
        for run in all_runs(client, played.study.name)
        if run.data.tags.get("key") in keys
    }
    assert shown == dict.fromkeys(keys, "FINISHED")


def test_more_news_than_fit_go_through_the_disk(
    play: Callable[..., Played], mlflow_server: MlflowServer
) -> None:
    played = play()
    mlflow_server.hang()
    with played.tracker(limit=2) as tracker:
        played.play(tracker, list(played.plan.classify[:8]))
        assert (played.folder / SPOOL).exists()
        mlflow_server.recover()
    sync(played.folder)
    assert missing_points(mlflow_server.client(), played.folder, played.study.name) == []


def test_required_means_now(tmp_path: Path, mlflow_server: MlflowServer) -> None:
    tracking = {"uri": mlflow_server.url, "required": True}
    with Played(study(tmp_path / "up", tracking=tracking)).tracker():
        pass
    mlflow_server.die()
    with pytest.raises(UserError, match=r"tracking\.required: MLflow at http.* cannot be reached"):
        Played(study(tmp_path / "down", tracking=tracking)).tracker().__enter__()


def test_folders_are_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"tracking\.uri: \./mlruns is a folder"):
        Played(study(tmp_path, tracking={"uri": "./mlruns"})).tracker()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///somewhere/mlruns")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI: file:///somewhere"):
        tracking_uri(study(tmp_path), tmp_path)
    spec = study(tmp_path, tracking={"uri": "http://tracking:5000"})
    assert tracking_uri(spec, tmp_path) == "http://tracking:5000"


def test_passwords_are_not_printed() -> None:
    error = ValueError("API request to http://me:secret@host:5000/api failed: read timed out")
    text = diagnosis(error, "http://me:secret@host:5000")
    assert text == "MLflow at http://host:5000 does not answer; look at its log, or restart it"
    assert without_password("sqlite:////a@b/mlflow.db") == "sqlite:////a@b/mlflow.db"
    assert "secret" not in diagnosis(ValueError("x http://a:secret@h/ y"), "http://a:secret@h")


def test_a_backlog_keeps_each_name_once_and_in_order(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "spool", limit=2)
    for name in ("a", "b", "a", "c", "b", "d"):
        backlog.add(name)
    lines = (tmp_path / "spool").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["c", "d"]
    assert backlog.take() == ["c", "d", "a", "b"]
    backlog.done("d")
    backlog.add("a")
    backlog.spill(last="c")
    with open(tmp_path / "spool", "a") as file:
        file.write('{"name": "to')  # torn
    backlog.close()
    assert Backlog(tmp_path / "spool").take() == ["a", "b", "c"]
    assert backlog.take() == []


def test_a_backlog_keeps_in_memory_what_the_disk_does_not_take(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "gone" / "spool", limit=1)
    for name in ("a", "b"):
        backlog.add(name)
    backlog.spill()
    assert sorted(backlog.take()) == ["a", "b"]


def test_the_ui_is_this_machine_s_only_and_unpickles_nothing(
    tmp_path: Path,
    empty_database: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError, match=r"mlflow\.db: not there; run a study first"):
        server.serve(tmp_path, 5000)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    begun = client.create_experiment("medaug/begun")
    done = client.create_experiment("medaug/done", tags={VIEW_TAG: "{}"})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="is taken"):
            server.serve(tmp_path, taken.getsockname()[1])
        port = taken.getsockname()[1]
    became: list[Any] = []
    monkeypatch.setenv(TOKEN_ENV, "an older one")
    monkeypatch.setattr(os, "execv", lambda path, words: became.append((path, words)))
    for name in ("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"):
        monkeypatch.setenv(name, "true")
    server.serve(tmp_path, port)
    ((path, words),) = became
    assert path == sys.executable
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--backend-store-uri") + 1] == f"sqlite:///{tmp_path}/mlflow.db"
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    said = capsys.readouterr().out.splitlines()
    token = os.environ[TOKEN_ENV]
    assert len(token) >= 32
    start = f"http://127.0.0.1:{port}/?token={token}"
    assert said[0].startswith(f"MLflow starts at {start} ")
    page = f"{start}#/experiments"
    kind = "workflowType=machine_learning"
    assert set(said[1:]) == {
        f"  begun: {page}/{begun}/runs?{kind}",
        f"  done: {page}/{done}/runs?{kind}&viewStateShareKey=leaderboard",
    }
