"""A shard's digest says what it is, and stores from before are read, verified and completed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medaug.errors import EnvironmentFault, IntegrityError
from medaug.storage.files import sha256_of
from medaug.storage.manifest import read_sealed, sealed
from medaug.store import Store, StoreSchema, StoreWriter
from medaug.store.digest import ALGORITHMS, digest_of
from tests.store.small import ABOUT, write_rows

MakeStore = Callable[..., Store]
SCHEMA = StoreSchema((4, 11, 7), "float16", (11, 7))
SHARD_BYTES = 250_000
FIRST, SECOND = "part-000-shard-00000.arrow", "part-000-shard-00001.arrow"


@pytest.fixture
def path(make_store: MakeStore) -> Path:
    return make_store(1000, SCHEMA, shard_bytes=SHARD_BYTES).path


def rewrite(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    body = read_sealed(file)
    change(body)
    file.write_bytes(sealed(body))


def as_before(path: Path) -> None:
    """The store as it was written before: SHA-256, and nothing that says so."""

    def older(about: dict[str, Any], shard: Path) -> None:
        del about["digest"]
        about["sha256"] = sha256_of(shard)

    for shard in path.glob("*.arrow"):
        rewrite(shard.with_suffix(".json"), lambda body, shard=shard: older(body, shard))
    if (path / "manifest.json").exists():
        rewrite(
            path / "manifest.json",
            lambda body: [older(shard, path / shard["file"]) for shard in body["shards"]],
        )


def test_new_shards_have_blake3(path: Path) -> None:
    for shard in read_sealed(path / "manifest.json")["shards"]:
        assert shard["digest"].startswith("blake3:")
        assert shard["digest"] == digest_of(path / shard["file"])
        assert shard["digest"] == read_sealed((path / shard["file"]).with_suffix(".json"))["digest"]


def test_a_store_from_before_is_read_and_verified(path: Path) -> None:
    before = Store.open(path).read().x
    as_before(path)
    assert "sha256" in read_sealed(path / "manifest.json")["shards"][0]
    np.testing.assert_array_equal(Store.open(path).read().x, before)
    content = bytearray((path / SECOND).read_bytes())
    content[-1] ^= 1
    (path / SECOND).write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{SECOND}: its digest is not the manifest's"):
        Store.open(path)


def test_what_was_begun_before_is_completed(path: Path) -> None:
    """Its shards stay as they are, with the digests that they have."""
    (path / "manifest.json").unlink()
    (path / "part-000.json").unlink()
    for shard in sorted(path.glob("*.arrow"))[2:]:
        shard.unlink()
        shard.with_suffix(".json").unlink()
    as_before(path)
    kept = (path / FIRST).stat()
    with StoreWriter(path, SCHEMA, shard_bytes=SHARD_BYTES, **ABOUT) as writer:
        assert writer.rows_done > 0
        write_rows(writer, SCHEMA, 1000, writer.rows_done)
    assert (path / FIRST).stat().st_mtime_ns == kept.st_mtime_ns
    shards = Store.open(path).manifest["shards"]
    digests = [shard["digest"].partition(":")[0] for shard in shards]
    assert digests == ["sha256", "sha256", *["blake3"] * (len(shards) - 2)]
    assert len(shards) > 2


def test_where_blake3_is_missing(
    path: Path, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New shards have SHA-256 then, and what cannot be compared is not thrown away."""
    monkeypatch.delitem(ALGORITHMS, "blake3")
    bare = make_store(60, name="bare")
    assert bare.manifest["shards"][0]["digest"].startswith("sha256:")
    (path / FIRST).touch()  # another version of the file, so compared again
    with pytest.raises(EnvironmentFault, match="pip install blake3"):
        Store.open(path)
    (path / "manifest.json").unlink()
    with pytest.raises(EnvironmentFault, match="pip install blake3"):
        StoreWriter(path, SCHEMA, shard_bytes=SHARD_BYTES, **ABOUT)
    assert (path / FIRST).exists()


@pytest.mark.parametrize("digest", ["md5:00", "blake3:00", "", "blake3"])
def test_a_digest_that_is_none_is_damage(path: Path, digest: str) -> None:
    rewrite(path / "manifest.json", lambda body: body["shards"][0].update(digest=digest))
    with pytest.raises(IntegrityError, match=f"{FIRST}: its digest is "):
        Store.open(path)
