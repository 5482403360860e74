"""Whether a study fits its storage, its nodes and their GPUs; if not, what would."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from medaug.errors import EnvironmentFault
from medaug.plan.disk import row_bytes
from medaug.plan.forecast.costs import Estimate
from medaug.spec import StudySpec
from medaug.spec.study import TAPS
from medaug.units import size


def check_stores(study: StudySpec, stores: Mapping[str, int], storage: Path) -> None:
    """Before anything is measured: the stores alone against the free disk.

    Raises:
        EnvironmentFault: they do not fit; names the largest and what would be smaller.
    """
    need, have = sum(stores.values()), _free_bytes(storage)
    if need <= have:
        return
    largest = max(stores, key=lambda name: stores[name])
    raise EnvironmentFault(
        f"plan: the stores need {size(need)}, {storage} has {size(have)} free; "
        f"{largest} takes {size(stores[largest])}: {_smaller(study, largest, need, have)}"
    )


def check_fit(
    study: StudySpec, cost: Estimate, nodes: Sequence[int], vram_there: int, storage: Path
) -> None:
    """The whole estimate against disk, memory (``nodes``: bytes of each) and GPU.

    Raises:
        EnvironmentFault: something does not fit; says what would.
    """
    have = _free_bytes(storage)
    if cost.disk_bytes > have:
        largest = max(cost.stages, key=lambda stage: stage.disk_bytes)
        raise EnvironmentFault(
            f"plan: needs {size(cost.disk_bytes)} of disk, {storage} has {size(have)} free; stage "
            f"{largest.stage} takes {size(largest.disk_bytes)}: shorten sweep.n_synthetic, "
            "sweep.seeds or sweep.grid, or choose another --storage"
        )
    heaviest = max(cost.stages, key=lambda stage: stage.ram_bytes)
    memory = min((bytes_ for bytes_ in nodes if bytes_), default=0)
    ranks_per_node = -(-cost.slots * cost.ranks // max(1, len(nodes)))
    if memory and ranks_per_node * heaviest.ram_bytes > memory:
        fitting = memory // heaviest.ram_bytes
        trials = fitting * len(nodes) // cost.ranks
        advice = (
            f"set resources.max_concurrent={trials}"
            if trials
            else f"lower {_batch_of(heaviest.stage)} or resources.ranks, or use larger nodes"
        )
        raise EnvironmentFault(
            f"plan: stage {heaviest.stage} needs {size(heaviest.ram_bytes)} of memory per rank, "
            f"and {ranks_per_node} ranks share a node with {size(memory)}; {advice}"
        )
    per_rank = vram_there * min(1.0, study.resources.gpus)
    heaviest = max(cost.stages, key=lambda stage: stage.vram_bytes)
    if per_rank and heaviest.vram_bytes > per_rank:
        raise EnvironmentFault(
            f"plan: stage {heaviest.stage} needs {size(heaviest.vram_bytes)} of GPU memory per "
            f"rank, a rank has {size(per_rank)}; lower {_batch_of(heaviest.stage)}, or raise "
            "resources.gpus_per_rank"
        )


def _smaller(study: StudySpec, largest: str, need: int, have: int) -> str:
    """What would make the ``largest`` stores fit."""
    fewer_rows = "lower data.image_size, raise data.slice_step, or choose another --storage"
    if largest != "slices" and study.features is not None:
        now = row_bytes(study)
        for tap in TAPS:
            other = study.model_copy(
                update={"features": study.features.model_copy(update={"tap": tap})}
            )
            if (saved := 1 - row_bytes(other) / now) > 0 and need * (1 - saved) < have:
                return (
                    f"features.tap={tap} takes {1 - saved:.0%} of it; or shorten "
                    "sweep.n_synthetic, or choose another --storage"
                )
    if largest == "draw":
        return "shorten sweep.n_synthetic, lower the arm's side, or choose another --storage"
    if largest != "generate":
        return fewer_rows
    return "shorten sweep.n_synthetic, sweep.seeds or sweep.grid, or choose another --storage"


def _batch_of(stage: str) -> str:
    if stage == "draw":
        return "the arm's side"
    sections = {"pretrain": "segmenter", "segment": "segmenter", "extract": "features"}
    return f"{sections.get(stage, 'the arms' if stage == 'generate' else 'classifier')}.batch_size"


def _free_bytes(storage: Path) -> int:
    """Of the disk that ``storage`` is or will be on."""
    folder = storage.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
