"""How often a trial is tried, and where its time went; its ranks play what the test says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from toy_trials import config

from medaug.results.goodput import spent
from medaug.spec import ResourceSpec
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial.failures import Failure, GroupFailed
from medaug.sweep.trial.rank import Epoch
from medaug.sweep.trial.trainable import Setting, Trial, Wave, as_param

DIED = Failure("rank died", "a rank's process ended unexpectedly")
LOST = Failure("lost node", "a rank's node is gone")


class ScriptedRanks:
    """The trial's other processes: each step is an epoch number, or how they fail."""

    device = "cpu"

    def __init__(self, script: Iterator[int | Failure]) -> None:
        self._script = script

    def begin(self, folder: TrialFolder, storage: Path, work: str, turn: tuple[int, int]) -> int:
        return 0

    def advance(self) -> Epoch:
        if isinstance(step := next(self._script), Failure):
            raise GroupFailed(step)
        return Epoch(step, {"val/score": 1.0}, finished=step == 9, seconds={"step": 0.0})

    def leaving(self) -> list[str]:
        return []

    def end(self) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


@pytest.fixture
def play(folder: TrialFolder) -> Any:
    """``play(*script)`` -> (trial, its folder)."""

    def start(*script: int | Failure) -> tuple[Trial, TrialFolder]:
        steps = iter(script)
        trial = Trial.__new__(Trial)  # its constructor asks Ray for a folder
        here = folder.experiment
        setting = Setting(here, here, ResourceSpec(max_failures=1))
        param = as_param(config("x", ranks=2), Wave("toy_trials:count"))
        trial.setup({"trial": param}, setting, lambda size, resources: ScriptedRanks(steps))
        return trial, folder

    return start


def test_tries_are_counted_for_each_epoch(play: Any) -> None:
    trial, folder = play(1, DIED, 2, DIED, 3, DIED, 9)
    assert [trial.step()["epoch"] for _ in range(4)] == [1, 2, 3, 9]
    assert len(folder.failures()) == 3
    assert folder.failure() is None


def test_an_epoch_done_again_is_no_progress(play: Any) -> None:
    """Without a checkpoint a trial starts over, and may come as far for ever."""
    trial, folder = play(1, 2, DIED, 1, 2, DIED, 1, 2)
    answers = [trial.step() for _ in range(5)]
    assert [answer["epoch"] for answer in answers] == [1, 2, 1, 2, 2]
    assert answers[-1]["failure"].startswith("rank died: ")
    assert answers[-1][tune.result.DONE]
    assert folder.failure()["kind"] == "rank died"


def test_a_lost_node_is_for_tune_to_replace(play: Any) -> None:
    trial, folder = play(1, LOST)
    trial.step()
    with pytest.raises(GroupFailed):
        trial.step()
    assert folder.failure() is None


def test_what_goes_wrong_in_the_trials_own_process_is_told_once(play: Any) -> None:
    trial, folder = play(1)  # and then its script is at its end
    trial.step()
    answer = trial.step()
    assert answer["failure"].startswith("error: StopIteration")
    assert answer[tune.result.DONE]
    assert folder.failure()["kind"] == "error"


def test_every_lap_has_a_bucket(play: Any) -> None:
    trial, folder = play(1, DIED, 2, 9)
    while not trial.step()[tune.result.DONE]:
        pass
    laps = folder.laps()
    names = [name for lap in laps for name in lap["seconds"]]
    assert [name for name in names if name != "idle"] == [
        *("startup", "ckpt_load", "step"),
        *("detect", "redone", "restart", "ckpt_load", "step", "step"),
    ]
    assert [lap["epoch"] for lap in laps if "epoch" in lap] == [1, 2, 9]
    began = laps[0]["time"] - sum(laps[0]["seconds"].values())
    wall = laps[-1]["time"] - began
    assert spent([], laps).wall == pytest.approx(wall, abs=0.01 * wall + 1e-3)
