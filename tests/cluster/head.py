"""Ray nodes as on a cluster: started by ``ray start`` with a token, processes of their own."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.cluster.hosts import HERE, Host

BIN = Path(sys.executable).parent
TRIES = 6
"""Ray gives its own processes 30 seconds to come up; a busy machine gets several tries."""


class Node:
    """The processes of one ``ray start --block`` on ``host``."""

    def __init__(self, host: Host, words: list[str], env: dict[str, str], log: Path) -> None:
        command = [*host.enter, str(BIN / "ray"), "start", "--block", "--disable-usage-stats"]
        command += [f"--node-ip-address={host.ip}", f"--object-store-memory={100 << 20}", *words]
        with open(log, "w") as output:
            self._process = subprocess.Popen(
                command,
                env={**env, "PYTHONUNBUFFERED": "1"},
                cwd=log.parent,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.log = log
        self.host = host

    def came_up(self) -> bool:
        """Whether it belongs to the cluster now; it may have failed to."""
        while self._process.poll() is None:
            if "Ray runtime started" in self.log.read_text():
                return True
            time.sleep(0.2)
        return False

    def processes(self) -> list[psutil.Process]:
        """All of them, those of trials included."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def ask_to_leave(self) -> None:
        """SIGTERM, as a pod gets it that will be moved: Ray drains the node, then ends it."""
        self._process.terminate()

    def left(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """End all of its processes at once, as a power cut does."""
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(60)
        psutil.wait_procs(processes, timeout=60)


class Head:
    """A cluster whose head has ``cpus`` CPUs; a context manager.

    ``folder`` holds the token, and is the working directory of what runs there. Its dashboard is
    at ``url`` unless it has none.
    """

    def __init__(
        self,
        folder: Path,
        cpus: int = 2,
        *,
        host: Host = HERE,
        dashboard: bool = True,
        **environment: str,
    ) -> None:
        self.folder = folder
        self.token_file = folder / "token"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MEDAUG_"))},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": "",
            **environment,
        }
        self.host = host
        self._cpus = cpus
        self._dashboard = dashboard
        self._nodes: list[Node] = []

    def __enter__(self) -> Head:
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(secrets.token_hex(32))
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start a head, on new ports, that knows nothing of an earlier one."""
        for _ in range(TRIES):
            self._temporary = tempfile.TemporaryDirectory(prefix="h", dir="/tmp")
            gcs, dashboard, client = free_ports(3)
            self.address = f"{self.host.ip}:{gcs}"
            self.url = f"http://{self.host.ip}:{dashboard}"
            words = ["--head", f"--port={gcs}", f"--ray-client-server-port={client}"]
            words += [
                f"--temp-dir={self._temporary.name}",
                f"--include-dashboard={self._dashboard}",
            ]
            words += [f"--dashboard-host={self.host.ip}", f"--dashboard-port={dashboard}"]
            node = self._start(self.host, *words, f"--num-cpus={self._cpus}")
            if node.came_up() and (not self._dashboard or await_port(self.host.ip, dashboard)):
                return
            self.kill()
        raise AssertionError(node.log.read_text())

    def join(self, host: Host, *resources: str) -> Node:
        """Start another node of the cluster; ``resources`` are options of ``ray start``."""
        for _ in range(TRIES):
            node = self._start(host, f"--address={self.address}", *resources)
            if node.came_up():
                return node
            node.kill()
        raise AssertionError(node.log.read_text())

    def kill(self) -> None:
        for node in self._nodes:
            node.kill()
        self._nodes = []
        self._temporary.cleanup()

    def command(self, *words: object) -> list[str]:
        """A medaug command line on the head's host."""
        return [*self.host.enter, str(BIN / "medaug"), *map(str, words)]

    def medaug(
        self, *words: object, timeout_s: float = 240, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """The command line as on a person's machine, which has the token."""
        return subprocess.run(
            self.command(*words),
            env={**self.environment, "RAY_AUTH_MODE": "", "COLUMNS": "100", **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def _start(self, host: Host, *words: str) -> Node:
        agent, grpc, metrics = free_ports(3)
        ports = [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"]
        ports += [f"--metrics-export-port={metrics}", "--min-worker-port=0", "--max-worker-port=0"]
        log = self.folder / f"node-{len(self._nodes)}.log"
        node = Node(host, [*words, *ports], self.environment, log)
        self._nodes.append(node)
        return node


def free_ports(n: int) -> list[int]:
    probes = [socket.socket() for _ in range(n)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def await_port(host: str, port: int, timeout_s: float = 60) -> bool:
    deadline = time.monotonic() + timeout_s
    while not listens(host, port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, port)) == 0
