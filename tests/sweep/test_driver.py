"""The driver is asked to stop, is killed, loses its cluster: nothing finished is done again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from toy_trials import config, expected_total

from medaug.train.checkpoint import Ledger
from medaug.trial_folder import TrialFolder

pytestmark = pytest.mark.ray

HERE = Path(__file__).parent
EPOCHS, SECONDS = 8, 0.25


class Driver:
    """``driver.py`` in a process of its own, whose cluster lives in a folder of its own."""

    def __init__(self, storage: Path, temporary: Path, *names: str, address: str = "local") -> None:
        command = [HERE / "driver.py", storage, address, EPOCHS, SECONDS, *names]
        self.temporary = temporary
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**os.environ, "PYTHONPATH": str(HERE), "TMPDIR": str(temporary)},
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
        raise AssertionError(f"no '{start}' in {self.lines}; {self.process.stderr.read()}")

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

    def await_no_leftovers(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while left := self.leftovers():
            assert time.monotonic() < deadline, [process.cmdline()[:3] for process in left]
            time.sleep(0.5)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Short, because the paths of Unix sockets are."""
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as path:
        yield Path(path)


def logged(storage: Path, name: str) -> list[int]:
    key = trial(name).key
    return [row["epoch"] for row in TrialFolder(storage / "experiment", key).epochs()]


def trial(name: str):
    return config(name, epochs=EPOCHS, seconds=SECONDS * (name != "quick"))


def test_sigterm_then_sigkill_then_to_the_end(
    tmp_path: Path, temporary: Path, ray_address: str
) -> None:
    names = ("quick", "slow")
    stopped = Driver(tmp_path, temporary, *names, address=ray_address)
    stopped.await_line("epoch slow 2")
    asked = time.monotonic()
    stopped.process.send_signal(signal.SIGTERM)
    code, err = stopped.finish(timeout=25)
    assert code == 75, err
    assert time.monotonic() - asked < 25
    assert err == "stopped by SIGTERM; `medaug resume` goes on\n"
    assert f"end {trial('slow').key} interrupted" in stopped.lines
    stopped.await_no_leftovers()
    before = logged(tmp_path, "slow")
    checkpoint = Ledger(tmp_path / "experiment" / "trials" / trial("slow").key).latest(
        trial("slow").key
    )
    assert checkpoint is not None
    assert checkpoint.epoch == before[-1] >= 2

    killed = Driver(tmp_path, temporary, *names)
    killed.await_line(f"epoch slow {before[-1] + 2}")
    killed.process.kill()
    killed.finish(timeout=60)
    killed.await_no_leftovers()

    last = Driver(tmp_path, temporary, *names)
    code, err = last.finish(timeout=90)
    assert (code, err) == (0, "")
    assert last.lines[0] == "wave 2 1", "the trial that was finished has been started again"
    for name in names:
        epochs = logged(tmp_path, name)
        assert set(epochs) == set(range(1, EPOCHS + 1))
        assert len(epochs) <= EPOCHS + 1, "more than one epoch was done twice"
        result = TrialFolder(tmp_path / "experiment", trial(name).key).result()
        assert result is not None
        assert result["scores"] == {"total": expected_total(EPOCHS, 1)}
    last.await_no_leftovers()


def test_a_second_signal_does_not_wait(tmp_path: Path, temporary: Path, ray_address: str) -> None:
    driver = Driver(tmp_path, temporary, "slow", address=ray_address)
    driver.await_line("epoch slow 1")
    driver.process.send_signal(signal.SIGUSR1)
    time.sleep(0.2)
    driver.process.send_signal(signal.SIGINT)
    code, err = driver.finish(timeout=60)
    assert code == 75, err
    assert "stopped by SIGUSR1" in err
    driver.await_no_leftovers()


def test_a_lost_cluster_ends_the_driver(tmp_path: Path, temporary: Path) -> None:
    driver = Driver(tmp_path, temporary, "slow")
    driver.await_line("epoch slow 1")
    for process in driver.leftovers():
        if process.name() == "gcs_server":
            process.kill()
    code, err = driver.finish(timeout=60)
    assert code == 75, err
    assert "the Ray cluster is lost" in err
    driver.await_no_leftovers()
