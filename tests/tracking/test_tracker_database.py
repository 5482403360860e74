"""MLflow's own database locked, deleted, replaced or damaged in the middle of a run."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from medaug.errors import EnvironmentFault
from medaug.spec import TrialConfig
from medaug.tracking.mirror import read_sent
from medaug.tracking.tracker import sync
from medaug.tracking.uri import as_it_is
from tests.tracking.played_sweeps import (
    BLOCKED_S,
    Played,
    all_is_told,
    all_runs,
    client_of,
    missing_points,
    note_of,
    wait_until,
    warnings_in,
)


def test_a_locked_database_blocks_nobody(tmp_path: Path, play: Callable[..., Played]) -> None:
    played = play(tracking={"required": True})
    trials = list(played.plan.classify[:3])
    with played.tracker() as tracker:
        other = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        played.play(tracker, trials, epochs=30)
        time.sleep(1)
        assert played.nearly_slowest_s() < BLOCKED_S
        other.execute("COMMIT")
        other.close()
    sync(played.folder)
    assert missing_points(client_of(played.study), played.folder) == []


@pytest.mark.chaos
def test_a_database_locked_for_two_minutes(
    tmp_path: Path, play: Callable[..., Played], caplog: pytest.LogCaptureFixture
) -> None:
    played = play()
    first, second = played.plan.classify[:2]
    with played.tracker(retry_s=1.0) as tracker:
        played.play(tracker, [first])
        wait_until(note_of(played, first).exists)
        other = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        unlocked = time.monotonic() + 120
        played.begin(tracker, second)
        for epoch in range(1, 100):
            played.epoch(tracker, second, epoch)
        assert played.nearly_slowest_s() < BLOCKED_S
        wait_until(lambda: "is locked by another process" in str(warnings_in(caplog)), 110)
        time.sleep(max(0.0, unlocked - time.monotonic()))
        other.execute("COMMIT")
        other.close()
        wait_until(lambda: all_is_told(client_of(played.study), played))
    assert 1 <= len(warnings_in(caplog)) <= 3  # one a minute


def into_nothing(database: Path, empty: Path) -> None:
    database.unlink()


def into_an_empty_one(database: Path, empty: Path) -> None:
    shutil.copy(empty, database.with_name("other.db"))
    database.with_name("other.db").rename(database)


@pytest.mark.parametrize("turn", [into_nothing, into_an_empty_one])
def test_a_database_that_is_another_one_in_the_middle_gets_all_again(
    tmp_path: Path,
    empty_database: Path,
    play: Callable[..., Played],
    caplog: pytest.LogCaptureFixture,
    turn: Callable[[Path, Path], None],
) -> None:
    """SQLite goes on reading a file that has no name any more, and writes nothing to it."""
    played, database = play(), tmp_path / "mlflow.db"
    first, second, third = played.plan.classify[:3]
    with played.tracker() as tracker:
        played.play(tracker, [first])
        wait_until(note_of(played, first).exists)
        before = parent_of(played, first)
        turn(database, empty_database)
        played.play(tracker, [second], epochs=40)
        for config in (first, second):
            wait_until(lambda: parent_of(played, config) not in ("", before))  # noqa: B023
    client = known_by(database)
    assert missing_points(client, played.folder) == []
    assert len(all_runs(client)) == 3
    assert played.nearly_slowest_s() < BLOCKED_S
    (line,) = warnings_in(caplog)
    assert "mlflow.db was deleted or replaced: it gets all of this run again" in line

    database.unlink()  # after the run, and in the same process
    assert sync(played.folder) == 2
    assert missing_points(known_by(database), played.folder) == []
    assert sync(played.folder) == 0
    assert database.stat().st_mode & 0o777 == 0o600
    with played.tracker() as tracker:  # as one that is resumed
        played.play(tracker, [third])
    assert missing_points(known_by(database), played.folder) == []


def known_by(database: Path) -> MlflowClient:
    """A client of the file that is there now."""
    assert database.exists()  # it would be made
    return MlflowClient(as_it_is(f"sqlite:///{database}"))


def parent_of(played: Played, config: TrialConfig) -> str:
    """Where the tracker has told of a trial: the sweep's run in MLflow."""
    sent = read_sent(played.folder / "trials" / config.key)
    return sent.parent if sent else ""


def test_a_database_that_is_none_ends_nothing(
    tmp_path: Path, play: Callable[..., Played], caplog: pytest.LogCaptureFixture
) -> None:
    played, database = play(), tmp_path / "mlflow.db"
    first, second = played.plan.classify[:2]
    with played.tracker() as tracker:
        played.play(tracker, [first])
        wait_until(note_of(played, first).exists)
        database.unlink()
        database.write_bytes(b"not SQLite, whatever its name says" * 100)
        played.play(tracker, [second])
    assert "`medaug sync made`" in warnings_in(caplog)[-1]
    with pytest.raises(EnvironmentFault, match="is no database, or a damaged one; put it aside"):
        sync(played.folder)
    database.unlink()
    assert sync(played.folder) == 2
    assert missing_points(known_by(database), played.folder) == []
