"""Rows 27 and 28: one bit changed or bytes missing, anywhere in a shard or a checkpoint."""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medaug.errors import IntegrityError
from medaug.store import Store, StoreSchema, StoreWriter
from medaug.train.checkpoint import Ledger
from tests.chaos.board import Fault
from tests.store.small import ABOUT, ALONE, write_rows
from tests.train.checkpoints import KEY, checkpoint

SCHEMA = StoreSchema((4, 11, 7), "float16", (11, 7))
TIMES = [
    pytest.param(200, id="some"),
    pytest.param(1000, id="thousand", marks=pytest.mark.chaos),
]
ROW = {"cut": 27, "flip": 28}
NAMES = {"cut": "a {} cut short", "flip": "a bit of a {} flipped"}


@contextmanager
def damaged(file: Path, how: str, dice: random.Random) -> Iterator[None]:
    """Cut ``file`` at a random byte or flip a random bit of it, for as long as the block lasts."""
    whole = file.read_bytes()
    at = dice.randrange(len(whole))
    if how == "flip":
        changed = whole[at] ^ 1 << dice.randrange(8)
        file.write_bytes(whole[:at] + bytes([changed]) + whole[at + 1 :])
    else:
        file.write_bytes(whole[:at])
    yield
    file.write_bytes(whole)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("how", ROW)
def test_a_damaged_shard_is_never_read(
    faults: Callable[[int, str], Fault],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    times: int,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # nothing is remembered as verified
    with StoreWriter(tmp_path / "store", SCHEMA, **ABOUT, shard_bytes=250_000) as writer:
        write_rows(writer, SCHEMA, 1000)
    # All that a reader depends on; the records of complete parts are the writer's.
    files = [*(tmp_path / "store").glob("part-*-shard-*"), tmp_path / "store" / "manifest.json"]
    assert len(files) == 7
    dice = random.Random(f"shard {how} {times}")
    fault = faults(ROW[how], NAMES[how].format("shard"))

    def read(access: str) -> None:
        store = Store.open(tmp_path / "store", access=access)
        for _ in store.batches(ALONE, 50, seed=0, epoch=0):
            pass

    for _ in range(times):
        file = dice.choice(files)
        fault.inject()
        with damaged(file, how, dice), pytest.raises(IntegrityError, match=file.stem):
            read(dice.choice(["map", "pread", "direct"]))
        fault.survive()
    read("auto")


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("how", ROW)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    faults: Callable[[int, str], Fault],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    how: str,
    times: int,
) -> None:
    caplog.set_level(logging.WARNING)
    ledger = Ledger(tmp_path)
    ledger.commit(checkpoint(1), fingerprint=KEY)
    newest = ledger.commit(checkpoint(2), fingerprint=KEY)
    files = sorted(newest.iterdir())
    assert len(files) == 3
    dice = random.Random(f"checkpoint {how} {times}")
    fault = faults(ROW[how], NAMES[how].format("checkpoint"))
    for _ in range(times):
        caplog.clear()
        fault.inject()
        with damaged(dice.choice(files), how, dice):
            back = ledger.latest(KEY)
            (aside,) = tmp_path.glob(".bad_*")
            aside.rename(newest)
        assert back is not None
        assert back.epoch == 1
        assert aside.name in caplog.text
        fault.survive()
    back = ledger.latest(KEY)
    assert back is not None
    assert back.epoch == 2
