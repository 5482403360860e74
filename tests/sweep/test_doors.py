"""What an embedded cluster opens: nothing beyond this machine, nothing without its token."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import BadStatusLine
from pathlib import Path

import psutil
import pytest

from medaug.storage.temporary import IN_USE
from tests.cluster.joining import WORKS, join

pytestmark = pytest.mark.ray

HERE = Path(__file__).parent
UP = ("address", "worker", "sigterm")
"""What ``embedded.py`` says of itself."""
NOBODY = 65534


@dataclass
class Embedded:
    process: subprocess.Popen[str]
    temporary: Path
    token: str
    address: str
    worker: int
    sigterm: str
    """What handles it."""

    def family(self) -> list[psutil.Process]:
        """It and its cluster."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def listeners(self) -> list[tuple[str, str, int]]:
        """(process, address, port) of all that these listen on."""
        return [
            (process.name(), socket.laddr.ip, socket.laddr.port)
            for process in self.family()
            for socket in process.net_connections("tcp")
            if socket.status == psutil.CONN_LISTEN
        ]


@pytest.fixture(scope="module")
def embedded() -> Iterator[Embedded]:
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as temporary:
        Path(temporary).chmod(0o755)  # what stands in the way is not this folder
        token = "t" * 64
        process = subprocess.Popen(
            [sys.executable, HERE / "embedded.py"],
            env={**os.environ, "TMPDIR": temporary, "RAY_AUTH_TOKEN": token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            up = json.loads(process.stdout.readline())
            yield Embedded(process, Path(temporary), token, *map(up.get, UP))
        finally:
            process.stdin.close()
            process.wait(100)


def test_all_that_it_starts_listens_on_the_loopback(embedded: Embedded) -> None:
    found = embedded.listeners()
    assert {"gcs_server", "raylet"} <= {process for process, _, _ in found}
    assert {ip.removeprefix("::ffff:") for _, ip, _ in found} == {"127.0.0.1"}, found
    if shutil.which("ss"):
        table = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
        owners = [f"pid={process.pid}," for process in embedded.family()]
        rows = [row for row in table.splitlines() if any(owner in row for owner in owners)]
        ours = [row.split()[3] for row in rows]
        assert len(ours) >= len({port for _, _, port in found})
        assert all("127.0.0.1" in row for row in ours), ours


def test_without_the_token_no_port_answers(embedded: Embedded) -> None:
    answers = {(process, port): http_status(port) for process, _, port in embedded.listeners()}
    # 404: the agent of older versions has no such page, and asks for the token where it has one.
    assert {status for status in answers.values() if status is not None} <= {401, 404}, answers


def http_status(port: int) -> int | None:
    """Of a web server; None of what speaks something else (gRPC asks for the token itself)."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code
    except BadStatusLine:
        return None


def test_only_who_has_the_token_joins(embedded: Embedded) -> None:
    other = join(embedded.address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="w" * 64)
    assert other.returncode == 1
    assert "InvalidAuthToken" in other.stderr
    *_, last = other.stderr.strip().splitlines()
    assert last.startswith(f"3 cluster {embedded.address}: "), other.stderr
    assert "RAY_AUTH_TOKEN_PATH" in last
    assert "nodes:" not in other.stdout
    ours = join(embedded.address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=embedded.token)
    assert ours.stdout == WORKS
    assert embedded.sigterm == str(signal.SIG_DFL), "Ray's own would raise anywhere"


def test_rays_folder_is_closed_to_other_accounts(embedded: Embedded) -> None:
    (folder,) = embedded.temporary.glob("medaug-*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "r").is_dir()
    if os.geteuid() == 0:
        command = ["ls", str(folder), str(folder / "r")]
        other = subprocess.run(command, user=NOBODY, group=NOBODY, capture_output=True, text=True)
        assert other.stdout == ""
        assert other.stderr.count("Permission denied") == 2


def test_the_folder_of_a_killed_driver_goes_at_the_next_start(
    embedded: Embedded, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Last, for it ends the cluster."""
    (folder,) = embedded.temporary.glob("medaug-*")
    assert (folder / IN_USE).exists()
    embedded.process.kill()
    embedded.process.wait(60)
    assert folder.exists()
    start = "from medaug.storage.temporary import temporary_folder as t\nwith t('medaug-'): pass"
    environment = {**os.environ, "TMPDIR": str(embedded.temporary)}
    subprocess.run([sys.executable, "-c", start], env=environment, check=True)
    assert not folder.exists()
