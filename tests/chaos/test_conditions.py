"""Drivers under conditions that nobody tests by hand: each works, or ends with a line and its code."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from toy_trials import expected_total

from medaug.storage.trial_folder import TrialFolder
from tests.chaos.board import Fault
from tests.chaos.injectors import shim
from tests.sweep.driving import EPOCHS, Driver, trial

pytestmark = [pytest.mark.chaos, pytest.mark.ray]

FEW_FILES = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")


def assert_done(storage: Path, name: str, epochs: int = EPOCHS, seconds: float = 0.25) -> None:
    result = TrialFolder(storage / "experiment", trial(name, epochs, seconds).key).result()
    assert result is not None
    assert result.scores["total"] == expected_total(epochs, 1)


def test_256_files_may_be_open(
    faults: Callable[[int, str], Fault], tmp_path: Path, temporary: Path
) -> None:
    fault = faults(46, "256 open files allowed")
    fault.inject()
    driver = Driver(tmp_path, temporary, "slow", "slower", below=FEW_FILES)
    assert driver.finish(timeout=240) == (0, "")
    assert_done(tmp_path, "slow")
    assert_done(tmp_path, "slower")
    fault.survive()


def test_one_cpu(faults: Callable[[int, str], Fault], tmp_path: Path, temporary: Path) -> None:
    if not shutil.which("taskset"):
        pytest.skip("needs taskset (util-linux)")
    fault = faults(46, "one CPU")
    fault.inject()
    cpu = str(min(os.sched_getaffinity(0)))
    driver = Driver(tmp_path, temporary, "slow", "slower", below=("taskset", "-c", cpu))
    assert driver.finish(timeout=240) == (0, "")
    assert_done(tmp_path, "slow")
    fault.survive()


@pytest.mark.parametrize("skew_s", [-7200, 7200])
def test_the_clock_jumps_in_the_middle(
    faults: Callable[[int, str], Fault], tmp_path: Path, temporary: Path, skew_s: int
) -> None:
    """Of the driver and of everything that it starts."""
    fault = faults(36, "the clock jumps by two hours under a sweep")
    switch = tmp_path / "jumped"
    environment = {"LD_PRELOAD": shim(tmp_path), "SKEW_S": str(skew_s), "SKEW_FILE": str(switch)}
    driver = Driver(tmp_path, temporary, "slow", epochs=16, environment=environment)
    driver.await_line("epoch slow 3")
    fault.inject()
    switch.touch()
    driver.await_line("epoch slow 8")
    switch.unlink()  # and back
    code, err = driver.finish(timeout=240)
    assert code == 0, err
    assert_done(tmp_path, "slow", 16)
    fault.survive()
    driver.await_no_leftovers()


@pytest.mark.parametrize("whole", [False, True], ids=["driver", "all of it"])
def test_stopped_and_continued(
    faults: Callable[[int, str], Fault], tmp_path: Path, temporary: Path, whole: bool
) -> None:
    """Ctrl-Z and fg: of the driver alone, and of all that a terminal would stop with it. By SIGSTOP,
    as SIGTSTP stops nothing where no shell looks after the processes."""
    fault = faults(46, f"{'all of it' if whole else 'the driver'} stopped for 12 s and continued")
    driver = Driver(tmp_path, temporary, "slow", epochs=16)
    driver.await_line("epoch slow 3")
    fault.inject()
    mine = [process.pid for process in driver.leftovers()] if whole else [driver.process.pid]
    for pid in mine:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(12)
    assert driver.process.poll() is None
    for pid in mine:
        os.kill(pid, signal.SIGCONT)
    code, err = driver.finish(timeout=240)
    assert code == 0, err
    assert_done(tmp_path, "slow", 16)
    fault.survive()
    driver.await_no_leftovers()


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """(our end, the process's end)."""
    ours, theirs = os.openpty()
    yield ours, theirs
    for descriptor in (ours, theirs):
        with contextlib.suppress(OSError):
            os.close(descriptor)


ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "medaug", *sys.argv[1:]])
"""


def test_the_terminal_is_closed(
    faults: Callable[[int, str], Fault],
    tmp_path: Path,
    temporary: Path,
    terminal: tuple[int, int],
) -> None:
    """SIGHUP, and nobody is left to be told: the exit code says it, and the run can be resumed."""
    from tests.integration.small_study import SMALL, medaug

    fault = faults(46, "the terminal closed under `medaug run`")
    spec, storage = tmp_path / "small.yaml", tmp_path / "runs"
    spec.write_text(SMALL)
    ours, theirs = terminal
    driver = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, "run", spec, "--storage", storage],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(temporary), "MLFLOW_TRACKING_URI": ""},
    )
    os.close(theirs)
    deadline = time.monotonic() + 200
    while not list(storage.glob("small/trials/*/epochs.jsonl")):
        assert driver.poll() is None
        assert time.monotonic() < deadline, "no trial begins"
        os.set_blocking(ours, False)
        try:
            os.read(ours, 1 << 16)
        except BlockingIOError:
            time.sleep(0.1)
    fault.inject()
    began = time.monotonic()
    os.close(ours)
    assert driver.wait(timeout=100) == 75
    fault.survive(seconds=time.monotonic() - began)
    done = medaug("resume", "small", "--storage", storage)
    assert done.returncode == 0, done.stderr
