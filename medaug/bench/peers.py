"""Other people's readers of the same rows: written by the library itself, read as it advises.

Each is imported when it is asked for; one that is not there is reported, not left out.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medaug.bench.peers_stand_in import stand_in_for

Read = Callable[[Sequence[np.ndarray]], int]
"""Reads batches of the given rows into memory as arrays (n, *shape); how many rows came."""


@dataclass(frozen=True)
class Rows:
    """What all write and read: x (n, *shape) float16 and int labels."""

    x: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Peer:
    """A reader: ``make`` writes the rows into a folder and returns how to read them."""

    make: Callable[[Rows, Path], Read]
    order: str = ""
    """What it does with the asked-for order, where it does not keep to it."""
    children: bool = False
    """Works in processes of its own: this process's CPU time says nothing about it."""


def memmap(rows: Rows, folder: Path) -> Read:
    """The floor: rows copied out of a mapped file into memory that is used again."""
    np.save(folder / "x.npy", rows.x)
    mapped = np.load(folder / "x.npy", mmap_mode="r")
    buffer = _Buffer(rows)

    def read(batches: Sequence[np.ndarray]) -> int:
        for index in batches:
            out = buffer.of(len(index))
            for i, row in enumerate(index.tolist()):
                out[i] = mapped[row]
        return _count(batches)

    return read


def lmdb(rows: Rows, folder: Path) -> Read:
    library = importlib.import_module("lmdb")
    with library.open(str(folder), map_size=2 * rows.x.nbytes + (64 << 20)) as environment:
        for start in range(0, len(rows), 32):
            with environment.begin(write=True) as transaction:
                for row in range(start, min(start + 32, len(rows))):
                    transaction.put(b"%08d" % row, rows.x[row].tobytes())
    environment = library.open(str(folder), readonly=True, lock=False, readahead=False)
    buffer = _Buffer(rows)

    def read(batches: Sequence[np.ndarray]) -> int:
        with environment.begin(buffers=True) as transaction:
            for index in batches:
                out = buffer.of(len(index))
                for i, row in enumerate(index.tolist()):
                    flat = np.frombuffer(transaction.get(b"%08d" % row), np.float16)
                    out[i] = flat.reshape(out.shape[1:])
        return _count(batches)

    return read


def hdf5(rows: Rows, folder: Path) -> Read:
    library = importlib.import_module("h5py")
    with library.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=rows.x)  # in chunks of a row it reads .6 to .8 as fast
    data = library.File(folder / "x.h5", "r")["x"]
    buffer = _Buffer(rows)

    def read(batches: Sequence[np.ndarray]) -> int:
        for index in batches:
            out = buffer.of(len(index))
            for i, row in enumerate(index.tolist()):
                data.read_direct(out, np.s_[row], np.s_[i])
        return _count(batches)

    return read


def zarr(rows: Rows, folder: Path) -> Read:
    library = importlib.import_module("zarr")
    array = library.create_array(
        store=str(folder / "x.zarr"),
        shape=rows.x.shape,
        chunks=(1, *rows.x.shape[1:]),
        dtype="float16",
        compressors=None,
    )
    array[:] = rows.x
    found = library.open_array(str(folder / "x.zarr"), mode="r")
    return _row_by_row(rows, lambda row: found[row])  # whole batches at a time take five times it


def safetensors(rows: Rows, folder: Path) -> Read:
    library = importlib.import_module("safetensors.numpy")
    path = folder / "x.safetensors"
    library.save_file({f"{row:08d}": rows.x[row] for row in range(len(rows))}, path)
    file = importlib.import_module("safetensors").safe_open(path, framework="np")
    buffer = _Buffer(rows)

    def read(batches: Sequence[np.ndarray]) -> int:
        for index in batches:
            out = buffer.of(len(index))
            for i, row in enumerate(index.tolist()):
                out[i] = file.get_tensor(f"{row:08d}")
        return _count(batches)

    return read


def hf_datasets(rows: Rows, folder: Path) -> Read:
    found = _hf_dataset(rows, folder).with_format("numpy")
    return _by_index(lambda index: found[index.tolist()]["x"].reshape(-1, *rows.x.shape[1:]))


def hf_arrow(rows: Rows, folder: Path) -> Read:
    """Tables instead of arrays: what they hold is looked at by code of one's own."""
    found = _hf_dataset(rows, folder).with_format("arrow")

    def batch(index: np.ndarray) -> np.ndarray:
        flat = found[index.tolist()]["x"].combine_chunks().flatten().to_numpy()
        return flat.reshape(-1, *rows.x.shape[1:])

    return _by_index(batch)


def _hf_dataset(rows: Rows, folder: Path) -> Any:
    """Rows as lists of fixed length, which are read faster than its ``Array3D``."""
    library = importlib.import_module("datasets")
    library.disable_progress_bars()
    kind = library.Sequence(library.Value("float16"), length=rows.x[0].size)
    features = library.Features({"x": kind, "label": library.Value("int64")})

    def examples() -> Iterator[dict[str, Any]]:
        for x, label in zip(rows.x, rows.label.tolist(), strict=True):
            yield {"x": x.reshape(-1), "label": label}

    made = library.Dataset.from_generator(
        examples, features=features, cache_dir=str(folder / "cache"), writer_batch_size=32
    )
    made.save_to_disk(str(folder / "set"))
    return library.load_from_disk(str(folder / "set"))


def litdata(rows: Rows, folder: Path) -> Read:
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    library = importlib.import_module("litdata")
    writer = importlib.import_module("litdata.streaming.writer")
    cache = writer.BinaryWriter(str(folder), chunk_bytes="64MB")
    for row in range(len(rows)):
        cache[row] = {"x": torch.from_numpy(rows.x[row]), "label": int(rows.label[row])}
    cache.done()
    cache.merge(1)
    buffer = _Buffer(rows)

    def read(batches: Sequence[np.ndarray]) -> int:
        n = 0  # by index it would load a chunk for every row; it is made to be gone through
        # Its default decodes the neighbours of each row too, for rows that are small or in order.
        shuffle = _shuffled(batches)
        for row in library.StreamingDataset(str(folder), shuffle=shuffle, batch_decode=0):
            out = buffer.of(len(batches[0]))
            out[n % len(out)] = row["x"].numpy()
            n += 1
        return n

    return read


def streaming(rows: Rows, folder: Path) -> Read:
    with stand_in_for("torchvision", "transformers"):
        library = importlib.import_module("streaming")
    shape = ",".join(map(str, rows.x.shape[1:]))
    columns = {"x": f"ndarray:float16:{shape}", "label": "int"}
    with library.MDSWriter(out=str(folder), columns=columns, hashes=["xxh64"]) as writer:
        for x, label in zip(rows.x, rows.label.tolist(), strict=True):
            writer.write({"x": x, "label": label})
    found = library.StreamingDataset(local=str(folder), shuffle=False, batch_size=16)
    return _row_by_row(rows, lambda row: found[row]["x"])


def webdataset(rows: Rows, folder: Path) -> Read:
    library = importlib.import_module("webdataset")
    with library.ShardWriter(f"file:{folder}/%05d.tar", maxsize=128 << 20, verbose=0) as sink:
        for row in range(len(rows)):
            sink.write({"__key__": f"{row:08d}", "x.bin": rows.x[row].tobytes()})
    urls = sorted(f"file:{path}" for path in folder.glob("*.tar"))
    buffer = _Buffer(rows)

    def read(batches: Sequence[np.ndarray]) -> int:
        shuffled = _shuffled(batches)
        data = library.WebDataset(urls, shardshuffle=len(urls) if shuffled else False)
        n = 0  # bytes as they are: its decoders of .npy and .ten take a third longer
        for row in data.shuffle(64) if shuffled else data:
            out = buffer.of(len(batches[0]))
            out[n % len(out)] = np.frombuffer(row["x.bin"], np.float16).reshape(out.shape[1:])
            n += 1
        return n

    return read


def ray_data(rows: Rows, folder: Path) -> Read:
    ray, library = importlib.import_module("ray"), importlib.import_module("ray.data")
    if not ray.is_initialized():
        # "local": without it Ray joins whatever cluster was started on this machine last.
        quiet = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
        ray.init("local", **quiet)
    library.DataContext.get_current().enable_progress_bars = False
    per_file = max(1, (64 << 20) // rows.x[0].nbytes)
    for start in range(0, len(rows), per_file):
        np.save(folder / f"{start:08d}.npy", rows.x[start : start + per_file])

    def read(batches: Sequence[np.ndarray]) -> int:
        size = len(batches[0])
        shuffled = _shuffled(batches)
        data = library.read_numpy(str(folder))
        buffer = {"local_shuffle_buffer_size": 4 * size} if shuffled else {}
        found = data.iter_batches(batch_size=size, batch_format="numpy", **buffer)
        return sum(len(batch["data"]) for batch in found)

    return read


PEERS: Mapping[str, Peer] = {
    "np.memmap": Peer(memmap),
    "LMDB": Peer(lmdb),
    "HDF5": Peer(hdf5),
    "zarr": Peer(zarr),
    "safetensors": Peer(safetensors),
    "Hugging Face datasets": Peer(hf_datasets),
    "Hugging Face datasets, Arrow tables": Peer(hf_arrow),
    "litdata": Peer(litdata, order="shuffles chunks, and rows within them"),
    "MosaicML streaming": Peer(streaming),
    "WebDataset": Peer(webdataset, order="shuffles shards, and rows in a buffer of 64"),
    "Ray Data": Peer(
        ray_data,
        order="shuffles in a buffer of 4 batches; its workers' CPU is not counted",
        children=True,
    ),
}
TRAINING_LOADERS = (
    "MosaicML streaming", "litdata", "Hugging Face datasets", "WebDataset", "Ray Data",
)  # fmt: skip
"""Those that give a training loop arrays; the others are file formats, or give tables."""


def make_peer(name: str, rows: Rows, folder: Path) -> Read | str:
    """How ``name`` reads ``rows``, or, in a few words, why it cannot be measured here."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        return PEERS[name].make(rows, folder)
    except ModuleNotFoundError as missing:
        return f"not installed ({missing.name})"


class _Buffer:
    """Memory for a batch that is used again."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._memory = np.empty((0, *rows.x.shape[1:]), rows.x.dtype)

    def of(self, n: int) -> np.ndarray:
        if len(self._memory) < n:
            self._memory = np.empty((n, *self._rows.x.shape[1:]), self._rows.x.dtype)
        return self._memory[:n]


def _by_index(get: Callable[[np.ndarray], np.ndarray]) -> Read:
    """A library that returns whole batches."""

    def read(batches: Sequence[np.ndarray]) -> int:
        return sum(len(get(index)) for index in batches)

    return read


def _row_by_row(rows: Rows, get: Callable[[int], np.ndarray]) -> Read:
    buffer = _Buffer(rows)

    def read(batches: Sequence[np.ndarray]) -> int:
        for index in batches:
            out = buffer.of(len(index))
            for i, row in enumerate(index.tolist()):
                out[i] = get(row)
        return _count(batches)

    return read


def _shuffled(batches: Sequence[np.ndarray]) -> bool:
    return any((np.diff(index) < 0).any() for index in batches)


def _count(batches: Sequence[np.ndarray]) -> int:
    return sum(map(len, batches))
