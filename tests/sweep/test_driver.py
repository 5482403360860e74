"""The driver is asked to stop, is killed, loses its cluster: nothing finished is done again."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_trials import expected_total

from medaug.storage.trial_folder import TrialFolder
from medaug.train.checkpoint import Ledger
from tests.sweep.driving import AS_IN_A_CONTAINER, Driver, logged, trial

pytestmark = pytest.mark.ray


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Short, because the paths of Unix sockets are."""
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as path:
        yield Path(path)


def test_sigterm_then_sigkill_then_to_the_end(
    tmp_path: Path, temporary: Path, ray_address: str
) -> None:
    """Both start at once and either may be first, so each stop waits for what it needs: the end of
    the quick one, and epochs of the slow one, which has many."""
    names, epochs = ("quick", "slow"), 24
    quick, slow = (trial(name, epochs).key for name in names)
    stopped = Driver(tmp_path, temporary, *names, address=ray_address, epochs=epochs, save_s=3600)
    stopped.await_line(f"end {quick} done")
    if "epoch slow 2" not in stopped.lines:
        stopped.await_line("epoch slow 2")
    asked = time.monotonic()
    stopped.process.send_signal(signal.SIGTERM)
    code, err = stopped.finish(timeout=25)
    assert code == 75, err
    assert time.monotonic() - asked < 25
    # Ray before 2.59 wants no token in a process that had imported it, and a line says so.
    said = [line for line in err.splitlines() if "wants no token: whoever" not in line]
    assert said == ["stopped by SIGTERM; `medaug resume` goes on"]
    assert f"end {slow} interrupted" in stopped.lines
    stopped.await_no_leftovers()
    before = logged(tmp_path, "slow", epochs)
    checkpoint = Ledger(tmp_path / "experiment" / "trials" / slow).latest(slow)
    assert checkpoint is not None
    assert checkpoint.epoch == before[-1] >= 2

    killed = Driver(tmp_path, temporary, *names, epochs=epochs)
    killed.await_line(f"epoch slow {before[-1] + 2}")
    killed.process.kill()
    killed.finish(timeout=60)
    killed.await_no_leftovers()

    last = Driver(tmp_path, temporary, *names, epochs=epochs)
    code, err = last.finish(timeout=90)
    assert (code, err) == (0, "")
    assert last.lines[0] == "wave 2 1", "the trial that was finished has been started again"
    for name in names:
        done = logged(tmp_path, name, epochs)
        assert set(done) == set(range(1, epochs + 1))
        assert len(done) <= epochs + 1, "more than one epoch was done twice"
        result = TrialFolder(tmp_path / "experiment", trial(name, epochs).key).result()
        assert result is not None
        assert result.scores["total"] == expected_total(epochs, 1)
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


@pytest.mark.parametrize("later_s", [0.5, 3.0])
def test_a_signal_while_the_cluster_starts(tmp_path: Path, temporary: Path, later_s: float) -> None:
    """Ray's own handler of that time would end the driver with exit code 15, and not a word."""
    driver = Driver(tmp_path, temporary, "slow")
    while not list(tmp_path.glob("experiment/lease-*")):
        assert driver.process.poll() is None
        time.sleep(0.1)
    time.sleep(later_s)
    driver.process.send_signal(signal.SIGTERM)
    code, err = driver.finish(timeout=60)
    assert code == 75, err
    assert err == "stopped by SIGTERM; `medaug resume` goes on\n"
    driver.await_no_leftovers()


def containers_are_possible() -> bool:
    try:
        return subprocess.run([*AS_IN_A_CONTAINER, "true"], check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("lost", "contained"),
    [
        ("gcs_server", False),
        ("raylet", True),
        pytest.param("gcs_server", True, marks=pytest.mark.slow),
        pytest.param("raylet", False, marks=pytest.mark.slow),
    ],
)
def test_a_lost_cluster_ends_the_driver(
    tmp_path: Path, temporary: Path, lost: str, contained: bool
) -> None:
    """Below process 1, Ray would end the driver with exit code 1, and not a word."""
    if contained and not containers_are_possible():
        pytest.skip("this user may make no process namespace")
    below = AS_IN_A_CONTAINER if contained else ()
    driver = Driver(tmp_path, temporary, "slow", seconds=3.0, below=below)
    driver.await_line("epoch slow 1")
    for process in driver.leftovers():
        if process.name() == lost:
            process.kill()
    code, err = driver.finish(timeout=90)
    assert code == 75, err
    assert "the Ray cluster is lost" in err
    driver.await_no_leftovers()
