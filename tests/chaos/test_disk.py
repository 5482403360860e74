"""Rows 23 and 25: a disk that fills up or turns read-only at any moment of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medaug.errors import EnvironmentFault
from medaug.storage.probe import check_storage
from medaug.train.checkpoint import Ledger
from tests.chaos.board import Fault
from tests.chaos.injectors import file_size_limit, fill, make_read_only, small_disk
from tests.train.checkpoints import KEY, checkpoint

MOMENTS = 20
ROWS = 2000
"""Of the checkpoint's weights: some 130 kB in all."""


def is_sound(ledger: Ledger, epoch: int) -> bool:
    """Whether the newest checkpoint is that of ``epoch``, to the bit."""
    back, sent = ledger.latest(KEY), checkpoint(epoch, ROWS)
    assert back is not None
    assert not list(ledger.directory.glob(".bad_*"))
    return back.epoch == epoch and all(
        torch.equal(back.tensors[name], tensor) for name, tensor in sent.tensors.items()
    )


def test_a_disk_that_is_full_at_any_moment(
    faults: Callable[[int, str], Fault], tmp_path: Path
) -> None:
    fault = faults(23, "the disk full while a checkpoint is written")
    with small_disk(tmp_path / "disk", 2 << 20) as disk:
        one = sum(f.stat().st_size for f in _committed(Ledger(disk / "x"), 1).iterdir())
        said: list[str] = []
        for moment in range(MOMENTS):
            ledger = Ledger(disk / f"trial-{moment}")
            _committed(ledger, 1)
            _committed(ledger, 2)
            # From no room at all to just enough; the oldest checkpoint's room is used, too.
            filler = fill(disk, leave_bytes=math.floor(one * moment / (MOMENTS - 6)))
            fault.inject()
            try:
                ledger.commit(checkpoint(3, 2 * ROWS), fingerprint=KEY)
            except EnvironmentFault as error:
                said.append(str(error))
                assert is_sound(ledger, 2)
            assert not list(ledger.directory.glob(".tmp_*"))
            filler.unlink()
            ledger.commit(checkpoint(4, ROWS), fingerprint=KEY)
            assert is_sound(ledger, 4)
            fault.survive()
            for path in sorted(ledger.directory.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    assert 0 < len(said) < MOMENTS, "the disk was full always, or never"
    assert all(text.startswith("need 0.") for text in said)


def test_a_limit_that_strikes_at_any_moment(
    faults: Callable[[int, str], Fault], tmp_path: Path
) -> None:
    """The same for those who may not mount: no file may grow beyond a limit."""
    fault = faults(23, "a file-size limit while a checkpoint is written")
    ledger = Ledger(tmp_path)
    largest = max(f.stat().st_size for f in _committed(ledger, 1).iterdir())
    refused, last = 0, 1
    for moment in range(MOMENTS):
        fault.inject()
        try:
            with file_size_limit(math.floor(largest * (moment + 1) / (MOMENTS - 2))):
                ledger.commit(checkpoint(last + 1, ROWS), fingerprint=KEY)
            last += 1
        except EnvironmentFault:
            refused += 1
        assert is_sound(ledger, last)
        fault.survive()
    assert 0 < refused < MOMENTS


def test_storage_that_turns_read_only(faults: Callable[[int, str], Fault], tmp_path: Path) -> None:
    fault = faults(25, "storage read-only")
    with small_disk(tmp_path / "disk", 2 << 20) as disk:
        ledger = Ledger(disk / "trial")
        _committed(ledger, 1)
        make_read_only(disk)
        fault.inject(2)
        with pytest.raises(EnvironmentFault, match="Read-only file system; check the storage"):
            ledger.commit(checkpoint(2, ROWS), fingerprint=KEY)
        assert is_sound(ledger, 1)
        with pytest.raises(EnvironmentFault, match="Read-only file system; make it writable"):
            check_storage(disk)
        fault.survive(2)


def _committed(ledger: Ledger, epoch: int) -> Path:
    return ledger.commit(checkpoint(epoch, ROWS), fingerprint=KEY)
