"""Stage ``draw``: a generator that another tool has trained -> images of each class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import cache

import numpy as np
import torch

from medaug.arms.monai_bundle import (
    BLOCK,
    Bundle,
    Recipe,
    build,
    draw_block,
    recipe_of,
    tensors_of,
)
from medaug.errors import UserError
from medaug.experiment.names import output_name
from medaug.experiment.stores import shared
from medaug.spec import DrawTrial
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import DrawResult
from medaug.store import Provenance, StoreSchema, StoreWriter
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.parts import REPORTS, write_in_parts
from medaug.train.world import World

SHARDS = 100
"""At most about so many are written, and at most so small a part is lost when a rank is killed;
no shard is of less than a block."""


def bundle_name(bundle: Bundle) -> str:
    """What the storage calls its network, weights and sampler."""
    return f"bundle-{bundle.key}"


def publish_bundle(config: DrawTrial, bundle: Bundle, artifacts: Artifacts) -> None:
    """Have what the trial draws from in the storage, where every node finds it.

    Raises:
        UserError: its weights are no checkpoint, or another network's.
    """
    if artifacts.has_model(config.bundle):
        return
    try:
        artifacts.save_model(config.bundle, tensors_of(bundle), asdict(bundle.recipe))
    except UserError as error:
        raise UserError(f"arms.{config.arm}.path: {error}") from None


def draw(
    config: DrawTrial, world: World, artifacts: Artifacts, resume: Checkpoint | None
) -> Iterator[Progress]:
    """Store ``n`` images of each class as the network makes them, (C, S, S) float32 in [0, 1].

    Blocks of :data:`BLOCK` images of a class are dealt to the ranks. What has been written is the
    trial's ledger: nothing of a whole shard is drawn again.
    """
    out = artifacts.store_path(output_name(config))
    schema = StoreSchema((config.channels, config.side, config.side), "float32")
    blocks = [
        (label, first)
        for label in range(len(config.numbers))
        for first in range(0, config.n, BLOCK)
    ]
    mine = blocks[world.share(len(blocks))]
    sizes = [min(BLOCK, config.n - first) for _, first in mine]

    @cache
    def network() -> tuple[torch.nn.Module, Recipe]:
        tensors, about = artifacts.load_model(config.bundle)
        recipe = recipe_of(about, config.bundle)
        return build(recipe, tensors).to(world.device), recipe

    def append(writer: StoreWriter, i: int, skip: int) -> None:
        (label, first), size = mine[i], sizes[i]
        model, recipe = network()
        try:
            x = draw_block(
                *(model, recipe, config.numbers[label], first),
                channels=config.channels,
                side=config.side,
                steps=config.steps,
                output=config.output,
            )
        except UserError as error:
            raise UserError(f"arms.{config.arm}.path: {error}") from None
        writer.write(
            x[skip:size],
            label=label,
            patient="",
            volume="",
            slice_index=np.arange(first + skip, first + size),
        )

    writing = write_in_parts(
        sizes,
        append,
        schema,
        out,
        world,
        rows=config.rows,
        reports=max(1, min(REPORTS, len(blocks) // world.size)) + 1,
        apart=True,
        provenance=Provenance("draw", config.key, config.inputs, (), synthetic=True),
        classes=config.classes,
        shard_bytes=-(-len(blocks) // SHARDS) * BLOCK * schema.row_bytes,
    )
    yield from shared(writing, out, world, artifacts, DrawResult)
