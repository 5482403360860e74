"""Files written in steps past the page cache, or through it where the file system refuses."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from medaug.store import StoreSchema, StoreWriter, direct
from medaug.store.direct import BLOCK_BYTES, aligned_bytes, open_direct, read_direct, scratch_bytes
from medaug.store.hashed_file import HashedFile
from medaug.store.sidecar import describe
from tests.store.small import ABOUT, write_rows

STEP = 16 * BLOCK_BYTES


@pytest.fixture(params=["direct", "no such thing", "another alignment"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the file system says of O_DIRECT: yes, no, or yes and then refuses what is written."""
    monkeypatch.setattr("medaug.store.hashed_file.STEP_BYTES", STEP)
    if request.param == "no such thing":
        monkeypatch.setattr(os, "open", refusing(os.open, lambda *a: a[1] & direct._DIRECT))
    if request.param == "another alignment":
        monkeypatch.setattr(os, "pwrite", refusing(os.pwrite, lambda *a: is_direct(a[0])))
        monkeypatch.setattr(os, "preadv", refusing(os.preadv, lambda *a: is_direct(a[0])))
    return str(request.param)


def refusing(call: Callable[..., int], when: Callable[..., int]) -> Callable[..., int]:
    def refuse(*arguments: object, **options: object) -> int:
        if when(*arguments):
            raise OSError(errno.EINVAL, "Invalid argument")
        return call(*arguments, **options)

    return refuse


def is_direct(descriptor: int) -> bool:
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    flags = next(line for line in text.splitlines() if line.startswith("flags:"))
    return bool(int(flags.split()[1], 8) & direct._DIRECT)


@pytest.mark.parametrize("n", [0, 1, STEP - 1, STEP, STEP + 1, 9 * STEP + 13])
def test_what_is_written_is_there_with_its_hash(tmp_path: Path, file_system, n) -> None:
    content = np.random.default_rng(n).bytes(n)
    draw, done = random.Random(n), 0
    file = HashedFile(tmp_path / "f")
    while done < n:
        piece = bytearray(content[done : done + draw.randrange(1, 3 * STEP)])
        assert file.write(piece) == len(piece)
        done += len(piece)
        piece[:] = bytes(len(piece))  # the caller's memory is the caller's again
    assert file.size == n
    assert file.finish() == f"blake3:{blake3(content).hexdigest()}"
    assert (tmp_path / "f").read_bytes() == content


@pytest.mark.parametrize("fails", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_is_raised_to_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails
) -> None:
    """It happens in a thread, some steps later."""
    monkeypatch.setattr("medaug.store.hashed_file.STEP_BYTES", STEP)

    def full(descriptor: int, content: memoryview, at: int) -> int:
        raise OSError(fails, os.strerror(fails))

    monkeypatch.setattr(os, "pwrite", full)
    file = HashedFile(tmp_path / "f")
    with pytest.raises(OSError, match=os.strerror(fails)):
        file.write(bytes(10 * STEP))
    file.close()
    file = HashedFile(tmp_path / "g")
    file.write(b"little")
    with pytest.raises(OSError, match=os.strerror(fails)):
        file.finish()
    file.close()


def test_direct_reads_begin_and_end_anywhere(tmp_path: Path, file_system) -> None:
    content = np.random.default_rng(0).integers(0, 256, 5 * BLOCK_BYTES + 77, np.uint8)
    (tmp_path / "f").write_bytes(content)
    descriptor = open_direct(tmp_path / "f", os.O_RDONLY)
    assert (descriptor == -1) == (file_system == "no such thing")
    if descriptor == -1:
        return
    scratch = aligned_bytes(1, scratch_bytes(content.size))[0]
    for first, last in [(0, 1), (64, 5000), (BLOCK_BYTES, 2 * BLOCK_BYTES), (4095, 20557)]:
        into = np.zeros(last - first, np.uint8)
        done = read_direct(descriptor, first, into, scratch)
        assert done == (file_system == "direct")
        assert not done or (into == content[first:last]).all()
    beyond = np.zeros(100, np.uint8)
    assert not read_direct(descriptor, content.size - 50, beyond, scratch)
    os.close(descriptor)


@pytest.mark.parametrize("mask_shape", [None, (9, 9)])
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("shape", [(33, 64, 127), (3, 5, 7), (8,)])
def test_the_sidecar_is_what_the_finished_shard_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype, mask_shape, shape
) -> None:
    """Noted while writing; made from the file alone where a shard is found without."""
    monkeypatch.setattr("medaug.store.hashed_file.STEP_BYTES", STEP)
    schema = StoreSchema(shape, dtype, mask_shape)
    with StoreWriter(tmp_path / "s", schema, shard_bytes=3 << 20, **ABOUT) as writer:
        write_rows(writer, schema, 25)
        key = writer._plan.key
    shards = sorted((tmp_path / "s").glob("*.arrow"))
    for shard in shards:
        made = describe(shard, schema, key)
        assert made.to_bytes() == shard.with_suffix(".json").read_bytes()
        assert made.digest == f"blake3:{blake3(shard.read_bytes()).hexdigest()}"
        assert made.xxh3.all()
    assert shards
