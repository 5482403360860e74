"""What is written down of an epoch, and when its checkpoint becomes durable."""

from __future__ import annotations

import math

import pytest
import torch

from medaug.errors import EnvironmentFault
from medaug.storage.results import DivergedResult, ExtractResult
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial.fence import Fence
from medaug.sweep.trial.recorder import Recorder
from medaug.train.checkpoint import Checkpoint, Ledger, Progress

CAME_TO_NOTHING = DivergedResult(stage="classify", why="no reason")
FEATURES = ExtractResult(output="features-x", rows=8, shape=(4, 1, 1))


def recorder_of(folder: TrialFolder, every_s: float) -> Recorder:
    return Recorder(folder, every_s, Fence(folder, (1, 1)))


def progress(epoch: int, **more: object) -> Progress:
    state = Checkpoint(epoch, epoch, {"w": torch.full((3,), float(epoch))})
    return Progress(epoch, {"val/score": float(epoch)}, state, **more)  # type: ignore[arg-type]


def saved(folder: TrialFolder) -> int:
    checkpoint = Ledger(folder.path).latest(folder.key)
    assert (checkpoint.epoch if checkpoint else 0) == Ledger(folder.path).epoch()
    return checkpoint.epoch if checkpoint else 0


def epochs(folder: TrialFolder) -> list[int]:
    return [row["epoch"] for row in folder.epochs()]


def test_an_epoch_is_saved_when_the_last_save_is_old_enough(
    folder: TrialFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("medaug.sweep.trial.recorder.time.monotonic", lambda: now[0])
    recorder = recorder_of(folder, 30)
    for epoch, at, newest in [(1, 129, 0), (2, 131, 2), (3, 160, 2), (4, 161, 4)]:
        now[0] = at
        recorder.record(progress(epoch), seconds=1.0)
        assert saved(folder) == newest
    assert epochs(folder) == [1, 2, 3, 4]
    assert [row["save_seconds"] > 0 for row in folder.epochs()] == [False, True, False, True]


@pytest.mark.parametrize("last", [{"keep": False}, {"result": FEATURES}])
def test_a_checkpoint_that_nobody_will_open_is_neither_written_nor_kept(
    folder: TrialFolder, last: dict[str, object]
) -> None:
    recorder = recorder_of(folder, 0)
    recorder.record(progress(1), seconds=1.0)
    assert saved(folder) == 1
    recorder.record(progress(2, **{"result": CAME_TO_NOTHING, **last}), seconds=1.0)
    recorder.save()
    assert Ledger(folder.path).latest(folder.key) is None
    assert folder.result() is not None
    assert epochs(folder) == [1, 2]
    assert folder.epochs()[1]["save_seconds"] == 0


def test_the_end_a_milestone_and_a_stop_are_saved_however_young_the_last_save(
    folder: TrialFolder,
) -> None:
    recorder = recorder_of(folder, math.inf)
    recorder.record(progress(1), seconds=1.0)
    assert saved(folder) == 0
    recorder.save()
    assert saved(folder) == 1
    recorder.record(progress(2, save=True), seconds=1.0)
    assert saved(folder) == 2
    recorder.record(progress(3), seconds=1.0)
    recorder.record(Progress(3, {}, result=CAME_TO_NOTHING), seconds=1.0)
    assert saved(folder) == 3
    assert epochs(folder) == [1, 2, 3]
    assert folder.result() == CAME_TO_NOTHING


def test_what_was_published_needs_no_checkpoint(folder: TrialFolder) -> None:
    recorder = recorder_of(folder, 0)
    recorder.record(progress(1), seconds=1.0)
    assert saved(folder) == 1
    recorder.record(Progress(2, {}, result=FEATURES), seconds=1.0)
    assert saved(folder) == 0
    assert epochs(folder) == [1, 2]


def test_an_epoch_done_again_is_written_again_and_a_result_alone_is_not(
    folder: TrialFolder,
) -> None:
    recorder_of(folder, math.inf).record(progress(1), seconds=1.0)
    again = recorder_of(folder, math.inf)
    again.record(progress(1), seconds=1.0)
    again.record(Progress(1, {}, result=CAME_TO_NOTHING), seconds=1.0)
    assert epochs(folder) == [1, 1]


def test_a_save_that_failed_is_not_tried_again(
    folder: TrialFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise EnvironmentFault("full")

    recorder = recorder_of(folder, 0)
    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "_write", full)
        with pytest.raises(EnvironmentFault, match="full"):
            recorder.record(progress(1), seconds=1.0)
    recorder.save()
    assert saved(folder) == 0
