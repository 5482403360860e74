"""Killed anywhere, writing goes on at the last whole shard and ends with the same bytes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from dataclasses import replace
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest

from medaug.errors import EnvironmentFault, IntegrityError, UserError
from medaug.store import Store, StoreSchema, StoreWriter, publish
from tests.store.small import ABOUT, PROVENANCE, SMALL, contents, in_process, rows_of, write_rows

SCHEMA = StoreSchema((30, 100), "float32")  # 12,000 bytes: 21 rows a record batch
OPTIONS = {**ABOUT, "shard_bytes": 550_000}  # 42 rows a shard
ROWS = 300
ROWS_GIVEN = "medaug.test.rows_given"
MOMENTS = {"open", "os.rename", "os.link", "os.remove", "os.chmod", ROWS_GIVEN}
SHARD_0, SHARD_1, SHARD_2 = (f"part-000-shard-0000{i}.arrow" for i in range(3))


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that these shards, too, go to the disk in several steps, past the page cache."""
    monkeypatch.setattr("medaug.store.hashed_file.STEP_BYTES", 64 << 10)


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The store as an undisturbed writer leaves it."""
    with StoreWriter(tmp_path / "whole", SCHEMA, **OPTIONS) as writer:
        write_rows(writer, SCHEMA, ROWS)
    return contents(tmp_path / "whole")


def go_on(path: Path) -> int:
    """Write what is missing; the number of rows that were there."""
    with StoreWriter(path, SCHEMA, **OPTIONS) as writer:
        done = writer.rows_done
        write_rows(writer, SCHEMA, ROWS, first=done)
    return done


def stop_after(path: Path, rows: int, **options: object) -> None:
    """Write some rows, then leave as if by Ctrl-C."""
    writer = StoreWriter(path, SCHEMA, **{**OPTIONS, **options})
    write_rows(writer, SCHEMA, rows)
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)


def wait_for(shard: Path) -> None:
    """Until ``shard`` is published: that goes on while the next one is written."""
    until = time.monotonic() + 60
    while not shard.with_suffix(".json").exists():
        assert time.monotonic() < until, f"{shard} was not published"
        time.sleep(0.01)


@pytest.mark.parametrize(("rows", "kept"), [(0, 0), (41, 0), (42, 42), (100, 84), (300, 294)])
def test_whole_shards_are_kept(tmp_path: Path, whole: dict[str, bytes], rows, kept) -> None:
    stop_after(tmp_path / "s", rows)
    assert not Store.exists(tmp_path / "s")
    assert len(list((tmp_path / "s").glob("*.arrow"))) == kept // 42
    assert go_on(tmp_path / "s") == kept
    assert contents(tmp_path / "s") == whole


def go_on_until(path: Path, last: int, seen: Synchronized[int] | None = None) -> None:
    """As :func:`go_on`, killed at the ``last`` moment: each file touched and each few rows given
    is one. Counted, not timed, though a shard that is being published counts in between."""
    moments = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal moments
        if event not in MOMENTS:
            return
        moments += 1
        if seen is not None:
            seen.value = moments
        if moments == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    with StoreWriter(path, SCHEMA, **OPTIONS) as writer:
        for first in range(writer.rows_done, ROWS, 7):
            write_rows(writer, SCHEMA, min(first + 7, ROWS), first=first)
            sys.audit(ROWS_GIVEN)


def test_a_killed_writer_goes_on(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """SIGKILL at 15 seeded moments; what is under a final name is whole every time."""
    seen = multiprocessing.get_context("fork").Value("i", 0)
    process = in_process(go_on_until, tmp_path / "undisturbed", -1, seen)
    process.join()
    assert process.exitcode == 0
    moment = random.Random(0)
    kills, torn = 0, 0
    for attempt in range(15):
        path = tmp_path / f"s{attempt % 5}"  # the same stores again and again
        process = in_process(go_on_until, path, moment.randint(1, seen.value))
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        torn += any(path.glob(".*.tmp-*"))
        for shard in path.glob("part-*.arrow"):
            assert shard.read_bytes() == whole[shard.name]
    assert kills >= 8
    assert torn >= 3
    for store in range(5):
        go_on(tmp_path / f"s{store}")
        assert contents(tmp_path / f"s{store}") == whole


@pytest.mark.parametrize("damage", ["flip", "truncate", "no sidecar", "flip sidecar", "empty"])
def test_a_damaged_shard_is_written_again(tmp_path: Path, whole: dict[str, bytes], damage) -> None:
    path = tmp_path / "s"
    stop_after(path, 150)
    shard = path / SHARD_1
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif damage == "truncate":
        shard.write_bytes(content[:-1000])
    elif damage == "empty":
        shard.write_bytes(b"")
    elif damage == "flip sidecar":
        sidecar = bytearray(shard.with_suffix(".json").read_bytes())
        sidecar[100] ^= 1
        shard.with_suffix(".json").write_bytes(sidecar)
    else:
        shard.with_suffix(".json").unlink()
    # Without its sidecar a shard is whole all the same: it was named when it was complete.
    assert go_on(path) == (126 if damage == "no sidecar" else 42)
    assert contents(path) == whole


def test_the_manifest_is_written_again_if_it_is_damaged(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    go_on(tmp_path / "s")
    for content in (b"", whole["manifest.json"][:-20], whole["manifest.json"].replace(b"7", b"8")):
        (tmp_path / "s" / "manifest.json").write_bytes(content)
        assert not Store.exists(tmp_path / "s")
        assert go_on(tmp_path / "s") == ROWS
        assert contents(tmp_path / "s") == whole


def test_rows_that_are_there_must_be_skipped(tmp_path: Path) -> None:
    stop_after(tmp_path / "s", 100)
    writer = StoreWriter(tmp_path / "s", SCHEMA, **OPTIONS)
    rows = rows_of(SCHEMA, 1)
    with pytest.raises(AssertionError, match="rows_done"):
        writer.write(rows.pop("x"), **rows)


def test_a_finished_store_is_not_written_again(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = tmp_path / "whole"
    rows = rows_of(SCHEMA, 1)
    writer = StoreWriter(path, SCHEMA, **OPTIONS)
    assert writer.rows_done == ROWS
    with pytest.raises(UserError, match="is complete"):
        writer.write(rows.pop("x"), **rows)
    writer.close()
    other = {**OPTIONS, "provenance": replace(PROVENANCE, config="another")}
    with pytest.raises(UserError, match="finished store of another configuration"):
        StoreWriter(path, SCHEMA, **other)
    assert contents(path) == whole


def test_shards_of_another_configuration_are_not_kept(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    stop_after(tmp_path / "s", 100, provenance=replace(PROVENANCE, config="another"))
    assert go_on(tmp_path / "s") == 0
    assert contents(tmp_path / "s") == whole


def test_temporaries_of_dead_processes_only_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.mkdir()
    host = os.uname().nodename
    process = in_process(int)
    process.join()
    dead = process.pid
    ages = {
        f".{SHARD_0}.tmp-{host}-{dead}-aaaa0000": 0,
        f".{SHARD_0}.tmp-{host}-{os.getpid()}-bbbb0000": 0,
        f".{SHARD_0}.tmp-other-host-1-cccc0000": 0,
        f".{SHARD_0}.tmp-other-host-1-dddd0000": 7200,
    }
    for name, age in ages.items():
        (path / name).write_bytes(b"half")
        os.utime(path / name, (time.time() - age,) * 2)
    StoreWriter(path, SCHEMA, **OPTIONS)
    assert sorted(name[-8:-4] for name in os.listdir(path)) == ["bbbb", "cccc"]


def write_part(path: Path, part: int, n: int, parts: int = 2, **options: object) -> None:
    about = {**OPTIONS, "part": part, "parts": parts, **options}
    with StoreWriter(path, SCHEMA, **about) as writer:
        first, last = n * part // parts, n * (part + 1) // parts
        write_rows(writer, SCHEMA, last, first=first + writer.rows_done)


def test_parts_are_joined_in_order(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = tmp_path / "s"
    write_part(path, 1, ROWS)
    assert not Store.exists(path)
    with pytest.raises(IntegrityError, match=r"part-000\.json: missing, so part 0 of 2"):
        publish(path, SCHEMA, parts=2, **OPTIONS)
    write_part(path, 0, ROWS)
    publish(path, SCHEMA, parts=2, **OPTIONS)
    store, alone = Store.open(path), Store.open(tmp_path / "whole")
    assert store.slice_index.tolist() == list(range(ROWS))
    assert store.read().x.equal(alone.read().x)
    assert store.manifest["class_counts"] == alone.manifest["class_counts"]
    assert store.manifest["patients"] == alone.manifest["patients"]
    names = [shard["file"] for shard in store.manifest["shards"]]
    assert names == [f"part-00{p}-shard-0000{i}.arrow" for p in (0, 1) for i in range(4)]


def test_a_part_may_be_empty(tmp_path: Path) -> None:
    for part in (0, 1, 2):
        write_part(tmp_path / "s", part, 2, parts=3)
    publish(tmp_path / "s", SCHEMA, parts=3, **OPTIONS)
    assert Store.open(tmp_path / "s").slice_index.tolist() == [0, 1]


def test_parts_of_different_writings_are_not_joined(tmp_path: Path) -> None:
    write_part(tmp_path / "s", 0, ROWS)
    write_part(tmp_path / "s", 1, ROWS, provenance=replace(PROVENANCE, config="another"))
    with pytest.raises(IntegrityError, match=r"part-001\.json: was written for another"):
        publish(tmp_path / "s", SCHEMA, parts=2, **OPTIONS)


@pytest.mark.parametrize("lost", [SHARD_2, SHARD_2.replace("arrow", "json")])
def test_what_is_missing_is_not_published(tmp_path: Path, lost) -> None:
    for part in (0, 1):
        write_part(tmp_path / "s", part, ROWS)
    (tmp_path / "s" / lost).unlink()
    with pytest.raises(IntegrityError, match=SHARD_2[:-6]):
        publish(tmp_path / "s", SCHEMA, parts=2, **OPTIONS)
    assert not Store.exists(tmp_path / "s")


def test_two_writers_of_one_store_share_its_shards(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """Step by step in turn, and the one that began later ends first."""
    path = tmp_path / "s"
    one = StoreWriter(path, SCHEMA, **OPTIONS)
    write_rows(one, SCHEMA, 60)
    wait_for(path / SHARD_0)
    other = StoreWriter(path, SCHEMA, **OPTIONS)
    assert other.rows_done == 42
    inode = (path / SHARD_0).stat().st_ino
    write_rows(other, SCHEMA, 200, first=42)
    write_rows(one, SCHEMA, ROWS, first=60)
    write_rows(other, SCHEMA, ROWS, first=200)
    other.close()
    assert contents(path).keys() - whole.keys() != {}  # the first one's last shard, unfinished
    one.close()
    assert contents(path) == whole
    assert (path / SHARD_0).stat().st_ino == inode


def test_two_processes_race_to_one_store(tmp_path: Path, whole: dict[str, bytes]) -> None:
    for attempt in range(5):
        path = tmp_path / f"s{attempt}"
        processes = [in_process(go_on, path) for _ in range(2)]
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]
        assert contents(path) == whole


def test_what_differs_between_two_writers_does_not_tear_the_store(tmp_path: Path) -> None:
    """A GPU may differ in the last bit: the first one's shard stands, sidecar and all."""
    path = tmp_path / "s"
    one, other = (StoreWriter(path, SCHEMA, **OPTIONS) for _ in range(2))
    write_rows(one, SCHEMA, 100)
    wait_for(path / SHARD_1)
    for start in range(0, ROWS, 10):
        rows = rows_of(SCHEMA, 10, start)
        other.write(rows.pop("x") + 0.5, **rows)
    other.close()
    write_rows(one, SCHEMA, ROWS, first=100)
    one.close()
    read = Store.open(path).read().x.numpy()
    expected = rows_of(SCHEMA, ROWS)["x"]
    expected[84:] += 0.5
    assert (read == expected).all()


def test_file_systems_without_hard_links_will_do(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*names: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    stop_after(tmp_path / "s", 100)
    (tmp_path / "s" / SHARD_2).write_bytes(whole[SHARD_2])  # another writer's
    assert go_on(tmp_path / "s") == 126
    assert contents(tmp_path / "s") == whole


def test_extra_may_be_filled_until_the_end(tmp_path: Path) -> None:
    splits: dict[str, object] = {}
    with StoreWriter(tmp_path / "s", SMALL, splits=splits, **ABOUT) as writer:
        write_rows(writer, SMALL, 8)
        writer.extra["moments"] = {"p-0": [1, 2.5]}
        splits["folds"] = [{"train": ["p-0"], "val": [], "eval": ["p-1"]}]
    store = Store.open(tmp_path / "s")
    assert store.manifest["extra"] == {"moments": {"p-0": [1, 2.5]}}
    assert len(store.split("eval", 0)) == 4


def write_with_little_room(path: Path, message: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    try:
        go_on(path)
    except EnvironmentFault as fault:
        message.write_text(str(fault))


def test_a_full_disk_is_named(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """A file-size limit of the process stands for the full disk; what was whole is kept."""
    path = tmp_path / "s"
    stop_after(path, 42)
    in_process(write_with_little_room, path, tmp_path / "message").join()
    assert (tmp_path / "message").read_text().startswith("need 1 MB, have")
    assert not list(path.glob(".*tmp*"))
    assert go_on(path) == 42
    assert contents(path) == whole


def test_storage_that_fails_is_an_environment_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="check the storage"):
        StoreWriter(tmp_path / "file" / "store", SMALL, **ABOUT)
