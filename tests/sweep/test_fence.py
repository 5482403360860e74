"""A writer that comes late changes nothing in a trial that somebody else has begun again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_trials import config

from medaug.spec import TrialConfig
from medaug.storage.results import ExtractResult
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial.failures import Failure, triage
from medaug.sweep.trial.fence import Fence, Superseded, newest_turn, next_turn
from medaug.sweep.trial.rank import Rank
from medaug.sweep.trial.recorder import Recorder
from medaug.train import checkpoint as ledger_module
from medaug.train.checkpoint import Checkpoint, Progress

ANOTHER_DRIVER = """\
import sys
from pathlib import Path
from toy_trials import config
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial.rank import Rank

rank, storage = Rank(1.0, 0), Path(sys.argv[1])
place = rank.place()
rank.join(0, 1, place.host, place.port, timeout_s=60, gpu=False)
folder = TrialFolder(storage / "experiment", config("x").key)
print(rank.begin(folder, storage, "toy_trials:count", (2, 1)))
while not rank.advance().finished:
    pass
"""

DONE = ExtractResult(output="none", rows=0, shape=())


@pytest.fixture
def trial() -> TrialConfig:
    return config("x")


@pytest.fixture
def folder(tmp_path: Path, trial: TrialConfig) -> TrialFolder:
    folder = TrialFolder(tmp_path / "experiment", trial.key)
    folder.claim(trial)
    return folder


def progress(epoch: int, **more: object) -> Progress:
    state = Checkpoint(epoch, epoch, {"w": torch.full((3,), float(epoch))})
    return Progress(epoch, {"val/score": float(epoch)}, state, **more)  # type: ignore[arg-type]


def content(folder: TrialFolder) -> dict[str, bytes]:
    """What readers see."""
    files = (path for path in folder.path.rglob("*") if path.is_file())
    names = ((str(path.relative_to(folder.path)), path) for path in files)
    return {name: path.read_bytes() for name, path in names if ".tmp_" not in name}


def test_turns_go_by_lease_and_then_by_attempt(folder: TrialFolder) -> None:
    assert newest_turn(folder) == (0, 0)
    assert next_turn(folder, lease=3) == (3, 1)
    first = Fence(folder, (3, 1))
    first.check()
    assert next_turn(folder, lease=3) == (3, 2)
    again = Fence(folder, (3, 1))  # the same trial's actor, with new ranks
    again.check()
    with pytest.raises(Superseded):
        first.check()
    assert next_turn(folder, lease=4) == (4, 1)
    Fence(folder, (4, 1))
    for late in ((3, 1), (3, 9), (2, 1)):
        with pytest.raises(Superseded):
            Fence(folder, late)
    assert newest_turn(folder) == (4, 1)


def test_nothing_of_an_old_writer_arrives(folder: TrialFolder) -> None:
    old = Recorder(folder, 3600, Fence(folder, (1, 1)))
    old.record(progress(1), seconds=1.0)
    new = Recorder(folder, 0, Fence(folder, (1, 2)))
    new.record(progress(1), seconds=1.0)
    before = content(folder)
    with pytest.raises(Superseded):
        old.save()
    with pytest.raises(Superseded):
        old.record(progress(2, result=DONE), seconds=1.0)
    assert content(folder) == before
    new.record(progress(2, result=DONE), seconds=1.0)
    assert folder.result() == DONE


def test_a_checkpoint_that_was_being_written_meanwhile_gets_no_name(
    folder: TrialFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Recorder(folder, 0, Fence(folder, (1, 1)))

    def synced(path: Path) -> None:
        if path.name.startswith(".tmp_ep"):  # its files are written, its name is to come
            Fence(folder, (2, 1))

    monkeypatch.setattr(ledger_module, "sync_folder", synced)
    with pytest.raises(Superseded) as caught:
        old.record(progress(1), seconds=1.0)
    assert set(content(folder)) == {"config.json", "attempt.json"}
    failure = triage(caught.value)
    assert (failure.kind, failure.another_try) == ("superseded", False)


def test_a_rank_whose_driver_lost_the_lease_ends_without_a_word(
    folder: TrialFolder, trial: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    rank, threads = Rank(1.0, checkpoint_every_s=0), torch.get_num_threads()
    place = rank.place()
    rank.join(0, 1, place.host, place.port, timeout_s=60, gpu=False)
    how = (folder, tmp_path, "toy_trials:count")
    assert rank.begin(*how, (1, 1)) == 0
    rank.advance()

    command = [sys.executable, "-c", ANOTHER_DRIVER, str(tmp_path)]
    environment = {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"}
    other = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (other.returncode, other.stdout) == (0, "1\n"), other.stderr
    before = content(folder)

    late = rank.advance()
    assert isinstance(late, Failure)
    assert late.kind == "superseded"
    rank.end()
    too_late = rank.begin(*how, (1, 2))
    assert isinstance(too_late, Failure)
    assert too_late.kind == "superseded"
    rank.end()
    assert content(folder) == before
    assert folder.result() is not None
    torch.set_num_threads(threads)
