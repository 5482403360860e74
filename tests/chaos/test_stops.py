"""Rows 11, 12 and 43: drivers that are asked to stop, and what they leave behind."""

from __future__ import annotations

import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medaug.train.checkpoint import Ledger
from tests.chaos.board import Fault
from tests.chaos.injectors import cluster
from tests.sweep.driving import Driver, logged, trial

pytestmark = [pytest.mark.chaos, pytest.mark.ray]

AT_ONCE, BATCHES = 5, 4
STOPPED_S = 25.0
"""Slurm and Kubernetes kill 30 seconds after they have asked."""
EPOCHS, EPOCH_S = 100, 0.4
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster that says it has more CPUs than there are, for several drivers at once."""
    with cluster(2 * AT_ONCE) as found:
        yield found


@pytest.fixture
def drivers(tmp_path: Path, address: str) -> Iterator[list[tuple[Path, Driver]]]:
    """Drivers with a trial each that is at its first epochs, and their storages."""
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as folder:
        started = []
        for number in range(AT_ONCE):
            storage, temporary = tmp_path / str(number), Path(folder) / str(number)
            storage.mkdir()
            temporary.mkdir()
            options = {"address": address, "epochs": EPOCHS, "seconds": EPOCH_S}
            started.append((storage, Driver(storage, temporary, "slow", **options)))  # type: ignore[arg-type]
        for _, driver in started:
            driver.await_line("epoch slow 1")
        yield started


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_driver_asked_to_stop_does_so_in_time(
    faults: Callable[[int, str], Fault], drivers: list[tuple[Path, Driver]], batch: int
) -> None:
    fault, left = faults(11, "SIGTERM to the driver"), faults(43, "processes left behind")
    for number, (storage, driver) in enumerate(drivers):
        time.sleep(random.Random(f"{batch} {number}").uniform(0, EPOCH_S))
        before = logged(storage, "slow", EPOCHS, EPOCH_S)
        fault.inject()
        left.inject()
        asked = time.monotonic()
        driver.process.send_signal(SIGNALS[batch] if number == 0 else signal.SIGTERM)
        code, err = driver.finish(timeout=100)
        seconds = time.monotonic() - asked
        assert code == 75, err
        assert "`medaug resume` goes on" in err
        last = logged(storage, "slow", EPOCHS, EPOCH_S)
        # Of an epoch that is safe already the line may be missing, never the other way round.
        assert newest(storage) in (last[-1], last[-1] + 1)
        assert last == list(range(1, last[-1] + 1))
        assert last[-1] >= before[-1]
        fault.judge(seconds, STOPPED_S)
        fault.survive(seconds=seconds)
        driver.await_no_leftovers(60)
        left.survive()


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGKILL])
def test_a_second_signal_leaves_the_ledger_whole(
    faults: Callable[[int, str], Fault],
    drivers: list[tuple[Path, Driver]],
    second: signal.Signals,
    batch: int,
) -> None:
    fault = faults(12, f"SIGTERM, then {second.name}")
    dice = random.Random(f"{batch} {second.name}")
    for storage, driver in drivers:
        fault.inject()
        driver.process.send_signal(signal.SIGTERM)
        time.sleep(dice.uniform(0, 1.0))
        driver.process.send_signal(second)
        code, err = driver.finish(timeout=60)
        assert code in (75, -second), err
        driver.await_no_leftovers(60)
        last = logged(storage, "slow", EPOCHS, EPOCH_S)
        assert newest(storage) in (last[-1], last[-1] + 1)
        fault.survive()


def newest(storage: Path) -> int:
    """Epoch of the newest checkpoint; none was damaged."""
    one = trial("slow", EPOCHS, EPOCH_S)
    folder = storage / "experiment" / "trials" / one.key
    checkpoint = Ledger(folder).latest(one.key)
    assert checkpoint is not None
    assert not list(folder.glob(".bad_*"))
    return checkpoint.epoch
