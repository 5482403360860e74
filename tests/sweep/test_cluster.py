"""What fits into a cluster, and what is said when it is not there."""

from __future__ import annotations

import logging
import os
import socket
import stat
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from medaug.errors import EnvironmentFault, UserError, lines_of
from medaug.spec import ResourceSpec
from medaug.sweep.cluster import auth
from medaug.sweep.cluster import start as cluster
from medaug.sweep.cluster.environment import for_ray
from medaug.sweep.cluster.start import Cluster, capacity

NODES = [{"CPU": 4.0}, {"CPU": 2.0, "GPU": 2.0}, {"memory": 1.0}]


@pytest.mark.parametrize(
    ("resources", "room"),
    [
        ({}, 6),
        ({"cpus_per_rank": 0.1}, 60),
        ({"cpus_per_rank": 3}, 1),
        ({"cpus_per_rank": 8}, 0),
        ({"gpus_per_rank": 1}, 2),
        ({"gpus_per_rank": 0.25, "cpus_per_rank": 0.1}, 8),
        ({"strategy": "STRICT_PACK"}, 4),
        ({"strategy": "STRICT_SPREAD"}, 2),
        ({"strategy": "SPREAD"}, 6),
    ],
)
def test_room_for_ranks(resources: dict[str, object], room: int) -> None:
    assert capacity(NODES, ResourceSpec.model_validate(resources)) == room
    assert capacity([], ResourceSpec.model_validate(resources)) == 0


@pytest.mark.parametrize(
    "address",
    ["auto", "ray://head:10001", "head", "head:", ":6379", "head:abc", "head:0", "head:99999"],
)
def test_an_address_is_explicit(address: str) -> None:
    with pytest.raises(UserError, match="write HOST:PORT"):
        Cluster(address)


def test_a_cluster_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 32)
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(EnvironmentFault, match=f"127.0.0.1:{port}: nothing listens there"):
        Cluster(f"127.0.0.1:{port}").start()
    assert time.monotonic() - started < 30
    assert os.environ["RAY_AUTH_MODE"] == ""


def test_a_cluster_that_refuses_without_a_word_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**options: object) -> None:
        raise ConnectionError  # as Ray 2.53 does for a wrong token

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.setattr(auth, "ASK_S", 0.1)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 32)
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        with pytest.raises(EnvironmentFault, match=f"{address}: ConnectionError; does RAY_AUTH"):
            Cluster(address).start()


@pytest.mark.parametrize("said", ["", " \n"])
def test_what_an_error_says_is_a_line_at_least(said: str) -> None:
    assert lines_of(ConnectionError(said)) == ["ConnectionError"]
    assert lines_of(ConnectionError(f"{said}one\ntwo\n")) == ["one", "two"]


@pytest.mark.parametrize(
    ("asks", "mode"), [(True, "token"), (False, "disabled"), (None, "token")], ids=str
)
def test_the_token_is_sent_to_a_cluster_that_wants_one(
    asks: bool | None, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "asks_for_token", lambda address: asks)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 32)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with auth.token_for("host:1"):
        assert os.environ["RAY_AUTH_MODE"] == mode
    assert "RAY_AUTH_MODE" not in os.environ


def test_a_token_that_a_cluster_does_not_want(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "asks_for_token", lambda address: False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with (
        pytest.raises(EnvironmentFault, match="host:1: runs without a token"),
        auth.token_for("host:1"),
    ):
        pass


class SlowRay:
    """Ray's start, on a machine that is busy for the first ``failures`` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
        self.starts = 0
        self.failures = failures
        monkeypatch.setattr("ray.init", self.init)
        monkeypatch.setattr("ray.shutdown", lambda: None)
        monkeypatch.setattr("ray.is_initialized", lambda: False)

    def init(self, **options: object) -> None:
        self.starts += 1
        if self.starts <= self.failures:
            raise Exception("The current node timed out during startup.")


def test_a_slow_start_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = SlowRay(monkeypatch, failures=2)
    monkeypatch.setattr(cluster, "SLOW_S", 0.0)
    slow = Cluster()
    slow.start()
    slow.stop()
    assert ray.starts == 3


@pytest.mark.parametrize(("slow_s", "patience_s"), [(60.0, 300.0), (0.0, 0.0)])
def test_a_start_that_fails_is_one_line(
    monkeypatch: pytest.MonkeyPatch, slow_s: float, patience_s: float
) -> None:
    ray = SlowRay(monkeypatch, failures=9)
    monkeypatch.setattr(cluster, "SLOW_S", slow_s)
    monkeypatch.setattr(cluster, "START_S", patience_s)
    before = dict(os.environ)
    with pytest.raises(EnvironmentFault, match=r"Ray did not start .*timed out.*--address"):
        Cluster().start()
    assert ray.starts == 1
    assert dict(os.environ) == before


def test_what_ray_finds_is_put_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray  # noqa: F401  # which leaves a variable of its own

    monkeypatch.setenv("RAY_worker_niceness", "7")
    levels = [logging.getLogger(name).level for name in ("ray", "ray.tune")]
    before, stdout = dict(os.environ), sys.stdout
    with for_ray():
        assert os.environ["RAY_worker_niceness"] == "0"  # noqa: SIM112
        print("ours")
        for name in ("tune", "ray_listen_error_messages"):
            other = threading.Thread(target=print, args=(f"of {name}",), name=name)
            other.start()
            other.join()
    assert capsys.readouterr().out == "ours\nof tune\n"
    assert dict(os.environ) == before
    assert sys.stdout is stdout
    assert [logging.getLogger(name).level for name in ("ray", "ray.tune")] == levels


@pytest.mark.parametrize(("address", "said"), [("10.0.0.7", 1), ("127.0.0.1", 0)])
def test_ray_that_was_imported_before_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str, said: int
) -> None:
    """By a notebook, say: Ray has settled then which address its node gets."""
    import ray

    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: address)
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    monkeypatch.delenv(name, raising=False)
    with for_ray(alone=True):
        assert os.environ.get(name) == (None if said else "0")
        assert os.environ["RAY_enable_metrics_collection"] == "0"  # noqa: SIM112
    warnings = [r.message for r in caplog.records if "listens on all interfaces" in r.message]
    assert len(warnings) == said


def test_the_token_is_for_this_user_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    cluster._protect_token()
    path = tmp_path / ".ray" / "auth_token"
    token = path.read_text()
    assert len(token) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    cluster._protect_token()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == token


def test_sockets_get_short_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/a/very/long/temporary/folder")
    assert cluster._short_folder() == "/tmp"
    monkeypatch.setattr(tempfile, "tempdir", "/short")
    assert cluster._short_folder() == "/short"
