"""MLflow dead, hung, refusing or locked: the sweep does not notice, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from medaug.errors import EnvironmentFault, UserError
from medaug.tracking import server
from medaug.tracking.gate import TOKEN_ENV
from medaug.tracking.spool import SPOOL, Backlog
from medaug.tracking.tracker import sync
from medaug.tracking.uri import diagnosis, tracking_uri, without_password
from medaug.tracking.view import VIEW_TAG
from tests.tracking.made_runs import study
from tests.tracking.mlflow_server import MlflowServer
from tests.tracking.played_sweeps import (
    BLOCKED_S,
    Played,
    all_is_told,
    all_runs,
    missing_points,
    note_of,
    wait_until,
    warnings_in,
)


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


def test_a_server_that_hangs_holds_up_no_other_run(
    play: Callable[..., Played], mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same process, as in a notebook."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setattr("medaug.tracking.tracker.LEAVE_S", 0.1)
    hung = play()
    database = hung.study.storage.parent / "other" / "mlflow.db"
    database.parent.mkdir()
    shutil.copy(mlflow_server.database, database)
    other = Played(study(database.parent, tracking={"required": True}))
    mlflow_server.hang()
    with hung.tracker():
        wait_until(lambda: mlflow_server.hanging)
        with other.tracker():
            assert mlflow_server.hanging


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
    down = Played(study(tmp_path / "down", tracking=tracking, name="down")).tracker()
    with pytest.raises(UserError, match=r"tracking\.required: MLflow at http.* cannot be reached"):
        down.__enter__()
    mlflow_server.start()
    down._thread.join(10)
    assert not down._thread.is_alive()
    assert mlflow_server.client().get_experiment_by_name("medaug/down") is None  # nor later


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
