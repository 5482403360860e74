"""Rows 13, 14 and 15: nodes killed or drained under trials whose ranks sit on two of them."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_trials import begun, config, count, expected_total

from medaug.spec import ResourceSpec
from medaug.sweep import Sweep
from medaug.sweep.cluster import _ENVIRONMENT
from tests.chaos.board import Fault
from tests.chaos.strikes import Striker, account

pytestmark = [pytest.mark.chaos, pytest.mark.ray]

EPOCHS, EPOCH_S = 18, 0.4
KILLS = 5
NODES = 3


class Nodes:
    """Ray nodes of one CPU each beside a head that has none; one more than the trial needs."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(NODES)]

    @property
    def address(self) -> str:
        return self._cluster.address

    def kill(self, dice: random.Random) -> None:
        """Kill one, without notice; another joins at once, as an autoscaler would bring it."""
        node = self._nodes.pop(dice.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        threading.Thread(target=self.add).start()

    def add(self) -> None:
        self._nodes.append(self._cluster.add_node(num_cpus=1))

    def stop(self) -> None:
        self._cluster.shutdown()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    import ray

    for name, value in _ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    nodes = Nodes()
    ray.init(address=nodes.address, log_to_driver=False, logging_level="CRITICAL")
    yield nodes
    ray.shutdown()
    nodes.stop()


def test_killed_nodes(faults: Callable[[int, str], Fault], nodes: Nodes, tmp_path: Path) -> None:
    fault = faults(14, "a node killed")
    dice = random.Random(14)
    victim = config("victim", ranks=2, epochs=EPOCHS, seconds=EPOCH_S)

    def strike() -> bool:
        fault.inject()
        nodes.kill(dice)
        return True

    striker = Striker(strike, KILLS, epoch_s=EPOCH_S, seed=14)
    resources = ResourceSpec(strategy="STRICT_SPREAD", max_failures=2)
    with Sweep(tmp_path / "experiment", tmp_path, resources, listeners=[striker]) as sweep:
        (outcome,) = sweep.run([victim], work=count)
    assert outcome.status == "done", outcome
    assert outcome.result is not None
    assert outcome.result["scores"] == {"total": expected_total(EPOCHS, 2)}
    assert len(striker.when) == KILLS
    account(fault, striker.when, tmp_path, [victim])
    assert len(begun(tmp_path, victim)) <= EPOCHS + KILLS
