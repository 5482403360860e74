"""Writing a store on all ranks: each its own part, a block of rows after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from medaug.storage import storage_at
from medaug.store import StoreSchema, StoreWriter, publish
from medaug.train.checkpoint import Progress
from medaug.train.world import World

REPORTS = 20
"""How many times it is reported; every rank reports equally often."""


def write_in_parts(
    sizes: Sequence[int],
    append: Callable[[StoreWriter, int, int], None],
    schema: StoreSchema,
    out: Path,
    world: World,
    *,
    rows: int,
    reports: int = REPORTS,
    apart: bool = False,
    **about: Any,
) -> Iterator[Progress]:
    """Write the store ``out``; ``reports`` times a Progress, of which the last one's result is
    ``out``. Metrics: ``rows``, done on all ranks.

    This rank's part is of blocks of ``sizes`` rows each: ``append(writer, i, skip)`` makes block i
    and writes its rows but the first ``skip``. Killed anywhere, the next call with as many ranks
    goes on after each rank's last whole shard, and the store is the same to the byte if every block
    is made alike each time: one is always made whole, as a row's value could depend, in its last
    bit, on its place in it.

    Args:
        rows: of the store, on all ranks.
        apart: whether closing the store is a report of its own. Where a block takes long, ranks
            that have done theirs would else wait in a collective for longer than it may take.
        about: what :class:`~medaug.store.StoreWriter` takes.

    Raises:
        UserError: a value does not fit the schema's dtype.
        EnvironmentFault: storage cannot take it.
    """
    part = f"part-{world.rank:03d}*"
    about |= {"parts": world.size}
    begins = list(itertools.accumulate(sizes, initial=0))
    shares = reports - apart
    storage = storage_at(out)
    storage.fetch_new(out, part)  # what another node has done of it
    with StoreWriter(out, schema, part=world.rank, **about) as writer:
        done = writer.rows_done
        for report in range(reports):
            if report:
                storage.publish_new(out, part, content_named=True)
                yield Progress(report, {"rows": float(rows * report // shares)})
            first, end = (len(sizes) * min(r, shares) // shares for r in (report, report + 1))
            for i in range(first, end):
                if begins[i + 1] > done:
                    append(writer, i, max(0, done - begins[i]))
    storage.publish_new(out, part, content_named=True)
    world.barrier()
    if world.size > 1 and world.is_main:  # a single part completes its store itself
        storage.fetch_new(out, "part-*")
        publish(out, schema, **about)
    world.barrier()
    yield Progress(reports, {"rows": float(rows)}, result=out)
