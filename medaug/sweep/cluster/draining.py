"""Notice that nodes will be taken away: spot machines get some, and so do pods that are moved."""

from __future__ import annotations

import time
from collections.abc import Iterable

ASK_EVERY_S = 2.0
"""The head is not asked more often: a notice is of 30 seconds at least."""
ANSWER_S = 2
"""How long its answer is waited for. No answer is no notice."""


class Notices:
    """Which nodes the cluster of this process is draining, as its head says."""

    def __init__(self) -> None:
        self._asked = float("-inf")
        self._draining: set[str] = set()

    def leaving(self, node_ids: Iterable[str]) -> set[str]:
        """Those of the nodes that will be taken away."""
        if (now := time.monotonic()) - self._asked >= ASK_EVERY_S:
            self._asked = now
            self._draining = _draining()
        return set(node_ids) & self._draining


def _draining() -> set[str]:
    """What `ray status` asks for. Where this version of Ray has it not, no notice is heard: the
    node is lost when it goes, and an epoch with it at most."""
    import ray

    try:
        from ray.autoscaler.v2.sdk import get_cluster_status
    except ImportError:
        return set()
    address = ray.get_runtime_context().gcs_address
    try:
        status = get_cluster_status(address, timeout=ANSWER_S)
    except ray.exceptions.RayError:  # the driver looks after a head that is silent
        return set()
    nodes = [*status.active_nodes, *status.idle_nodes]
    return {n.node_id for n in nodes if n.node_id and n.node_status == "DRAINING"}
