"""A Ray head with its dashboard, as on a cluster: token authentication, processes of its own."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
START_TIMEOUT_S = 120


class Head:
    """A cluster of one node on 127.0.0.1 with ``cpus`` CPUs; a context manager.

    ``folder`` holds the token, and is the working directory of what runs there.
    """

    def __init__(self, folder: Path, cpus: int = 2, **environment: str) -> None:
        self.folder = folder
        self._cpus = cpus
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
        self._processes: list[psutil.Process] = []

    def __enter__(self) -> Head:
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(secrets.token_hex(32))
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start a head, on new ports, that knows nothing of an earlier one."""
        gcs, dashboard, *others = free_ports(6)
        self.address, self.url = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        self._temporary = tempfile.TemporaryDirectory(prefix="h", dir="/tmp")
        names = (
            "ray-client-server",
            "dashboard-agent-listen",
            "dashboard-agent-grpc",
            "metrics-export",
        )
        ports = [f"--{name}-port={port}" for name, port in zip(names, others, strict=True)]
        command = [
            *(BIN / "ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1"),
            *(
                f"--port={gcs}",
                f"--dashboard-port={dashboard}",
                "--dashboard-host=127.0.0.1",
                *ports,
            ),
            *("--min-worker-port=0", "--max-worker-port=0", f"--num-cpus={self._cpus}"),
            *(f"--object-store-memory={100 << 20}", f"--temp-dir={self._temporary.name}"),
            "--disable-usage-stats",
        ]
        log = self.folder / "head.log"
        with open(log, "a") as output:
            process = subprocess.Popen(
                list(map(str, command)),
                env=self.environment,
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._processes = [psutil.Process(process.pid)]
        deadline = time.monotonic() + START_TIMEOUT_S
        while not listens(dashboard):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        """End every process of the node at once, as a power cut does."""
        for process in list(self._processes):
            try:
                self._processes += process.children(recursive=True)
            except psutil.NoSuchProcess:
                continue
        for process in self._processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(self._processes, timeout=30)
        self._processes = []
        self._temporary.cleanup()

    def medaug(
        self, *words: object, timeout_s: float = 240, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """The command line as on a person's machine, which has the token."""
        return subprocess.run(
            [str(BIN / "medaug"), *map(str, words)],
            env={**self.environment, "RAY_AUTH_MODE": "", "COLUMNS": "100", **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )


def free_ports(n: int) -> list[int]:
    probes = [socket.socket() for _ in range(n)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
