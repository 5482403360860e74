"""Follows a sweep into MLflow from a background thread; nothing it does may stop the sweep."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from medaug.errors import EnvironmentFault, Interrupted, MedaugError, UserError
from medaug.results.leaderboard import leaderboard_of
from medaug.results.rows import Leaderboard
from medaug.spec import StudySpec, TrialConfig
from medaug.tracking.mirror import Mirror, read_status, write_status
from medaug.tracking.spool import SPOOL, Backlog
from medaug.tracking.uri import diagnosis, prepare_client, without_password

if TYPE_CHECKING:

    class Outcome(Protocol):
        """What the sweep tells of a trial that ended."""

        @property
        def key(self) -> str: ...

        @property
        def bundle(self) -> str: ...


log = logging.getLogger(__name__)

SWEEP, BUNDLES, BOARD = "sweep", "bundles", "leaderboard"
"""What there can be news of, beside the trials by their keys."""

PACE_S = 1.0
"""News of a trial within this time are sent together."""
RETRY_S = 15.0
WARN_EVERY_S = 60.0
REQUIRED_S = 60.0
"""How long ``tracking.required`` waits for an answer, retries included."""
FINISH_S = 60.0
LEAVE_S = 5.0
"""How long the end of an interrupted sweep may take here: signals leave it 25 seconds in all."""


class Tracker:
    """Tells MLflow about a sweep; a listener of it and a context manager around it.

    Events only mark that there is news. A daemon thread, the only user of MLflow, brings MLflow up
    to date from the run's folder. While MLflow does not answer, marks are kept in
    ``mlflow_spool.jsonl``; what is left of them at the end is for :func:`sync`.

    Raises, on entering:
        UserError: ``tracking.uri`` names a folder; or ``tracking.required`` and MLflow cannot be
            reached.
    """

    def __init__(
        self,
        study: StudySpec,
        folder: Path,
        *,
        limit: int = 10_000,
        pace_s: float = PACE_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._required = study.tracking.required
        self._folder = folder
        self._pace_s = pace_s
        self._retry_s = retry_s
        self._mirror = Mirror(study, folder)
        self._backlog = Backlog(folder / SPOOL, limit)
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._status = "running"
        self._noting = threading.Lock()
        self._running: set[str] = set()
        self._board: Leaderboard | None = None
        self._leaving = threading.Event()
        self._given_up = False
        self._tried = threading.Event()
        """Set after the first attempt to reach MLflow."""
        self._trouble: str | None = None
        """What is the matter with MLflow just now."""
        self._had_trouble = False
        self._failures = 0
        """One after the other, nothing sent in between."""
        self._warned = -WARN_EVERY_S

    def __enter__(self) -> Tracker:
        prepare_client()
        self._backlog.add(SWEEP)
        self._thread.start()
        if self._required and not (self._tried.wait(REQUIRED_S) and self._trouble is None):
            self._given_up = True
            self._leaving.set()
            self._backlog.close()
            trouble = self._trouble or f"MLflow did not answer within {REQUIRED_S:.0f} s"
            raise UserError(f"tracking.required: {trouble} (or set it to false)")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._leaving.is_set():
            stopped = isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
            self._end("done" if error is None else "interrupted" if stopped else "failed", LEAVE_S)

    def finish(self, board: Leaderboard, report: Path) -> None:
        """Show the leaderboard, the report and the figures in the run's folder, and take leave.

        Waits at most a minute; what is not sent by then is spooled, with a line that says so.
        """
        assert report.parent == self._folder
        self._board = board
        self._all_is_news()
        self._backlog.add(BOARD)
        self._end("done", FINISH_S)

    def on_wave_start(self, stage: str, n: int, reused: int) -> None:
        """Trials that were finished before are sent from their folders on entering."""

    def on_trial_start(self, config: TrialConfig) -> None:
        self._running.add(config.key)
        self._backlog.add(config.key)

    def on_bundle_start(self, bundle: object) -> None:
        """There is nothing to show of it yet."""

    def on_bundle_end(self, bundle: object) -> None:
        self._backlog.add(BUNDLES)

    def on_place(self, unit: object, device: str) -> None:
        """Of interest while it runs only."""

    def on_epoch(self, config: TrialConfig, epoch: int, metrics: Mapping[str, float]) -> None:
        self._backlog.add(config.key)

    def on_trial_end(self, outcome: Outcome) -> None:
        if outcome.bundle:
            return  # told with the others of its bundle
        self._running.discard(outcome.key)
        self._backlog.add(outcome.key)

    def on_wave_end(self) -> None:
        """The ends of its trials have been told."""

    def _end(self, status: str, patience_s: float) -> None:
        self._status = status
        for key in list(self._running):
            self._running.discard(key)
            self._backlog.add(key)
        self._note_status()
        self._backlog.add(SWEEP)
        self._backlog.close()
        self._leaving.set()
        self._thread.join(patience_s)
        self._backlog.spill()
        if (self._folder / SPOOL).exists():
            trouble = self._trouble or f"MLflow took longer than {patience_s:.0f} s"
            log.warning(
                "%s; `medaug sync %s` sends what it has not got", trouble, self._folder.name
            )

    def _work(self) -> None:
        """The thread: sends what there is news of until told to leave, and then what is left."""
        self._note_status()
        self._all_is_news()  # earlier runs may not have sent all of it
        while not self._given_up and (names := self._backlog.take()):
            name = names[0]
            try:
                for name in names:
                    self._send(name)
                    self._backlog.done(name)
                    self._failures = 0
                    self._tried.set()
            except Exception as error:  # of MLflow, its database, the network: none may matter
                leaving = self._leaving.is_set()
                self._lost(error, name)
                if leaving and self._failures > 1:
                    return
                self._leaving.wait(self._retry_s)
            else:
                self._trouble = None
                self._leaving.wait(self._pace_s)

    def _all_is_news(self) -> None:
        for key in self._mirror.trial_keys():
            self._backlog.add(key)
        self._backlog.add(BUNDLES)

    def _send(self, name: str) -> None:
        if self._mirror.look():
            log.warning(
                "MLflow at %s was deleted or replaced: it gets all of this run again; `medaug sync"
                " NAME` sends it the others",
                without_password(self._mirror.uri),
            )
            self._all_is_news()
        if name == SWEEP:
            self._mirror.send_sweep(self._status)
            if self._had_trouble and self._leaving.is_set():
                self._mirror.runs.tidy()
        elif name == BUNDLES:
            self._mirror.send_bundles()
        elif name == BOARD:
            from medaug.tracking.showcase import show

            assert self._board is not None
            show(self._mirror, self._board)
        else:
            self._mirror.send_trial(name, running=name in self._running)

    def _note_status(self) -> None:
        with self._noting, suppress(OSError):  # a full disk has more to stop than this
            write_status(self._folder, self._status)

    def _lost(self, error: Exception, name: str) -> None:
        """MLflow did not take ``name``: keep everything on disk, and what failed for the last."""
        log.debug("MLflow did not take %s", name, exc_info=error)
        self._failures += 1
        self._had_trouble = True
        self._mirror.forget()
        self._backlog.spill(last=name)
        self._trouble = diagnosis(error, self._mirror.uri)
        refused = self._required and not self._tried.is_set()
        self._tried.set()
        now = time.monotonic()
        if now - self._warned >= WARN_EVERY_S and not (refused or self._leaving.is_set()):
            self._warned = now
            log.warning(
                "%s. Training goes on; MLflow gets everything when it is back, or by `medaug sync"
                " %s`",
                self._trouble,
                self._folder.name,
            )


def sync(folder: Path) -> int:
    """Send everything that MLflow has not got of the run in ``folder``; returns how many trials.

    Not while the run is going on: its own tracker does the same.

    Raises:
        UserError: there is no such run.
        EnvironmentFault: MLflow cannot be reached; says why.
    """
    from medaug.spec import build_study
    from medaug.spec.arms import ARM_CONFIGS
    from medaug.storage.run_folder import study_data
    from medaug.tracking.showcase import is_finished, show

    study = build_study(study_data(folder), ARM_CONFIGS)
    prepare_client()
    mirror = Mirror(study, folder)
    status = read_status(folder)
    try:
        sent = sum(mirror.send_trial(key) for key in mirror.trial_keys())
        mirror.send_bundles()
        if is_finished(folder):
            show(mirror, leaderboard_of(folder))
        mirror.send_sweep("interrupted" if status == "running" else status)
        mirror.runs.tidy()
    except MedaugError:
        raise
    except Exception as error:  # of MLflow, its database, the network
        raise EnvironmentFault(diagnosis(error, mirror.uri)) from error
    (folder / SPOOL).unlink(missing_ok=True)
    return sent
