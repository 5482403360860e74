"""``gpus_per_rank: auto`` on clusters with and without GPUs, and what is said of it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from medaug.spec import ResourceSpec
from medaug.sweep.cluster.gpus import count, settled
from medaug.sweep.cluster.start import capacity
from medaug.sweep.trial.trainable import room_for


@pytest.mark.parametrize(
    ("asked", "gpus", "usable", "given", "says"),
    [
        ({}, 0, True, 0, "no GPUs in this cluster: ranks compute on CPUs"),
        ({}, 8, True, 1, "one GPU for each rank, of 8 GPUs"),
        ({}, 1, True, 1, "of 1 GPU; fp32 convolutions in TF32, not the same bits again"),
        ({"deterministic": True}, 1, True, 1, "convolutions in whole float32, the same bits again"),
        ({}, 8, False, 0, "8 GPUs stand idle: torch on the nodes cannot use them"),
        ({"gpus_per_rank": 0}, 8, True, 0, "8 GPUs stand idle: resources.gpus_per_rank is 0"),
        ({"gpus_per_rank": 1}, 0, True, 1, "no GPUs in this cluster"),
        ({"gpus_per_rank": 0.25}, 2, True, 0.25, "0.25 of a GPU for each rank, of 2 GPUs"),
        ({"ranks": 3}, 8, True, 1, "of 8 GPUs; 2 stand idle: trials of 3 ranks do not fill them"),
        (
            {"max_concurrent": 2, "ranks": 2},
            8,
            True,
            1,
            "4 stand idle: resources.max_concurrent is 2",
        ),
        ({"max_concurrent": 8}, 8, True, 1, "one GPU for each rank, of 8 GPUs"),
    ],
)
def test_what_is_used_and_what_stands_idle(
    asked: dict[str, Any], gpus: float, usable: bool, given: float, says: str
) -> None:
    resources, line = settled(ResourceSpec.model_validate(asked), gpus, usable)
    assert resources.gpus == resources.gpus_per_rank == given
    assert says in line
    assert ("idle" in line) == ("idle" in says)
    assert settled(resources, gpus, usable)[0] == resources


def test_placement_follows_what_is_settled() -> None:
    trial = {"ranks": 2}
    assert room_for(trial, ResourceSpec()).bundles == [{"CPU": 1.0}] * 2
    resources, _ = settled(ResourceSpec(), 4, usable=True)
    assert room_for(trial, resources).bundles == [{"CPU": 1.0, "GPU": 1.0}] * 2
    nodes = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0}]
    assert capacity(nodes, resources) == 2
    assert capacity(nodes, ResourceSpec()) == 16


def test_gpus_of_dead_nodes_do_not_count() -> None:
    alive = {"Alive": True, "Resources": {"GPU": 2.0}}
    assert count([alive, {"Alive": True, "Resources": {}}, {**alive, "Alive": False}]) == 2


FAKE = """\
import ray, sys
ray.init(num_cpus=2, num_gpus=4, include_dashboard=False, _temp_dir=sys.argv[1], log_to_driver=False)
from pathlib import Path
from medaug.spec import ResourceSpec
from medaug.sweep import Sweep
import torch
with Sweep(Path(sys.argv[2]) / "x", Path(sys.argv[2]), ResourceSpec()) as sweep:
    sweep.prepare()
    print(torch.cuda.device_count(), sweep.resources.gpus, sweep.gpus)
ray.shutdown()
"""


@pytest.mark.ray
def test_a_cluster_is_asked_whether_torch_can_use_its_gpus(tmp_path: Path) -> None:
    """Ray says that it has four; torch on this machine has as many as it has."""
    with tempfile.TemporaryDirectory(prefix="g", dir="/tmp") as temporary:
        command = [sys.executable, "-c", FAKE, temporary, tmp_path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    there, gpus, line = done.stdout.strip().splitlines()[-1].split(" ", 2)
    assert float(gpus) == (1 if int(there) else 0)
    assert line.startswith("one GPU for each rank" if int(there) else "4 GPUs stand idle: torch")
