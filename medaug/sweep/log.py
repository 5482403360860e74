"""A run's log: what happened and when, for the person who asks why days later.

``<run>/medaug.log`` holds what the terminal showed in passing, with times. It is written for people
who send it to others: keys, titles and pseudonyms stand in it, but no path of a scan, no patient's,
user's or machine's name. So an error that ends the command is in it by class and exit code alone
where it may quote an input file.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from medaug.errors import EnvironmentFault, Interrupted, MedaugError, TrialsFailed
from medaug.spec import TrialConfig
from medaug.storage.files import private_folder
from medaug.sweep.events import Outcome
from medaug.sweep.trial.bundle import Bundle

NAME = "medaug.log"
FORMAT = "%(asctime)s %(levelname)-7s %(message)s"

log = logging.getLogger(__name__)


class LogListener:
    """Writes a sweep's events down, one line each; epochs at level DEBUG."""

    def on_wave_start(self, stage: str, n: int, reused: int) -> None:
        log.info("%s: %d trials, %d of them finished before", stage, n, reused)

    def on_trial_start(self, config: TrialConfig) -> None:
        log.info("%s %s starts: %s, fold %s, seed %s", config.stage, config.key, config.title,
                 config.fold, config.seed)  # fmt: skip

    def on_bundle_start(self, bundle: Bundle) -> None:
        log.info("bundle %s starts: %s", bundle.key, bundle.title)

    def on_bundle_end(self, bundle: Bundle) -> None:
        log.info("bundle %s over", bundle.key)

    def on_place(self, unit: TrialConfig | Bundle, device: str) -> None:
        log.debug("%s computes on %s", unit.key, device.partition(" @ ")[0])

    def on_epoch(self, config: TrialConfig, epoch: int, metrics: Mapping[str, float]) -> None:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        log.debug("%s epoch %d: %s", config.key, epoch, shown)

    def on_trial_end(self, outcome: Outcome) -> None:
        # No warning: warnings are shown on the terminal, whose own display says it.
        level = logging.INFO if outcome.why or not outcome.bundle else logging.DEBUG
        why = f": {outcome.why}" if outcome.why else ""
        log.log(level, "%s %s after epoch %d, %.1f s%s", outcome.key, outcome.status,
                outcome.epoch, outcome.seconds, why)  # fmt: skip

    def on_wave_end(self) -> None:
        log.info("wave over")


@contextmanager
def run_log(folder: Path) -> Iterator[None]:
    """Append all that medaug logs, from level DEBUG on, to ``folder``'s ``medaug.log`` (0600)."""
    private_folder(folder)
    os.close(os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    handler = logging.FileHandler(folder / NAME, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    ours = logging.getLogger("medaug")
    before = ours.level
    ours.addHandler(handler)
    # With a handler of ours, Python's own for warnings steps back: they belong on the terminal too.
    terminal = logging.StreamHandler() if len(ours.handlers) == 1 else None
    if terminal is not None:
        terminal.setLevel(logging.WARNING)
        ours.addHandler(terminal)
    ours.setLevel(logging.DEBUG)
    try:
        log.info("medaug %s, Python %s", version("medaug"), platform.python_version())
        yield
        log.info("the leaderboard is written")
    except BaseException as error:
        log.info("ended by %s", _described(error))  # the command itself tells the terminal
        raise
    finally:
        ours.setLevel(before)
        ours.removeHandler(handler)
        handler.close()
        if terminal is not None:
            ours.removeHandler(terminal)


def _described(error: BaseException) -> str:
    name, code = type(error).__name__, getattr(error, "exit_code", 1)
    if isinstance(error, Interrupted | EnvironmentFault | TrialsFailed):
        return f"{name} (exit code {code}): {error}"
    if isinstance(error, MedaugError):
        return f"{name} (exit code {code}); its text may name an input, so it is not written here"
    return f"{name}; run again with --debug to see the traceback"
