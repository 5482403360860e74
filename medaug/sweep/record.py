"""What one finished epoch leaves in its trial's folder, in the order that survives a kill."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from medaug.trial_folder import TrialFolder

if TYPE_CHECKING:
    from medaug.train.checkpoint import Progress


def record(folder: TrialFolder, progress: Progress, seconds: float, *, repeated: bool) -> None:
    """Make ``progress`` durable: its checkpoint, then its line, at the end the result.

    ``seconds`` were spent on training it. ``repeated``: its line is there already, it only brings
    the result. A finished trial keeps its newest checkpoint, for opening the sealed test set; one
    that has published what it made keeps none.
    """
    from medaug.train.checkpoint import Ledger

    ledger = Ledger(folder.path)
    started = time.perf_counter()
    if progress.checkpoint is not None:
        ledger.commit(progress.checkpoint, fingerprint=folder.key)
    if progress.checkpoint is not None or not repeated:
        folder.log_epoch(
            {
                "epoch": progress.epoch,
                "metrics": progress.metrics,
                "seconds": round(seconds, 4),
                "save_seconds": round(time.perf_counter() - started, 4),
                "time": round(time.time(), 3),
            }
        )
    if progress.result is not None:
        folder.finish(progress.result)
        ledger.prune(keep=0 if "output" in progress.result else 1)
