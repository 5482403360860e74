"""Whole folders, and stores fetched to a node."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from medaug.errors import EnvironmentFault, IntegrityError, UserError
from medaug.storage.artifacts import Artifacts
from medaug.store import NodeCache, Store, assembled, publish_directory
from tests.store.small import contents, in_process

MakeStore = Callable[..., Store]


def test_a_store_is_fetched_once(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(40)
    cache = NodeCache(tmp_path / "node")
    uri = store.path.as_uri()
    fetched = Store.open(uri, cache=cache)
    assert fetched.path.parent == tmp_path / "node"
    assert fetched.read().x.equal(store.read().x)
    inodes = {path.stat().st_ino for path in fetched.path.iterdir()}
    assert Store.open(store.path, cache=cache).path == fetched.path
    assert {path.stat().st_ino for path in fetched.path.iterdir()} == inodes
    originals = contents(store.path)
    assert contents(fetched.path).items() <= originals.items()
    assert originals.keys() - contents(fetched.path).keys() == {"part-000.json"}


def test_artifacts_are_read_from_the_nodes_cache(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(40)
    artifacts = Artifacts(tmp_path)
    artifacts.store_path("x").parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(store.path, artifacts.store_path("features-1"))
    assert artifacts.open_store("features-1").path == artifacts.store_path("features-1")

    monkeypatch.setenv("MEDAUG_STORE_CACHE", str(tmp_path / "node"))
    fetched = artifacts.open_store("features-1")

    assert fetched.path.parent == tmp_path / "node"
    assert fetched.name == "features-1", "what is made from it has the same name on every node"
    assert fetched.read().x.equal(store.read().x)

    monkeypatch.setenv("MEDAUG_STORE_CACHE_GB", "1e-9")
    shutil.rmtree(tmp_path / "node")
    with pytest.raises(EnvironmentFault, match="raise its limit"):
        artifacts.open_store("features-1")


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan", "inf"])
def test_a_cache_wants_a_limit_that_is_a_number(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDAUG_STORE_CACHE", "/cache")
    monkeypatch.setenv("MEDAUG_STORE_CACHE_GB", text)
    with pytest.raises(UserError, match=f"MEDAUG_STORE_CACHE_GB: '{text}'"):
        NodeCache.from_environment()


def test_processes_that_want_the_same_store_fetch_it_once(
    make_store: MakeStore, tmp_path: Path
) -> None:
    uri = make_store(4000).path.as_uri()
    cache = NodeCache(tmp_path / "node")
    inodes: list[int] = []

    def fetch() -> None:
        inodes.append((cache.fetch(uri) / "manifest.json").stat().st_ino)

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inodes) == 6
    assert len(set(inodes)) == 1


def test_the_least_recently_used_store_gives_way(make_store: MakeStore, tmp_path: Path) -> None:
    stores = [make_store(40, name=f"s{i}") for i in range(3)]
    held_bytes = sum(path.stat().st_size for path in stores[0].path.iterdir())
    cache = NodeCache(tmp_path / "node", limit_bytes=2 * held_bytes)
    first, second = (cache.fetch(store.path) for store in stores[:2])
    in_use = Store.open(first, access="pread")
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    cache.fetch(stores[0].path)  # used again
    third = cache.fetch(stores[2].path)
    assert (first.exists(), second.exists(), third.exists()) == (True, False, True)
    shutil.rmtree(first)
    assert in_use.read().x.equal(stores[0].read().x)


def test_a_store_larger_than_the_cache_is_refused(make_store: MakeStore, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="raise its limit"):
        NodeCache(tmp_path / "node", limit_bytes=100).fetch(make_store(40).path)


def test_what_is_no_store_is_not_fetched(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "node")
    with pytest.raises(UserError, match="no finished store"):
        cache.fetch(tmp_path.as_uri())
    with pytest.raises(EnvironmentFault, match="check address"):
        cache.fetch("nowhere://host/store")


def test_a_damaged_copy_is_found(make_store: MakeStore, tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "node")
    path = make_store(40).path
    shard = cache.fetch(path) / "part-000-shard-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=shard.name):
        Store.open(path, cache=cache)


def test_the_second_publisher_discards_its_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    assert publish_directory(tmp_path / "one", tmp_path / "model-1f0c")
    assert not publish_directory(tmp_path / "two", tmp_path / "model-1f0c")
    assert [path.name for path in tmp_path.iterdir()] == ["model-1f0c"]
    assert (tmp_path / "model-1f0c" / "weights").read_text() == "one"
    assert (tmp_path / "model-1f0c" / "weights").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "model-1f0c").stat().st_mode & 0o777 == 0o700


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    final = tmp_path / "models" / "unet-1"
    made = assembled(final)
    (made.__enter__() / "half").write_text("")
    assert not final.exists()
    assert not made.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert list(final.parent.iterdir()) == []
    with assembled(final) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("all")
    assert (final / "inner" / "file").read_text() == "all"
    assert list(final.parent.iterdir()) == [final]


def die_inside(final: Path) -> None:
    with assembled(final) as folder:
        (folder / "half").write_text("")
        os.kill(os.getpid(), signal.SIGKILL)


def test_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    in_process(die_inside, tmp_path / "model").join()
    assert len(list(tmp_path.iterdir())) == 1
    with assembled(tmp_path / "model"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
