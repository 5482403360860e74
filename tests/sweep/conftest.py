"""A trial's folder, and one Ray cluster for all tests of the session: starting one takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.cluster.start import Cluster

TOYS = str(Path(__file__).parent)
sys.path.insert(0, TOYS)  # workers import toy_trials by name


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """Ray with two CPUs, whatever the machine has: few processes to start, and to wait for."""
    ray = sys.modules.get("ray")
    assert ray is None or not ray.is_initialized(), "a test before has left a Ray of its own"
    if TOYS not in sys.path:  # what a test before has put back as it was
        sys.path.insert(0, TOYS)
    cluster = Cluster(cpus=2)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def ray_address(ray_cluster: Cluster) -> str:
    """``HOST:PORT`` of that cluster."""
    import ray

    return ray.get_runtime_context().gcs_address


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    """The folder of a trial that has begun."""
    from toy_trials import config

    trial = config("x")
    folder = TrialFolder(tmp_path, trial.key)
    folder.claim(trial)
    return folder
