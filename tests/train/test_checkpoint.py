from __future__ import annotations

import errno
import json
import os
import pickle
import random
import resource
import signal
import stat
import sys
from pathlib import Path

import pytest
import torch

from medaug.errors import EnvironmentFault, UserError
from medaug.train.checkpoint import MANIFEST, STATE, WEIGHTS, Ledger
from tests.train.checkpoints import KEY, checkpoint

MOMENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def epochs(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_is_committed_is_what_comes_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "trial")
    assert ledger.latest(KEY) is None
    for epoch in range(1, 5):
        ledger.commit(checkpoint(epoch), fingerprint=KEY)
    assert epochs(tmp_path / "trial") == ["ep_000003", "ep_000004"]
    back, sent = Ledger(tmp_path / "trial").latest(KEY), checkpoint(4)
    assert back is not None
    assert (back.epoch, back.step) == (4, 40)
    assert back.tensors.keys() == sent.tensors.keys()
    assert all(torch.equal(back.tensors[name], sent.tensors[name]) for name in sent.tensors)
    adam = back.state["optimizers"]["adam"]["state"][0]
    assert torch.equal(adam["exp_avg"], sent.tensors["net.weight"] * 2)
    assert back.state["history"] == [{"loss": 0.5}]


def test_the_same_epoch_can_be_written_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.commit(checkpoint(1), fingerprint=KEY)
    again = checkpoint(1)
    again.tensors = {"net.weight": torch.zeros(1)}
    ledger.commit(again, fingerprint=KEY)
    back = ledger.latest(KEY)
    assert back is not None
    assert list(back.tensors) == ["net.weight"]
    assert epochs(tmp_path) == ["ep_000001"]


def test_files_are_private(tmp_path: Path) -> None:
    path = Ledger(tmp_path / "trial").commit(checkpoint(1), fingerprint=KEY)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}


def test_another_configuration_is_refused_naming_both(tmp_path: Path) -> None:
    Ledger(tmp_path).commit(checkpoint(1), fingerprint=KEY)
    with pytest.raises(UserError, match=f"{KEY}.*ba9876543210"):
        Ledger(tmp_path).latest("ba9876543210")


def test_an_unknown_schema_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medaug.train.checkpoint.SCHEMA", 2)
    Ledger(tmp_path).commit(checkpoint(1), fingerprint=KEY)
    monkeypatch.undo()
    with pytest.raises(UserError, match="schema 2, this medaug reads 1"):
        Ledger(tmp_path).latest(KEY)


def test_a_missing_file_is_a_damage(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.commit(checkpoint(1), fingerprint=KEY)
    for name in (WEIGHTS, MANIFEST):
        ledger.commit(checkpoint(2), fingerprint=KEY)
        (tmp_path / "ep_000002" / name).unlink()
        back = ledger.latest(KEY)
        assert back is not None
        assert back.epoch == 1


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (os.environ["MEDAUG_BOMB"],))


def test_a_planted_pickle_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    marker = tmp_path / "executed"
    monkeypatch.setenv("MEDAUG_BOMB", str(marker))
    ledger = Ledger(tmp_path / "trial")
    ledger.commit(checkpoint(1), fingerprint=KEY)
    (tmp_path / "trial" / "ep_000001" / STATE).write_bytes(pickle.dumps(Bomb()))
    assert ledger.latest(KEY) is None  # stopped by its hash
    evil = checkpoint(2)
    evil.state = {"bomb": Bomb()}
    ledger.commit(evil, fingerprint=KEY)  # by someone who can write manifests, too
    assert ledger.latest(KEY) is None
    assert "more than tensors and plain values" in caplog.text
    assert not marker.exists()


def commit_until(folder: Path, first: int, last_moment: int) -> None:
    """Commit epoch after epoch, killed at that moment: each file or folder touched is one."""
    moments = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal moments
        if event not in MOMENTS:  # also os.kill is one
            return
        moments += 1
        if moments == last_moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    for epoch in range(first, first + 10_000):
        Ledger(folder).commit(checkpoint(epoch, size=2000), fingerprint=KEY)


def test_killed_at_any_moment_only_whole_checkpoints_have_names(tmp_path: Path) -> None:
    dice = random.Random(0)
    newest = 0
    for _ in range(30):
        moment = dice.randint(1, 60)
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            commit_until(tmp_path, newest + 1, moment)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        back = Ledger(tmp_path).latest(KEY) if any(tmp_path.iterdir()) else None
        assert not list(tmp_path.glob(".bad_*"))
        if back is not None:
            assert back.epoch >= newest
            assert torch.equal(
                back.tensors["net.weight"], checkpoint(back.epoch, 2000).tensors["net.weight"]
            )
            newest = back.epoch
    assert newest > 10
    Ledger(tmp_path).commit(checkpoint(newest + 1), fingerprint=KEY)
    assert not list(tmp_path.glob(".tmp_*"))


def test_a_full_disk_takes_the_old_checkpoint_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    ledger.commit(checkpoint(1), fingerprint=KEY)
    ledger.commit(checkpoint(2), fingerprint=KEY)
    fsync, seen = os.fsync, []

    def full_once(descriptor: int) -> None:
        seen.append(epochs(tmp_path))
        if len(seen) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_once)
    ledger.commit(checkpoint(3), fingerprint=KEY)
    assert "ep_000001" in seen[0]
    assert "ep_000001" not in seen[1]
    assert epochs(tmp_path) == ["ep_000002", "ep_000003"]


def test_a_disk_that_stays_full_is_an_environment_fault(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.commit(checkpoint(1), fingerprint=KEY)
    ledger.commit(checkpoint(2), fingerprint=KEY)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(EnvironmentFault, match=r"need 0\.\d MB, have [\d.]+ MB at "):
            ledger.commit(checkpoint(3, size=5000), fingerprint=KEY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert epochs(tmp_path) == ["ep_000002"]
    back = ledger.latest(KEY)
    assert back is not None
    assert back.epoch == 2


def test_storage_that_cannot_be_written_is_an_environment_fault(tmp_path: Path) -> None:
    (tmp_path / "trial").write_text("a file where the folder should be")
    with pytest.raises(EnvironmentFault, match="check the storage"):
        Ledger(tmp_path / "trial").commit(checkpoint(1), fingerprint=KEY)


def test_the_manifest_says_what_it_holds(tmp_path: Path) -> None:
    path = Ledger(tmp_path).commit(checkpoint(7), fingerprint=KEY)
    manifest = json.loads((path / MANIFEST).read_text())
    assert (manifest["epoch"], manifest["step"], manifest["fingerprint"]) == (7, 70, KEY)
    assert manifest["files"][WEIGHTS]["bytes"] == (path / WEIGHTS).stat().st_size


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for epoch in (1, 2):
        ledger.commit(checkpoint(epoch), fingerprint=KEY)
    for keep, left in ((5, ["ep_000001", "ep_000002"]), (1, ["ep_000002"]), (0, [])):
        ledger.prune(keep)
        assert epochs(tmp_path) == left
