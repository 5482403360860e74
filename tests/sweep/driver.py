"""A driver as the command line has one: runs a sweep of toy trials, exits as its errors say.

driver.py STORAGE EPOCHS SECONDS NAME...
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from toy_trials import config, count

from medaug.errors import MedaugError
from medaug.ownership.watchdog import StorageWatchdog
from medaug.spec import ResourceSpec, TrialConfig
from medaug.sweep import Outcome, Sweep, runner

runner.LOST_AFTER_S = 3.0  # so that a test need not wait
SAVE_S = float(os.environ.get("MEDAUG_TEST_SAVE_S", "0"))
PATIENCE_S = float(os.environ.get("MEDAUG_TEST_STORAGE_S", "60"))


class Announcer:
    def on_wave_start(self, stage: str, n: int, reused: int) -> None:
        print("wave", n, reused, flush=True)

    def on_trial_start(self, config: TrialConfig) -> None:
        print("start", config.title, flush=True)

    def on_place(self, config: TrialConfig, device: str) -> None: ...

    def on_epoch(self, config: TrialConfig, epoch: int, metrics: Mapping[str, float]) -> None:
        print("epoch", config.title, epoch, flush=True)

    def on_trial_end(self, outcome: Outcome) -> None:
        print("end", outcome.key, outcome.status, flush=True)

    def on_wave_end(self) -> None:
        print("over", flush=True)


def main(storage: Path, address: str, epochs: int, seconds: float, names: list[str]) -> int:
    trials = [config(name, epochs=epochs, seconds=seconds * (name != "quick")) for name in names]
    try:
        with (
            StorageWatchdog(storage, PATIENCE_S),
            Sweep(
                storage / "experiment",
                storage,
                ResourceSpec(checkpoint_every_s=SAVE_S),
                address=None if address == "local" else address,
                listeners=[Announcer()],
                cpus=2,
            ) as sweep,
        ):
            outcomes = sweep.run(trials, work=count)
    except MedaugError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0 if all(outcome.result for outcome in outcomes) else 4


if __name__ == "__main__":
    path, address, epochs, seconds, *names = sys.argv[1:]
    sys.exit(main(Path(path), address, int(epochs), float(seconds), names))
