"""Which GPUs a study's ranks get: what ``gpus_per_rank: auto`` means on this cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from medaug.spec import ResourceSpec

log = logging.getLogger(__name__)

ANSWER_S = 120.0
"""For torch to be imported on a node that has GPUs."""


def settled(resources: ResourceSpec, gpus: float, usable: bool) -> tuple[ResourceSpec, str]:
    """``resources`` with ``auto`` settled for a cluster of ``gpus``, and a line about what is
    used and what stands idle. ``usable``: torch there can compute on them."""
    asked = resources.gpus_per_rank
    there = f"{gpus:g} GPU{'s' * (gpus != 1)}"
    if asked == "auto":
        given = 1.0 if gpus and usable else 0.0
        resources = resources.model_copy(update={"gpus_per_rank": given})
    ranks = max(resources.ranks, 1)
    if not gpus:
        return resources, "no GPUs in this cluster: ranks compute on CPUs"
    if not usable and asked == "auto":
        return resources, (
            f"{there} stand idle: torch on the nodes cannot use them (`medaug doctor` says why); "
            "ranks compute on CPUs"
        )
    if not resources.gpus:
        return resources, (
            f"{there} stand idle: resources.gpus_per_rank is 0 (auto uses them); ranks compute on "
            "CPUs"
        )
    share = "one GPU" if resources.gpus == 1 else f"{resources.gpus:g} of a GPU"
    line = f"{share} for each rank, of {there}"
    most = resources.max_concurrent
    if most is not None and (idle := gpus - most * ranks * resources.gpus) >= 1:
        line += f"; {idle:g} stand idle: resources.max_concurrent is {most}"
    elif idle := gpus % ranks if resources.gpus == 1 else 0:
        line += f"; {idle:g} stand idle: trials of {ranks} ranks do not fill them"
    same = "the same bits again" if resources.deterministic else "not the same bits again"
    return resources, f"{line}; fp32 convolutions in {_float32(resources)}, {same}"


def _float32(resources: ResourceSpec) -> str:
    return "whole float32" if resources.deterministic else "TF32"


def count(nodes: Iterable[Mapping[str, Any]]) -> float:
    """GPUs of ``nodes``, as ``ray.nodes()`` gives them."""
    return sum(node["Resources"].get("GPU", 0.0) for node in nodes if node["Alive"])


def torch_sees_gpus(nodes: Iterable[Mapping[str, Any]]) -> bool:
    """Whether torch can use the GPUs of the first node that has any; asked by a Ray task there.

    Without an answer in time it is taken to be so: trials then fail with the reason.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = next(n for n in nodes if n["Alive"] and n["Resources"].get("GPU"))
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task: Any = ray.remote(_seen)
    options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
    try:
        return ray.get(task.options(**options).remote(), timeout=ANSWER_S) > 0
    except ray.exceptions.RayError as error:
        log.debug("%s did not say whether torch sees its GPUs: %s", node["NodeID"], error)
        return True


def _seen() -> int:
    import torch

    return torch.cuda.device_count()
