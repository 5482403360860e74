"""What a trial's epochs leave in its folder, in the order that survives a kill."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from medaug.spec.saving import save_interval_s
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial.fence import Fence

if TYPE_CHECKING:
    from medaug.train.checkpoint import Checkpoint, Progress


class Recorder:
    """Writes a trial's epochs into its folder, as long as ``fence`` lets it.

    A checkpoint is made durable when the last one that was would be more than ``every_s`` seconds
    old at the end of the next epoch (``auto``: by what the last save took), where the trial says
    so, and at its end: :meth:`save` is for whoever leaves it before. Both raise Superseded, and
    leave all as it is, when another attempt has the trial.
    """

    def __init__(self, folder: TrialFolder, every_s: float | Literal["auto"], fence: Fence) -> None:
        from medaug.train.checkpoint import Ledger

        self._folder = folder
        self._ledger = Ledger(folder.path)
        self._every_s = every_s
        self._fence = fence
        self._logged = folder.epoch()
        """Last epoch in ``epochs.jsonl``: a Progress that only brings the result repeats it."""
        self._saved_at = time.monotonic()
        self._save_s: float | None = None
        """What the last save took."""
        self._unsaved: Checkpoint | None = None

    def record(self, progress: Progress, seconds: float) -> None:
        """Write ``progress`` down: its checkpoint if it is time, then its line, at the end the
        result.

        ``seconds`` were spent on training it. A finished trial keeps its newest checkpoint if
        somebody will open it, for a sealed test set or another cohort; one that has published what
        it made does not.
        """
        self._fence.check()
        started, save_seconds = time.perf_counter(), 0.0
        self._unsaved = progress.checkpoint or self._unsaved
        result = progress.result
        needed = result is None or (progress.keep and not result.made)
        if not needed:
            self._unsaved = None
        interval_s = save_interval_s(self._every_s, self._save_s)
        # Another epoch like this one must not make more of them than that unsaved.
        due = time.monotonic() - self._saved_at + seconds > interval_s
        if self._unsaved is not None and (due or progress.save or result is not None):
            self.save()
            save_seconds = time.perf_counter() - started
        if progress.checkpoint is not None or progress.epoch > self._logged:
            self._folder.log_epoch(
                {
                    "epoch": progress.epoch,
                    "metrics": progress.metrics,
                    "seconds": round(seconds, 4),
                    "save_seconds": round(save_seconds, 4),
                    "time": round(time.time(), 3),
                }
            )
            self._logged = max(self._logged, progress.epoch)
        if result is not None:
            self._fence.check()
            self._folder.finish(result)
            self._ledger.prune(keep=1 if needed else 0)

    def save(self) -> None:
        """Make the newest epoch durable, if it is not. What fails is not tried again."""
        checkpoint, self._unsaved = self._unsaved, None
        if checkpoint is not None:
            self._fence.check()
            key, ours = self._folder.key, self._fence.check
            started = time.monotonic()
            self._ledger.commit(checkpoint, fingerprint=key, before_rename=ours)
            self._saved_at = time.monotonic()
            self._save_s = self._saved_at - started
