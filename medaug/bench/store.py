"""The feature store next to the floor and to other libraries: ``medaug bench store``.

Parts: ``random`` and ``sequential`` (warm batches of 16), ``write``, ``epoch`` (more data than
memory: see :mod:`medaug.bench.store_epoch`).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medaug.bench.peers import PEERS, TRAINING_LOADERS, Read, Rows, make_peer
from medaug.bench.result import Figure, Options, Result, Size, stated
from medaug.bench.store_epoch import epoch_figures
from medaug.bench.store_rows import Shape, made_rows, name_of, row_bytes_of, shapes_of, write_store
from medaug.bench.store_write import write_figures
from medaug.bench.timing import Spread, Timing, interleaved
from medaug.store import Store
from medaug.train.world import World

BATCH = 16
FLOOR = "np.memmap"
OF_FLOOR = 0.95
MOST_ROWS = 16_384
"""Of small rows: a thousand batches are an epoch, and some readers take a millisecond a row."""


@dataclass(frozen=True)
class _Sizes:
    bytes: int
    """Of the rows of each shape: an epoch of a few batches would measure how epochs begin."""
    rounds: int


_SIZES: Mapping[Size, _Sizes] = {
    "full": _Sizes(768 << 20, 9),
    "quick": _Sizes(256 << 20, 3),
    "tiny": _Sizes(1 << 20, 1),
}


def run(options: Options) -> Result:
    """All parts that ``options`` want."""
    figures: list[Figure] = []
    notes = [_HOW] if options.wants("random") or options.wants("sequential") else []
    with _folder(options) as folder:
        for shape in shapes_of(options.size):
            if options.wants("random") or options.wants("sequential"):
                figures += _reading(shape, options, folder)
            if options.wants("write"):
                figures += write_figures(shape, options.size, folder)
        if options.wants("epoch"):
            more, said = epoch_figures(options.size, folder)
            figures += more
            notes += said
    return Result("store", stated(figures, options.size), options.size, notes=notes)


_HOW = (
    "reading: rows/s on the wall, and the ratio of CPU time per row to np.memmap's (1: as fast as "
    "copying rows out of a mapped file); every subject reads the same rows in the same round"
)


def _reading(shape: Shape, options: Options, folder: Path) -> list[Figure]:
    """Warm batches of every reader: random and in order."""
    sizes = _SIZES[options.size]
    rows = made_rows(shape, min(sizes.bytes, MOST_ROWS * row_bytes_of(shape)), BATCH)
    found: dict[str, Read] = {"medaug": _own_reader(rows, folder / "store" / name_of(shape))}
    missing: dict[str, str] = {}
    for name, peer in PEERS.items():
        if peer.children and options.size != "full":
            missing[name] = "only with --size full: it starts processes of its own"
            continue
        reader = make_peer(name, rows, folder / "peers" / f"{name_of(shape)} {name}")
        if isinstance(reader, str):
            missing[name] = reader
        else:
            found[name] = reader
    orders = {
        "random": np.random.default_rng(0).permutation(len(rows)).reshape(-1, BATCH),
        "sequential": np.arange(len(rows)).reshape(-1, BATCH),
    }
    figures = []
    for order, index in orders.items():
        if options.wants(order):
            timings = interleaved(_calls(found, list(index)), sizes.rounds)
            part = f"{order} {name_of(shape)}"
            figures += _reading_figures(part, timings, missing, len(rows))
    return figures


def _own_reader(rows: Rows, path: Path) -> Read:
    """Batches as a training loop gets them, in the order that the store itself draws."""
    write_store(path, rows)
    store = Store.open(path, access="map")

    def read(batches: object) -> int:
        shuffle = not isinstance(batches, list) or bool((np.diff(batches[0]) < 0).any())
        drawn = store.batches(World.single(), BATCH, seed=0, epoch=0, shuffle=shuffle)
        return sum(len(batch.x) for batch in drawn)

    return read


def _calls(readers: Mapping[str, Read], order: list[np.ndarray]) -> dict[str, Callable[[], int]]:
    def call(read: Read) -> Callable[[], int]:
        return lambda: read(order)

    return {name: call(read) for name, read in readers.items()}


def _reading_figures(
    part: str, timings: Mapping[str, Timing], missing: Mapping[str, str], n: int
) -> list[Figure]:
    floor = timings[FLOOR]
    figures = []
    for name, timing in timings.items():
        peer = PEERS.get(name)
        children = peer is not None and peer.children
        ratio = timing.speed_wall(floor) if children else timing.speed_cpu(floor)
        note = "" if peer is None else peer.order
        target = OF_FLOOR if name == "medaug" and part.startswith("random") else None
        against = f"{FLOOR} (wall)" if children else FLOOR
        rate = n / timing.wall.median
        figures.append(Figure(part, name, rate, "rows/s", ratio, against, target, note=note))
    figures += [Figure(part, name, None, "rows/s", note=why) for name, why in missing.items()]
    if part.startswith("random") and (best := _best_loader(timings)):
        figures += _against_loader(part, timings, best, n)
    return figures


def _against_loader(part: str, timings: Mapping[str, Timing], best: str, n: int) -> list[Figure]:
    """medaug and the floor next to the fastest loader: nothing that copies rows out of a file can
    be further ahead of it than np.memmap is, so that is what is aimed at."""
    why = "the fastest of " + ", ".join(n for n in TRAINING_LOADERS if n in timings)
    figures = []
    for name in (FLOOR, "medaug"):
        ratio, rate = _speed(timings, name, best), n / timings[name].wall.median
        target = OF_FLOOR * _speed(timings, FLOOR, best).median if name == "medaug" else None
        figures.append(Figure(part, name, rate, "rows/s", ratio, best, target, note=why))
    return figures


def _best_loader(timings: Mapping[str, Timing]) -> str | None:
    """The training loader that is fastest on the wall."""
    loaders = [name for name in TRAINING_LOADERS if name in timings]
    return min(loaders, key=lambda name: timings[name].wall.median, default=None)


def _speed(timings: Mapping[str, Timing], name: str, peer: str) -> Spread:
    if PEERS[peer].children:
        return timings[name].speed_wall(timings[peer])
    return timings[name].speed_cpu(timings[peer])


@contextlib.contextmanager
def _folder(options: Options) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="medaug-bench-", dir=options.folder) as name:
        yield Path(name)
