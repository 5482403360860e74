"""A study from scans to leaderboard: the page to read first.

    scans -> slices -> U-Net -> features -> generated rows -> classifiers -> leaderboard

Each arrow is a wave of trials on Ray; each trial leaves a model, a store or scores under a name
that is the hash of what made it, so whatever exists already is not made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from medaug.data.layouts import check_source
from medaug.data.privacy import refuse_key_inside, site_pseudonymiser
from medaug.given import bring_given
from medaug.intake import bring_pool, look_at_external, look_for_leaks, make_slices
from medaug.ownership.identity import check_same_data, claim_folder, free_folder
from medaug.plan.disk import bytes_to_write
from medaug.plan.encoded import check_pool
from medaug.plan.sizes import held_back
from medaug.plan.trials import check_sides, plan_study, rows_left_out
from medaug.plan.variants import expand_arms
from medaug.results.leaderboard import leaderboard_of
from medaug.results.report.document import write_report
from medaug.results.rows import Leaderboard
from medaug.spec import StudySpec, resumed_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import Artifacts
from medaug.storage.probe import check_storage
from medaug.storage.run_folder import refresh_run, refresh_runs, share_run, study_data
from medaug.store.manifest import MANIFEST
from medaug.sweep.display import Display, Silent
from medaug.sweep.log import LogListener, run_log
from medaug.sweep.runner import Sweep
from medaug.tracking.tracker import Tracker
from medaug.waves import choose_arms, run_waves


@dataclass(frozen=True)
class Finished:
    """What a run came to."""

    folder: Path
    board: Leaderboard
    report: Path
    failures: tuple[str, ...]
    """One line for each trial that did not make it."""
    left_out: int = 0
    """Input files that could not be used; ``stores/rejects.jsonl`` names them."""


def run_study(
    study: StudySpec,
    *,
    address: str | None = None,
    wait: bool = False,
    allow_version_skew: bool = False,
    display: Display | None = None,
) -> Finished:
    """Run ``study`` to its leaderboard, or go on where an earlier run of it stopped.

    ``address`` is a running Ray cluster (default: an embedded one); with ``wait``, trials queue
    until the cluster has grown to hold them. ``allow_version_skew``: another version of medaug may
    have begun it. ``display`` shows what happens; None: nothing does.

    Raises:
        UserError: bad data, or the name belongs to another study or is running elsewhere.
        EnvironmentFault: the cluster or the storage cannot take it.
        Interrupted: a signal came; ``medaug resume`` goes on.
    """
    check_source(study.data)  # before any device is taken
    refuse_key_inside(study.storage)
    site_pseudonymiser()  # a site key that cannot be used is told before anything is made
    check_pool(study)
    check_sides(study, expand_arms(study))
    refresh_runs(study.storage)  # a trial may have been run in another one
    check_storage(study.storage)
    folder = free_folder(study)
    with ExitStack() as stack:
        display = display or Silent()
        tracker = Tracker(study, folder)
        events = LogListener()
        sweep = stack.enter_context(
            Sweep(
                folder,
                study.storage,
                study.resources,
                address=address,
                listeners=(display, tracker, events),
                wait=wait,
                allow_version_skew=allow_version_skew,
            )
        )
        refresh_run(folder)  # the last writer may have ended just now
        claim_folder(study)  # after the lease, which says who the one writer is
        stack.enter_context(run_log(folder))
        sweep.seals.flush()
        stack.enter_context(tracker)
        if sweep.budget.text:
            display.note(sweep.budget.text)
        if not (folder / "data.json").exists():  # minutes of reading scans are before us
            sweep.prepare()
            display.note(sweep.gpus)
        slices, pretrain_slices = make_slices(study, display)
        check_same_data(folder, slices)
        sweep.seals.made(Artifacts(study.storage.absolute()).store_path(slices) / MANIFEST)
        spare = held_back(study, Artifacts(study.storage).open_store(slices))
        look_for_leaks(study, slices, folder, display)
        study = look_at_external(study, slices, folder, display)
        pool = bring_pool(study, slices, folder, display)
        given, drawn = bring_given(study, slices, folder, display, sweep)
        sweep.seals.flush()
        arms = choose_arms(study, slices, pretrain_slices, sweep, display, given, pool)
        for line in rows_left_out(study, spare):
            display.note(line)
        plan = plan_study(study, slices, pretrain_slices, arms, spare, given, pool)
        rows = len(Artifacts(study.storage).open_store(slices))
        check_storage(study.storage, bytes_to_write(study, plan.trials(), rows))
        outcomes = [*drawn, *run_waves(plan, study, sweep, display)]
        board = leaderboard_of(folder)
        report = write_report(folder)
        share_run(folder)
        tracker.finish(board, report)
    failed = [outcome.error or outcome.key for outcome in outcomes if outcome.status == "failed"]
    left_out = Artifacts(study.storage).open_store(slices).manifest["extra"]["ingest"]["rejects"]
    return Finished(folder, board, report, tuple(failed), len(left_out))


def resume_study(
    folder: Path,
    *,
    address: str | None = None,
    wait: bool = False,
    allow_version_skew: bool = False,
    overrides: Sequence[str] = (),
    display: Display | None = None,
) -> Finished:
    """Go on with the run in ``folder``; finished trials are not run again.

    ``overrides`` are ``KEY=VALUE`` of what no result depends on: ``resources.*``, ``tracking.*``.

    Raises:
        UserError: there is no such run, or it cannot take an override; otherwise as
            :func:`run_study`.
    """
    study = resumed_study(study_data(folder), ARM_CONFIGS, overrides)
    study = study.model_copy(update={"storage": folder.parent})
    return run_study(
        study,
        address=address,
        wait=wait,
        allow_version_skew=allow_version_skew,
        display=display,
    )
