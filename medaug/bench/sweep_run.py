"""One sweep in a process of its own: sweep_run.py packed|simulated TRIALS SLOTS SECONDS FOLDER."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medaug.bench.store_reader import PrivateMemory, private_bytes
from medaug.bench.sweep_work import trials, wait
from medaug.spec import ResourceSpec
from medaug.sweep import Sweep

if TYPE_CHECKING:
    from medaug.sweep.trial.group import StartRanks

CPUS = 2


def measure(kind: str, n: int, slots: int, seconds: float, storage: Path) -> dict[str, Any]:
    """Run ``n`` trials of ``seconds`` on ``slots`` slots; what the driver spent on them."""
    packed = kind == "packed"
    resources = ResourceSpec(cpus_per_rank=CPUS / slots if packed else 1.0)
    configs = trials(n, seconds)
    start_ranks = None if packed else _idle_ranks()
    with Sweep(
        storage / "experiment",
        storage,
        resources,
        cpus=CPUS if packed else slots,
        start_ranks=start_ranks,
    ) as sweep:
        if not packed:  # Ray's start and all imports are no part of what a trial costs
            sweep.run(trials(slots, -1.0), work=wait)
        before, cpu_s = private_bytes(), time.process_time()
        memory = PrivateMemory()
        memory.start()
        asked, started = time.time(), time.perf_counter()
        outcomes = sweep.run(configs, work=wait)
        wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
        done = [dict(outcome.result.scores) for outcome in outcomes if outcome.result]
    assert len(done) == n, f"{n - len(done)} of {n} trials did not end well"
    return {
        "trials": done if packed else n,
        "asked": asked,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "before_bytes": before,
        "grown_bytes": memory.stop() - before,
    }


def _idle_ranks() -> StartRanks:
    from medaug.bench.sweep_slots import IdleRanks  # loads Ray Tune

    return IdleRanks


if __name__ == "__main__":
    kind, n, slots, seconds, folder = sys.argv[1:]
    told = measure(kind, int(n), int(slots), float(seconds), Path(folder))
    print(json.dumps(told))
