"""Rows 24, 26 and 36: storage that has no room or does not answer, and clocks that are wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medaug.ownership.lease import Lease
from medaug.ownership.watchdog import TIMEOUT_S
from medaug.train.checkpoint import Ledger
from tests.chaos.board import Fault
from tests.chaos.injectors import shim
from tests.train.checkpoints import KEY, checkpoint

WAITS = """
import sys, time
from pathlib import Path
from medaug.ownership.watchdog import StorageWatchdog
with StorageWatchdog(Path(sys.argv[1]), float(sys.argv[2])):
    print("watching", flush=True)
    time.sleep(500)
"""


@pytest.mark.chaos
@pytest.mark.parametrize("patience_s", [4.0, TIMEOUT_S])
def test_storage_that_hangs_ends_the_driver(
    faults: Callable[[int, str], Fault], tmp_path: Path, patience_s: float
) -> None:
    fault = faults(26, f"storage that no longer answers (limit {patience_s:g} s)")
    storage, switch = tmp_path / "storage", tmp_path / "hangs"
    storage.mkdir()
    environment = {
        **os.environ,
        "LD_PRELOAD": shim(tmp_path),
        "HANG_BELOW": str(storage),
        "HANG_FILE": str(switch),
    }
    driver = subprocess.Popen(
        [sys.executable, "-c", WAITS, storage, str(patience_s)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "watching\n"
    time.sleep(8)
    assert driver.poll() is None, "it answers, and the driver was ended"
    fault.inject()
    switch.touch()
    began = time.monotonic()
    _, err = driver.communicate(timeout=400)
    seconds = time.monotonic() - began
    assert driver.returncode == 75, err
    assert f"storage {storage} has not answered for {patience_s:.0f} s" in err
    fault.judge(seconds, patience_s + 30)
    fault.survive(seconds=seconds)


ONE_EPOCH = """
import sys
from pathlib import Path
from medaug.errors import UserError
from medaug.ownership.lease import Lease
from medaug.train.checkpoint import Ledger
from tests.train.checkpoints import KEY, checkpoint
ledger = Ledger(Path(sys.argv[1]) / "trial")
back = ledger.latest(KEY)
ledger.commit(checkpoint(back.epoch + 1 if back else 1), fingerprint=KEY)
try:
    Lease(Path(sys.argv[1])).acquire()
except UserError:
    print("refused")
"""


@pytest.mark.chaos
@pytest.mark.parametrize("skew_s", [-7200, 7200])
def test_clocks_that_are_two_hours_apart(
    faults: Callable[[int, str], Fault], tmp_path: Path, skew_s: int
) -> None:
    """The newest checkpoint is that of the last epoch; the holder of the lease is not overrun."""
    fault = faults(36, "a node's clock two hours off")
    environment = {**os.environ, "LD_PRELOAD": shim(tmp_path), "PYTHONPATH": "."}
    with Lease(tmp_path):
        for epoch in range(1, 3):  # nodes with a right and with a wrong clock take turns
            fault.inject()
            environment["SKEW_S"] = str(skew_s * (epoch % 2))
            there = subprocess.run(
                [sys.executable, "-c", ONE_EPOCH, tmp_path],
                env=environment,
                capture_output=True,
                text=True,
            )
            assert there.stdout == "refused\n", there.stderr
            back = Ledger(tmp_path / "trial").latest(KEY)
            assert back is not None
            assert back.epoch == checkpoint(epoch).epoch
            fault.survive()
