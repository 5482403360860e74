"""A sweep of four trials that only end when all four run at once, each on a quarter of a GPU.

meeting.py STORAGE ADDRESS [--wait]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from medaug.errors import MedaugError
from medaug.spec import GenerateTrial, ResourceSpec, TrialConfig, WrittenArm
from medaug.storage.results import GenerateResult
from medaug.sweep import Sweep
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.world import World

GUESTS = 4


def meet(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None
) -> Iterator[Progress]:
    """Wait for the others; the result is the GPU that this rank may see."""
    (storage / f"here-{config.seed}").touch()
    while len(list(storage.glob("here-*"))) < GUESTS:
        time.sleep(0.05)
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    yield Progress(1, {"val/score": 1.0}, None, GenerateResult(output=gpu, generator=gpu, n=0))


def main(storage: Path, address: str, wait: bool) -> int:
    maker = WrittenArm(kind="meet")
    trials = [
        GenerateTrial(arm="meet", maker=maker, n=1, features="none", fold=0, seed=seed)
        for seed in range(GUESTS)
    ]
    resources = ResourceSpec(cpus_per_rank=0.25, gpus_per_rank=0.25, hang_timeout_s=600)
    try:
        with Sweep(storage / "experiment", storage, resources, address=address, wait=wait) as sweep:
            print("under way", flush=True)
            outcomes = sweep.run(trials, work=meet)
    except MedaugError as error:
        print(error, flush=True)
        return error.exit_code
    print(*(outcome.result.made[0] for outcome in outcomes if outcome.result), flush=True)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from meeting import main  # type: ignore[no-redef]  # by the name that the workers import

    sys.exit(main(Path(sys.argv[1]), sys.argv[2], "--wait" in sys.argv))
