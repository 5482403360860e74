"""One writer per experiment, whoever dies and whoever races."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medaug.errors import EnvironmentFault, UserError
from medaug.sweep.lease import Lease

RACER = """
import sys, time
from pathlib import Path
from medaug.errors import UserError
from medaug.sweep.lease import Lease
base, start, rounds = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
for number in range(rounds):
    folder = base / f"{number:02d}"
    while time.time() < start + 0.05 * number:
        pass
    try:
        Lease(folder).acquire()
        (folder / f"winner-{sys.argv[4]}").touch()
    except UserError:
        pass
print("ready to be killed", flush=True)
sys.stdin.read()
"""


def age(folder: Path, seconds: float) -> None:
    """Make the newest lease look as if its holder had not renewed it, from another machine."""
    path = max(folder.glob("lease-*.json"))
    holder = json.loads(path.read_text()) | {"machine": "elsewhere", "host": "far", "pid": 1}
    path.write_text(json.dumps(holder))
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_the_second_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    holder = rf"is running \(host .*, pid {os.getpid()}, since 20"
    with Lease(tmp_path), pytest.raises(UserError, match=holder):
        Lease(tmp_path).acquire()
    with Lease(tmp_path):
        pass
    assert len(list(tmp_path.glob("lease-*"))) == 1


def test_a_holder_elsewhere_is_trusted_until_it_is_stale(tmp_path: Path) -> None:
    with Lease(tmp_path):
        pass
    path = max(tmp_path.glob("lease-*.json"))
    path.write_text(path.read_text().replace('"released": true', '"released": false'))
    age(tmp_path, 80)
    with pytest.raises(UserError, match="host far, pid 1"):
        Lease(tmp_path).acquire()
    age(tmp_path, 91)
    with Lease(tmp_path):
        pass


def test_a_holder_that_was_replaced_notices(tmp_path: Path) -> None:
    slow = Lease(tmp_path, renew_s=0.05)
    slow.acquire()
    age(tmp_path, 1000)
    slow_number = max(tmp_path.glob("lease-*.json"))
    with Lease(tmp_path, stale_s=0.01):
        assert slow.lost.wait(5)
    slow.release()
    assert not slow_number.exists()


def test_renewing_keeps_a_lease_alive(tmp_path: Path) -> None:
    with Lease(tmp_path, renew_s=0.05):
        age(tmp_path, 1000)
        time.sleep(0.5)
        with pytest.raises(UserError):
            Lease(tmp_path).acquire()


def test_of_many_racers_one_wins_every_time_also_after_a_kill(tmp_path: Path) -> None:
    rounds = 24
    for number in range(rounds):
        folder = tmp_path / f"{number:02d}"
        if number % 3 == 1:  # released before
            with Lease(folder):
                pass
        if number % 3 == 2:  # its holder went silent
            with Lease(folder):
                pass
            age(folder, 1000)
    start = str(time.time() + 4.0)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, tmp_path, start, str(rounds), str(index)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(4)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready to be killed\n"
        winners = [len(list((tmp_path / f"{i:02d}").glob("winner-*"))) for i in range(rounds)]
        assert winners == [1] * rounds
        with pytest.raises(UserError):
            Lease(tmp_path / "00").acquire()
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    with Lease(tmp_path / "00"):  # at once: the dead holder was a process of this machine
        pass


def test_a_folder_that_cannot_be_written_is_an_environment_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="check the storage"):
        Lease(tmp_path / "file" / "experiment").acquire()
