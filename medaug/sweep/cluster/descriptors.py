"""How many files a process may have open: Ray keeps some for each of its workers."""

from __future__ import annotations

import os
import resource

from medaug.errors import EnvironmentFault
from medaug.spec import ResourceSpec

OF_RAY, OF_A_WORKER = 128, 8
"""Open in one process of an embedded cluster (Ray 2.60, Linux): the raylet has some 45 and 5 more
for each worker, the head's as many; the rest is for what is open for moments."""


def needed(resources: ResourceSpec, cpus: int | None) -> int:
    """Files that one process of an embedded cluster of ``cpus`` CPUs (None: all) has open at most
    while as many trials run as fit."""
    cpus = cpus or os.cpu_count() or 1
    trials = max(1, int(cpus / (resources.ranks * resources.cpus_per_rank)))
    trials = min(trials, resources.max_concurrent or trials)
    return OF_RAY + OF_A_WORKER * trials * (resources.ranks + 1)


def check_open_files(resources: ResourceSpec, cpus: int | None) -> None:
    """Raise this process's limit as far as it may, and its children's with it.

    Raises:
        EnvironmentFault: an embedded cluster needs more than is allowed; with both numbers.
    """
    need = needed(resources, cpus)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _below(soft, need) and not _below(hard, need):
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
        return
    if _below(soft, need):
        raise EnvironmentFault(
            f"open files: Ray needs {need} at once for the trials that fit here, and {hard} are "
            f"allowed; ulimit -n {max(need, 4096)} (LimitNOFILE= in a systemd unit), or set "
            "resources.max_concurrent"
        )


def _below(limit: int, need: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < need
