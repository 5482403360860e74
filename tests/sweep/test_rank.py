"""A rank by itself, in this process: what it writes, and when."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from toy_trials import config

from medaug.spec import TrialConfig
from medaug.storage.results import DivergedResult
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial.failures import Failure
from medaug.sweep.trial.rank import Epoch, Rank, interface_of
from medaug.train.checkpoint import Ledger


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rank]:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    threads = torch.get_num_threads()
    rank = Rank(cpus=1.0, checkpoint_every_s=0)
    place = rank.place()
    rank.join(0, 1, place.host, place.port, timeout_s=60, gpu=False)
    yield rank
    rank.end()
    torch.set_num_threads(threads)


def claimed(path: Path, trial: TrialConfig) -> TrialFolder:
    folder = TrialFolder(path / "experiment", trial.key)
    folder.claim(trial)
    return folder


def test_a_rank_knows_whether_steps_are_recorded() -> None:
    rank = Rank(1.0, 0, step_graphs="never")
    place = rank.place()
    rank.join(0, 1, place.host, place.port, timeout_s=60, gpu=False)
    assert rank._world is not None
    assert rank._world.step_graphs == "never"
    rank.end()


def test_each_epoch_is_safe_before_it_is_told(rank: Rank, tmp_path: Path) -> None:
    trial = config("one")
    folder = claimed(tmp_path, trial)
    assert rank.begin(claimed(tmp_path, trial), tmp_path, "toy_trials:count", (1, 1)) == 0
    for epoch in (1, 2, 3):
        assert rank.advance() == Epoch(epoch, {"val/score": float(epoch)}, finished=epoch == 3)
        checkpoint = Ledger(folder.path).latest(trial.key)
        assert checkpoint is not None
        assert checkpoint.epoch == epoch == folder.epoch()
        assert (folder.result() is not None) == (epoch == 3)


def test_it_goes_on_from_the_ledger_and_can_leave_at_any_epoch(rank: Rank, tmp_path: Path) -> None:
    first, other = config("first"), config("other")
    folder = claimed(tmp_path, first)
    rank.begin(claimed(tmp_path, first), tmp_path, "toy_trials:count", (1, 1))
    rank.advance()
    rank.advance()
    claimed(tmp_path, other)
    assert rank.begin(claimed(tmp_path, other), tmp_path, "toy_trials:count", (1, 1)) == 0
    assert rank.begin(claimed(tmp_path, first), tmp_path, "toy_trials:count", (1, 1)) == 2
    answer = rank.advance()
    assert isinstance(answer, Epoch)
    assert answer.finished
    assert [row["epoch"] for row in folder.epochs()] == [1, 2, 3]
    result = folder.result()
    assert result is not None
    assert result.scores["total"] == 6.0


def test_leaving_a_trial_saves_its_last_epoch(rank: Rank, tmp_path: Path) -> None:
    rank._checkpoint_every_s = 3600
    trial = config("one", epochs=4)
    folder = claimed(tmp_path, trial)
    rank.begin(claimed(tmp_path, trial), tmp_path, "toy_trials:count", (1, 1))
    rank.advance()
    rank.advance()
    assert Ledger(folder.path).latest(trial.key) is None
    rank.end()
    assert rank.begin(claimed(tmp_path, trial), tmp_path, "toy_trials:count", (1, 1)) == 2
    assert [rank.advance().epoch for _ in range(2)] == [3, 4]  # type: ignore[union-attr]
    result = folder.result()
    assert result is not None
    assert result.scores["total"] == 10.0


def test_failures_come_back_as_values(rank: Rank, tmp_path: Path) -> None:
    rank.begin(claimed(tmp_path, config("x")), tmp_path, "toy_trials:no_such_fold", (1, 1))
    failure = rank.advance()
    assert isinstance(failure, Failure)
    assert failure.kind == "configuration"
    rank.begin(claimed(tmp_path, config("x")), tmp_path, "toy_trials:ends_early", (1, 1))
    rank.advance()
    failure = rank.advance()
    assert isinstance(failure, Failure)
    assert failure.what == "the trial ended without a result"


def test_a_result_alone_is_no_epoch(rank: Rank, tmp_path: Path) -> None:
    folder = claimed(tmp_path, config("x"))
    rank.begin(claimed(tmp_path, config("x")), tmp_path, "toy_trials:diverges", (1, 1))
    assert rank.advance() == Epoch(1, {"val/score": 1.0}, finished=False)
    assert rank.advance() == Epoch(1, {}, finished=True)
    assert [row["epoch"] for row in folder.epochs()] == [1]
    assert folder.result() == DivergedResult(why="no reason")


def test_the_pulse_stands_still_in_a_thread_that_waits(rank: Rank) -> None:
    waiting = threading.Event()
    states: list[float] = []

    def work() -> None:
        rank._thread = threading.get_ident()
        waiting.wait()
        deadline = time.thread_time() + 0.05
        while time.thread_time() < deadline:
            pass
        states.append(rank.pulse())

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.05)
    before = rank.pulse()
    time.sleep(0.2)
    assert rank.pulse() == before
    assert "waiting.wait()" in rank.stack()
    waiting.set()
    thread.join()
    assert states[0] >= before + 0.05


def test_the_port_of_a_place_is_kept_until_the_group_has_it(rank: Rank) -> None:
    place = rank.place()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((place.host, place.port))
    rank.join(0, 1, place.host, place.port, timeout_s=60, gpu=False)
    with socket.socket() as other:
        other.bind((place.host, place.port))


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.1") is None
