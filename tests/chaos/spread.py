"""A sweep of one toy trial whose two ranks sit on different hosts of a cluster.

spread.py STORAGE ADDRESS EPOCHS SECONDS HANG_S SAVE_S
"""

from __future__ import annotations

import sys
from pathlib import Path

from toy_trials import config, count

from medaug.errors import MedaugError
from medaug.spec import ResourceSpec, TrialConfig
from medaug.sweep import Sweep


def spread_trial(epochs: int, seconds: float) -> TrialConfig:
    return config("spread", ranks=2, epochs=epochs, seconds=seconds)


def main(
    storage: Path, address: str, epochs: int, seconds: float, hang_s: float, save_s: float
) -> int:
    resources = ResourceSpec(
        strategy="STRICT_SPREAD", max_failures=2, hang_timeout_s=hang_s, checkpoint_every_s=save_s
    )
    try:
        with Sweep(storage / "experiment", storage, resources, address=address) as sweep:
            (outcome,) = sweep.run([spread_trial(epochs, seconds)], work=count)
    except MedaugError as error:
        print(error, flush=True)
        return error.exit_code
    print(outcome, flush=True)
    return 0 if outcome.result else 4


if __name__ == "__main__":
    path, address, epochs, *seconds = sys.argv[1:]
    sys.exit(main(Path(path), address, int(epochs), *map(float, seconds)))
