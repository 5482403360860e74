"""Row 37: several submissions of one run at the same moment."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from medaug.errors import UserError
from medaug.ownership.lease import Lease
from tests.chaos.board import Fault
from tests.sweep.test_lease import age

ROUNDS, RACERS = 50, 4


def race(folders: list[Path], name: str, start: Barrier, over: Barrier) -> None:
    """Try to take every lease, and keep those that were won."""
    for folder in folders:
        start.wait()
        try:
            Lease(folder).acquire()
            (folder / f"winner-{name}").touch()
        except UserError:
            pass
    over.wait()
    signal.pause()  # holds them until it is killed


def test_of_racing_submissions_one_writes(
    faults: Callable[[int, str], Fault], tmp_path: Path
) -> None:
    fault = faults(37, f"{RACERS} submissions of one run at once")
    folders = [tmp_path / f"{number:02d}" for number in range(ROUNDS)]
    for number, folder in enumerate(folders):
        if number % 3 == 1:  # released before
            with Lease(folder):
                pass
        if number % 3 == 2:  # its holder went silent
            with Lease(folder):
                pass
            age(folder, 1000)
    context = multiprocessing.get_context("fork")
    start, over = context.Barrier(RACERS), context.Barrier(RACERS + 1)
    racers = [
        context.Process(target=race, args=(folders, str(i), start, over), daemon=True)
        for i in range(RACERS)
    ]
    for racer in racers:
        racer.start()
    try:
        fault.inject(ROUNDS)
        over.wait()
        winners = [len(list(folder.glob("winner-*"))) for folder in folders]
        assert winners == [1] * ROUNDS
        fault.survive(ROUNDS)
        with pytest.raises(UserError, match="is running"):
            Lease(folders[0]).acquire()
    finally:
        for racer in racers:
            racer.kill()
            racer.join()
    killed = faults(37, "the writer killed, the run submitted again")
    for folder in folders[:10]:  # at once: the dead holders were processes of this machine
        killed.inject()
        with Lease(folder):
            killed.survive()
