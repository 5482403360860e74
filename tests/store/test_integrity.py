"""One changed bit, or one byte fewer, anywhere: found, named, and never read."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from medaug.errors import IntegrityError, UserError
from medaug.storage.manifest import read_sealed, sealed
from medaug.store import Store, StoreSchema
from medaug.store.digest import digest_of
from tests.store.small import ALONE

MakeStore = Callable[..., Store]
SCHEMA = StoreSchema((4, 11, 7), "float16", (11, 7))
SHARD = "part-000-shard-00001.arrow"


@pytest.fixture
def path(make_store: MakeStore) -> Path:
    return make_store(1000, SCHEMA, shard_bytes=250_000).path


def read_all(path: Path, **options: object) -> None:
    for _ in Store.open(path, **options).batches(ALONE, 50, seed=0, epoch=0):
        pass


@pytest.mark.parametrize("access", ["map", "pread", "direct"])
def test_unverified_rows_are_checked_when_they_are_read(path: Path, access) -> None:
    """``verify=False`` opens at once; each row's own hash still stands guard."""
    file = path / SHARD
    content = file.read_bytes()
    draw = random.Random(0)
    store = Store.open(path, verify=False, access=access)
    inside = store._rows.place[store._rows.place[:, 0] == 1]
    for column, n_bytes in ((2, SCHEMA.x_bytes), (3, SCHEMA.mask_bytes)):
        for _ in range(10):
            flipped = bytearray(content)
            row = draw.randrange(len(inside))
            flipped[inside[row, column] + draw.randrange(n_bytes)] ^= 1 << draw.randrange(8)
            file.write_bytes(flipped)
            with pytest.raises(IntegrityError, match=f"{SHARD}: row {row} is not"):
                read_all(path, verify=False, access=access)
    file.write_bytes(content)
    read_all(path, verify=False, access=access)


def test_without_xxhash_whole_shards_are_checked(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written with it and read without, and the other way round."""
    with_it = make_store(60, name="with").path
    with monkeypatch.context() as bare:
        bare.setattr("medaug.store.sidecar.xxhash", None)
        without = make_store(60, name="without").path
        read_all(with_it)
    read_all(without)
    shard = without / "part-000-shard-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(IntegrityError, match="digest is not the manifest's"):
        Store.open(without)


@pytest.mark.parametrize("name", [SHARD, SHARD.replace("arrow", "json")])
@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_file_is_named(path: Path, name, verify) -> None:
    (path / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name}: missing"):
        Store.open(path, verify=verify)


def test_a_shard_is_hashed_once_per_node_and_version(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def spy(file: Path, like: str) -> str:
        hashed.append(file.name)
        return digest_of(file, like)

    monkeypatch.setattr("medaug.store.verify.digest_of", spy)
    Store.open(path)  # as make_store did
    assert hashed == []
    (path / SHARD).touch()
    Store.open(path)
    Store.open(path)
    assert hashed == [SHARD]


def test_verification_works_where_nothing_can_be_remembered(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    read_all(path)
    (path / SHARD).write_bytes(b"x" * (path / SHARD).stat().st_size)
    with pytest.raises(IntegrityError, match="digest is not the manifest's"):
        Store.open(path)


def test_memory_of_another_user_is_not_trusted(path: Path) -> None:
    folder = Path(tempfile.gettempdir()) / f"medaug-verified-{os.getuid()}"
    shutil.rmtree(folder)
    folder.mkdir()
    folder.chmod(0o777)
    read_all(path)
    assert list(folder.iterdir()) == []


def test_a_shard_of_another_store_is_refused_as_such(path: Path, make_store: MakeStore) -> None:
    other = make_store(30, StoreSchema((4, 11, 8), "float16", (11, 7)), name="other").path
    (path / SHARD).write_bytes((other / "part-000-shard-00000.arrow").read_bytes())
    with pytest.raises(UserError, match=rf"{SHARD}: column x is .*\[4,11,8\].*this store has"):
        Store.open(path)


def test_another_version_is_refused(path: Path) -> None:
    manifest = read_sealed(path / "manifest.json")
    (path / "manifest.json").write_bytes(sealed({**manifest, "format": "medaug-store/2"}))
    with pytest.raises(UserError, match="medaug-store/2, this medaug reads medaug-store/1"):
        Store.open(path)


class _Planted:
    """Unpickling it makes a file."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (self.marker, 0o700)


@pytest.mark.parametrize("kind", ["extension", "binary", "float64", "list", "missing"])
def test_no_other_column_type_is_accepted(path: Path, tmp_path: Path, kind) -> None:
    """Not even with hashes that fit, and nothing is unpickled on the way."""
    evil = pickle.dumps(_Planted(str(tmp_path / "executed")))
    table = pa.ipc.open_file(path / SHARD).read_all()
    n = table.num_rows
    columns = {
        "binary": (pa.field("label", pa.binary()), pa.array([evil] * n)),
        "float64": (pa.field("label", pa.float64()), pa.array([0.0] * n)),
        "list": (
            pa.field("label", pa.list_(pa.int32())),
            pa.array([[1]] * n, pa.list_(pa.int32())),
        ),
        "extension": (
            pa.field(
                "label",
                pa.binary(),
                metadata={
                    "ARROW:extension:name": "arrow.py_extension_type",
                    "ARROW:extension:metadata": evil,
                },
            ),
            pa.array([evil] * n),
        ),
    }
    at = table.schema.get_field_index("label")
    table = table.remove_column(at)
    if kind in columns:
        table = table.add_column(at, *columns[kind])
    with pa.OSFile(str(path / SHARD), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    forge_hashes(path)
    with pytest.raises(UserError, match=f"{SHARD}: column label is"):
        Store.open(path)
    assert not (tmp_path / "executed").exists()


def forge_hashes(path: Path) -> None:
    """Make sidecar and manifest agree with the changed shard."""
    content = path / SHARD
    true = {"bytes": content.stat().st_size, "digest": digest_of(content)}
    sidecar = content.with_suffix(".json")
    sidecar.write_bytes(sealed(read_sealed(sidecar) | true))
    manifest = read_sealed(path / "manifest.json")
    manifest["shards"][1] |= true
    (path / "manifest.json").write_bytes(sealed(manifest))


def test_rows_cannot_point_outside_the_file(path: Path) -> None:
    sidecar = (path / SHARD).with_suffix(".json")
    body = read_sealed(sidecar)
    body["x_at"][-1][0] = 1 << 40
    sidecar.write_bytes(sealed(body))
    for access in ("map", "pread", "direct"):
        with pytest.raises(IntegrityError, match=sidecar.name):
            read_all(path, access=access)


@pytest.mark.parametrize(
    "forged",
    [{"schema": None}, {"schema": {}}, {"schema": 7}, {"shards": 7}, {"shards": [{}]}],
)
def test_a_manifest_made_by_hand_is_refused_in_one_line(path: Path, forged) -> None:
    manifest = path / "manifest.json"
    manifest.write_bytes(sealed({**read_sealed(manifest), **forged}))

    with pytest.raises(IntegrityError, match=r"manifest\.json: is no store's manifest") as caught:
        Store.open(path)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '"self"', '{"self": 1}', "{" * 5000])
def test_a_manifest_that_is_none_is_refused(path: Path, content) -> None:
    (path / "manifest.json").write_text(content)
    assert not Store.exists(path)
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        Store.open(path)


def test_a_seal_covers_every_byte() -> None:
    content = sealed({"a": [1, 2.5, None], "b": {"c": "ü"}})
    assert json.loads(content)["a"] == [1, 2.5, None]
    assert np.frombuffer(content, np.uint8).max() < 128
