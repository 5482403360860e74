"""One writer per experiment, whoever dies and whoever races."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from medaug.errors import EnvironmentFault, UserError
from medaug.ownership.lease import Lease


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
        assert slow.lost.wait(60)
    slow.release()
    assert not slow_number.exists()


def test_renewing_keeps_a_lease_alive(tmp_path: Path) -> None:
    with Lease(tmp_path, renew_s=0.05):
        age(tmp_path, 1000)
        while time.time() - max(tmp_path.glob("lease-*.json")).stat().st_mtime > 500:
            time.sleep(0.05)
        with pytest.raises(UserError):
            Lease(tmp_path).acquire()


def test_a_folder_that_cannot_be_written_is_an_environment_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="check the storage"):
        Lease(tmp_path / "file" / "experiment").acquire()
