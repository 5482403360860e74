"""What a trial that writes a store ends with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from medaug.storage.artifacts import Artifacts
from medaug.storage.results import StoreResult
from medaug.train.checkpoint import Progress
from medaug.train.world import World


def shared(
    writing: Iterator[Progress],
    out: Path,
    world: World,
    artifacts: Artifacts,
    kind: type[StoreResult],
) -> Iterator[Progress]:
    """``writing`` of the store ``out`` on all ranks, whose last Progress has a result of ``kind``
    in the end: by then every node finds the store."""
    for progress in writing:
        if progress.result is not None:
            if world.is_main:
                artifacts.share_store(out.name)
            world.barrier()
            made = artifacts.open_store(out.name)
            result = kind(output=out.name, rows=len(made), shape=made.schema.shape)
            progress = replace(progress, result=result)
        yield progress
