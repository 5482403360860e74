"""What is written is what is read, in every dtype and layout."""

from __future__ import annotations

import stat
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from medaug.errors import UserError
from medaug.store import Store, StoreSchema, StoreWriter
from tests.store.small import ABOUT, ALONE, SMALL, contents, rows_of, write_rows

SHAPES = {"many rows a batch": (2, 3, 5), "a row a batch": (33, 64, 127)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("mask_shape", [None, (3, 5)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "bfloat16"])
def test_every_dtype_comes_back(make_store: Callable[..., Store], dtype, mask_shape, shape) -> None:
    schema = StoreSchema(shape, dtype, mask_shape)
    n = 9
    written = rows_of(schema, n)
    store = make_store(n, schema, shard_bytes=4 * schema.row_bytes)
    for access in ("map", "pread", "direct"):
        read = Store.open(store.path, access=access).read()
        assert read.x.dtype == getattr(torch, dtype)
        torch.testing.assert_close(read.x, torch.from_numpy(written["x"]).to(read.x.dtype))
        assert read.label.tolist() == written["label"].tolist()
        assert read.row.tolist() == list(range(n))
        if mask_shape:
            assert read.mask is not None
            assert read.mask.numpy().tolist() == written["mask"].tolist()
    assert store.patients.tolist() == written["patient"]
    assert store.volumes.tolist() == written["volume"]
    assert store.slice_index.tolist() == list(range(n))
    assert store.tumour_pixels.tolist() == written["tumour_pixels"].tolist()
    assert store.manifest["class_counts"] == {"unknown": 0, "LGG": 5, "HGG": 4}


def test_half_precision_rounds_to_nearest(tmp_path: Path) -> None:
    """STORE: fp16 features have a mean relative error of 1.8e-4."""
    x = np.random.default_rng(0).standard_normal((50, 8, 4, 4), dtype=np.float32)
    for dtype, error in (("float16", 1.8e-4), ("bfloat16", 1.5e-3)):
        with StoreWriter(tmp_path / dtype, StoreSchema((8, 4, 4), dtype), **ABOUT) as writer:
            writer.write(x, label=0, patient="", volume="", slice_index=0)
        read = Store.open(tmp_path / dtype).read().x.float().numpy()
        assert np.mean(np.abs(read - x) / np.abs(x)) == pytest.approx(error, rel=0.1)


def test_tensors_and_constants_are_accepted(tmp_path: Path) -> None:
    x = torch.randn(5, 2, 3, 5).bfloat16()
    with StoreWriter(tmp_path / "s", StoreSchema((2, 3, 5), "bfloat16"), **ABOUT) as writer:
        writer.write(x, label=-1, patient="", volume="synthetic", slice_index=0)
    store = Store.open(tmp_path / "s")
    assert torch.equal(store.read().x, x)
    assert set(store.labels.tolist()) == {-1}
    assert set(store.tumour_pixels.tolist()) == {-1}
    assert set(store.volumes.tolist()) == {"synthetic"}
    assert store.manifest["patients"] == []


def test_bytes_depend_on_rows_only(tmp_path: Path) -> None:
    """Chunks of any size, arrays that are used again, read-only memory: the same store."""
    schema = StoreSchema((40, 50), "float32")  # 32 rows in each record batch
    for name, chunk in (("one", 1), ("seven", 7), ("all", 1000)):
        with StoreWriter(tmp_path / name, schema, shard_bytes=400_000, **ABOUT) as writer:
            write_rows(writer, schema, 150, chunk=chunk)
    with StoreWriter(tmp_path / "reused", schema, shard_bytes=400_000, **ABOUT) as writer:
        buffer = np.empty((7, 40, 50), np.float32)
        for start in range(0, 150, 7):
            rows = rows_of(schema, min(7, 150 - start), start)
            view = buffer[: len(rows["x"])]
            view[:] = rows.pop("x")
            view.flags.writeable = False
            writer.write(view, **rows)
            buffer[:] = np.nan
    expected = contents(tmp_path / "one")
    assert len([name for name in expected if name.endswith(".arrow")]) == 5
    for name in ("seven", "all", "reused"):
        assert contents(tmp_path / name) == expected


def test_shards_are_plain_arrow_files(make_store: Callable[..., Store]) -> None:
    """Anything that speaks Arrow can read them; only bfloat16 needs its metadata."""
    store = make_store(6, StoreSchema((3, 4), "bfloat16", (2, 2)))
    table = pa.ipc.open_file(store.path / "part-000-shard-00000.arrow").read_all()
    assert table.column_names == [
        *("x", "mask", "label", "patient", "volume", "slice_index", "tumour_pixels")
    ]
    assert table.schema.metadata[b"torch_dtype"] == b"bfloat16"
    bits = table.column("x").combine_chunks().to_numpy_ndarray()
    x = torch.from_numpy(bits.copy()).view(torch.bfloat16)
    assert torch.equal(x, store.read().x)
    assert table.column("label").to_pylist() == store.labels.tolist()


@pytest.mark.parametrize("mask_shape", [None, (9, 9)])
@pytest.mark.parametrize("shape", [(33, 64, 127), (2, 3, 5), (7,)])
def test_record_batches_begin_on_cache_lines(tmp_path: Path, shape, mask_shape) -> None:
    """Arrow promises multiples of 8 only; strings of any length must not shift the tensors."""
    schema = StoreSchema(shape, "float16", mask_shape)
    with StoreWriter(tmp_path / "s", schema, **ABOUT) as writer:
        for i in range(40):
            rows = rows_of(schema, 1 if schema.row_bytes > 1000 else 500, i)
            rows |= {"patient": "p" * (i % 11), "volume": "v" * (i % 13)}
            writer.write(rows.pop("x"), **rows)
    content = (tmp_path / "s" / "part-000-shard-00000.arrow").read_bytes()
    start = pa.py_buffer(content).address
    reader = pa.ipc.open_file(pa.py_buffer(content))
    assert reader.num_record_batches >= 5 or shape == (7,)
    for i in range(reader.num_record_batches):
        x = reader.get_batch(i).column("x").buffers()[-1]
        assert (x.address - start) % 64 == 0


def test_rows_are_private(make_store: Callable[..., Store]) -> None:
    store = make_store()
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o700
    for path in store.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize(
    ("dtype", "value", "bad"),
    [
        ("float16", np.nan, True),
        ("float16", -np.inf, True),
        ("float16", 65519.0, False),  # rounds to 65504, the largest
        ("float16", 65520.0, True),
        ("float32", np.inf, True),
        ("bfloat16", 3.4e38, True),
        ("bfloat16", 3.3e38, False),
        ("uint8", 255.0, False),
        ("uint8", 256.0, True),
        ("uint8", -1.0, True),
        ("uint8", 0.5, True),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, dtype, value, bad) -> None:
    schema = StoreSchema((2, 2), dtype)
    x = np.zeros((5, 2, 2))
    x[3, 1, 0] = value
    columns = {"label": 0, "patient": "p", "volume": "v", "slice_index": 0}
    writer = StoreWriter(tmp_path / "s", schema, **ABOUT)
    writer.write(np.zeros((10, 2, 2)), **columns)
    if bad:
        with pytest.raises(UserError, match=f"row 13: .*{dtype}"):
            writer.write(x, **columns)
    else:
        writer.write(x, **columns)
    writer.abort()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((3, 5, 3, 2))}, r"rows of shape \(5, 3, 2\)"),
        ({"label": [0, 1]}, "label: .*one value per row"),
        ({"label": 2}, "label 2: use -1 to 1"),
        ({"label": -2}, "label -2"),
        ({"mask": np.zeros((3, 4, 4))}, "mask: shape"),
        ({"mask": np.full((3, 2, 2), 0.5)}, "mask: values"),
        ({"mask": None}, "mask: shape None"),
        ({"patient": ["a"] * 4}, "patient: "),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, change, message) -> None:
    schema = StoreSchema((2, 3, 5), "float16", (2, 2))
    rows = rows_of(schema, 3) | change
    with pytest.raises(UserError, match=message), StoreWriter(tmp_path, schema, **ABOUT) as writer:
        writer.write(rows.pop("x"), **rows)
    assert not Store.exists(tmp_path)


@pytest.mark.parametrize("shape", [(), (0, 3), (2, -1)])
def test_schema_wants_positive_axes(shape) -> None:
    with pytest.raises(UserError, match="every axis"):
        StoreSchema(shape, "float16")


def test_schema_names_its_dtypes() -> None:
    with pytest.raises(UserError, match="float16, float32, uint8, bfloat16"):
        StoreSchema((1,), "float64")  # type: ignore[arg-type]


def test_a_store_may_be_empty(make_store: Callable[..., Store]) -> None:
    store = make_store(0)
    assert len(store) == 0
    assert store.read().x.shape == (0, *SMALL.shape)
    order = {"seed": 0, "epoch": 0, "shuffle": False, "drop_last": False}
    assert list(store.batches(ALONE, 4, **order)) == []


def test_shards_end_at_record_batches(make_store: Callable[..., Store]) -> None:
    schema = StoreSchema((40, 50), "float32")  # 8,000 bytes: 32 rows a record batch
    store = make_store(200, schema, shard_bytes=600_000)
    rows = [shard["rows"] for shard in store.manifest["shards"]]
    assert rows == [64, 64, 64, 8]
    assert all(a >= b for a, b in pairwise(rows))
