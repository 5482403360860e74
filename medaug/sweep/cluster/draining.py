"""Notice that nodes will be taken away: spot machines get some, and so do pods that are moved."""

from __future__ import annotations

from collections.abc import Iterable


def leaving(node_ids: Iterable[str]) -> set[str]:
    """Those of the nodes that their cluster is draining; one short call to its head.

    Ray has no public way to ask; its own trainer asks like this. Where this version of it has
    another, no notice is heard: the node is lost when it goes, and an epoch with it at most.
    """
    try:
        from ray._private.state import state

        return set(node_ids) & set(state.get_draining_nodes())
    except (ImportError, AttributeError):
        return set()
