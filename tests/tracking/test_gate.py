"""``medaug ui`` shows nothing to whoever has not its link."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from medaug.tracking.gate import Gate


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"inside {request.url.query}")


async def channel(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


@pytest.fixture
def client() -> TestClient:
    inside = Starlette(routes=[Route("/{path:path}", page), WebSocketRoute("/channel", channel)])
    return TestClient(Gate(inside, "right"), follow_redirects=False)


@pytest.mark.parametrize("shown", [{}, {"token": ""}, {"token": "wrong"}, {"token": "righ"}])
def test_no_token_no_page(client: TestClient, shown: dict[str, str]) -> None:
    answer = client.get("/ajax-api/2.0/mlflow/experiments/search", params=shown)
    assert answer.status_code == 403
    assert "medaug ui" in answer.text


def test_the_link_opens_it_and_leaves_the_address(client: TestClient) -> None:
    first = client.get("/a page", params={"x": "1 2", "token": "right"})
    assert first.status_code == 303
    assert first.headers["location"] == "/a%20page?x=1+2"
    assert "HttpOnly" in first.headers["set-cookie"]
    assert "SameSite=Strict" in first.headers["set-cookie"]
    assert client.get(first.headers["location"]).text == "inside x=1+2"  # by the cookie


def test_a_program_shows_a_header(client: TestClient) -> None:
    assert client.get("/", headers={"Authorization": "Bearer right"}).text == "inside "
    assert client.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 403


def test_channels_are_closed_without_it(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/channel"):
        pass
    with client.websocket_connect("/channel", headers={"Authorization": "Bearer right"}):
        pass


@pytest.fixture
def link(tmp_path: Path, empty_database: Path) -> Iterator[str]:
    """What ``medaug ui`` prints on a storage with an empty database, once it answers."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "medaug", "ui", "--storage", str(tmp_path), "--port", str(port)],
            stdout=out, stderr=out, start_new_session=True,
            env={**os.environ, "MLFLOW_TRACKING_URI": ""},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        found = re.search(r"http://\S+token=\S+", log.read_text())
        assert found, log.read_text()
        yield found[0]
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def test_the_real_server_is_behind_it(link: str) -> None:
    parts = urlsplit(link)

    def status(path: str, **headers: str) -> int:
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status

    api = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert status("/") == status(api) == status("/health") == 403
    assert status(f"/?{parts.query}") == 303
    token = parts.query.removeprefix("token=")
    assert status(api, Cookie=f"medaug-ui={token}") == 200
