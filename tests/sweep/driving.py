"""A sweep's driver as a process that tests can signal, kill and wait for."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from toy_trials import config

from medaug.spec import TrialConfig
from medaug.storage.trial_folder import TrialFolder

HERE = Path(__file__).parent
EPOCHS, SECONDS = 8, 0.25


AS_IN_A_CONTAINER = (
    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("sh", "-c", '"$@"; exit $?', "sh"),
)
"""Runs a command as the child of process 1."""


class Driver:
    """``driver.py`` in a process of its own, whose cluster lives in a folder of its own."""

    def __init__(
        self,
        storage: Path,
        temporary: Path,
        *names: str,
        address: str = "local",
        epochs: int = EPOCHS,
        seconds: float = SECONDS,
        save_s: float = 0.0,
        below: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``below`` is a command that runs the one that follows it."""
        command = [sys.executable, HERE / "driver.py", storage, address, epochs, seconds, *names]
        self.storage, self.temporary = storage, temporary
        python_path = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [*below, *map(str, command)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(python_path),
                "TMPDIR": str(temporary),
                "MEDAUG_TEST_SAVE_S": str(save_s),
                **(environment or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []

    def await_line(self, start: str) -> None:
        """Read until a line starts so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line.startswith(start):
                return
        assert self.process.stderr is not None
        failed = [p.read_text() for p in self.storage.glob("experiment/trials/*/failure.json")]
        said = self.process.stderr.read()
        raise AssertionError(f"no '{start}' in {self.lines}; {said} {failed}")

    def finish(self, timeout: float) -> tuple[int, str]:
        """(exit code, standard error)."""
        out, err = self.process.communicate(timeout=timeout)
        self.lines += out.splitlines()
        return self.process.returncode, err

    def leftovers(self) -> list[psutil.Process]:
        """Processes of its cluster that are alive."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TMPDIR") == str(self.temporary):
                    found.append(process)
        return found

    def await_no_leftovers(self, seconds: float = 150) -> None:
        deadline = time.monotonic() + seconds
        while left := self.leftovers():
            assert time.monotonic() < deadline, [process.cmdline()[:3] for process in left]
            time.sleep(0.5)


def logged(storage: Path, name: str, epochs: int = EPOCHS, seconds: float = SECONDS) -> list[int]:
    key = trial(name, epochs, seconds).key
    return [row["epoch"] for row in TrialFolder(storage / "experiment", key).epochs()]


def trial(name: str, epochs: int = EPOCHS, seconds: float = SECONDS) -> TrialConfig:
    """The trial that ``driver.py`` runs under this name."""
    return config(name, epochs=epochs, seconds=seconds * (name != "quick"))
