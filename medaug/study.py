"""A study from scans to leaderboard: the page to read first.

    scans -> slices -> U-Net -> features -> generated rows -> classifiers -> leaderboard

Each arrow is a wave of trials on Ray; each trial leaves a model, a store or scores under a name
that is the hash of what made it, so whatever exists already is not made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medaug.audit.scan import SIDE, note_leakage, of_images, scan_slices
from medaug.data.digests import FILE as DIGESTS
from medaug.data.digests import Digests
from medaug.data.layouts import check_source, read_cohort
from medaug.data.slices import ingest, ingest_signature
from medaug.errors import IntegrityError, UserError
from medaug.plan.disk import bytes_to_write
from medaug.plan.trials import ArmVariant, Plan, expand_arms, plan_study
from medaug.results.leaderboard import leaderboard_of
from medaug.results.records import study_data
from medaug.results.report.document import write_report
from medaug.results.rows import Leaderboard
from medaug.spec import DataSpec, SplitSpec, StudySpec, TrialConfig, build_study, signature
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import Artifacts
from medaug.storage.probe import check_storage
from medaug.storage.results import ClassifyResult
from medaug.storage.run_folder import refresh_names, refresh_run, refresh_runs, share_run
from medaug.storage.trial_folder import read_json, write_json
from medaug.sweep.display import Display, make_display
from medaug.sweep.events import Outcome
from medaug.sweep.log import LogListener, run_log
from medaug.sweep.runner import Sweep
from medaug.sweep.trial.replicates import share_passes
from medaug.sweep.tune.space import draw, search
from medaug.tracking.tracker import Tracker


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
) -> Finished:
    """Run ``study`` to its leaderboard, or go on where an earlier run of it stopped.

    ``address`` is a running Ray cluster (default: an embedded one); with ``wait``, trials queue
    until the cluster has grown to hold them. ``allow_version_skew``: another version of medaug may
    have begun it.

    Raises:
        UserError: bad data, or the name belongs to another study or is running elsewhere.
        EnvironmentFault: the cluster or the storage cannot take it.
        Interrupted: a signal came; ``medaug resume`` goes on.
    """
    check_source(study.data)  # before any device is taken
    refresh_runs(study.storage)  # a trial may have been run in another one
    check_storage(study.storage)
    folder = free_folder(study)
    with ExitStack() as stack:
        display = stack.enter_context(make_display())
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
        slices, pretrain_slices = make_slices(study, display)
        hold_to_data(folder, slices)
        check_sizes(study, slices)
        look_for_leaks(study, slices, folder, display)
        sweep.seals.flush()
        arms = choose_arms(study, slices, pretrain_slices, sweep, display)
        plan = plan_study(study, slices, pretrain_slices, arms)
        rows = len(Artifacts(study.storage).open_store(slices))
        check_storage(study.storage, bytes_to_write(study, plan.trials(), rows))
        outcomes = run_waves(plan, study, sweep, display)
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
) -> Finished:
    """Go on with the run in ``folder``; finished trials are not run again.

    Raises:
        UserError: there is no such run; otherwise as :func:`run_study`.
    """
    study = build_study(study_data(folder), ARM_CONFIGS)
    study = study.model_copy(update={"storage": folder.parent})
    return run_study(study, address=address, wait=wait, allow_version_skew=allow_version_skew)


def run_waves(plan: Plan, study: StudySpec, sweep: Sweep, display: Display) -> list[Outcome]:
    """Run the plan's waves in order; trials whose inputs were not made are left out."""
    outcomes: list[Outcome] = []
    for title, trials in plan.waves():
        ready = [trial for trial in trials if has_inputs(trial, Artifacts(study.storage))]
        display.note_blocked(title, len(trials) - len(ready))
        if title == "generate" and study.resources.replicates == "fused":
            share_passes(sweep, ready, study.storage / study.name)
        outcomes += sweep.run(ready, asha=study.sweep.asha if title == "generate" else None)
    return outcomes


def choose_arms(
    study: StudySpec, slices: str, pretrain_slices: str | None, sweep: Sweep, display: Display
) -> list[ArmVariant]:
    """The arms to run with all seeds and folds: the grid's, the drawn, or what Optuna found.

    A search looks at one fold and one seed only, and there at the validation patients: its
    objective is the classifier's validation loss with the largest number of added rows.
    """
    axes = study.sweep
    if axes.search == "grid" or not axes.space:
        return expand_arms(study)
    if axes.search == "random":
        return expand_arms(study, draw(axes.space, axes.samples, study.split.seed))

    def evaluate(points: Sequence[Mapping[str, Any]]) -> list[float | None]:
        variants = [expand_arms(study, [point]) for point in points]
        plans = [
            plan_study(study, slices, pretrain_slices, arms).only(0, axes.seeds[0], searched)
            for arms in variants
        ]
        outcomes = run_waves(Plan.joined(plans), study, sweep, display)
        losses = {o.key: loss for o in outcomes if (loss := _validation_loss(o)) is not None}
        return [
            min((losses[t.key] for t in plan.classify if t.key in losses), default=None)
            for plan in plans
        ]

    searched = {key.partition(".")[0] for key in axes.space}
    best = search(axes.space, evaluate, samples=axes.samples, mode="min", seed=study.split.seed)
    return expand_arms(study, [point for point, loss in best[: axes.keep] if loss is not None])


def _validation_loss(outcome: Outcome) -> float | None:
    """Of a classifier's best epoch; None where a trial has made something else, or nothing."""
    return outcome.result.best_loss if isinstance(outcome.result, ClassifyResult) else None


def free_folder(study: StudySpec) -> Path:
    """``<storage>/<name>``, which is new or holds this study.

    Raises:
        UserError: the folder holds another study; names the first key that differs.
    """
    folder = study.storage / study.name
    if (folder / "study.json").exists():
        before = _decisive(build_study(study_data(folder), ARM_CONFIGS))
        if difference := _first_difference(before, _decisive(study)):
            raise UserError(
                f"{folder}: holds another study ({difference}); give this one another --name or "
                f"--fork, or `medaug resume {study.name}` to go on with that one"
            )
    return folder


def claim_folder(study: StudySpec) -> Path:
    """Write ``study`` into its :func:`free_folder`."""
    folder = free_folder(study)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json(folder / "study.json", study.canonical())
    return folder


def forked(study: StudySpec) -> StudySpec:
    """``study``, renamed by its own signature where another one has its name already.

    What the two have in common is not made again: stores and models are shared by content.
    """
    refresh_names(study.storage)
    folder = study.storage / study.name
    if not (folder / "study.json").exists():
        return study
    before = _decisive(build_study(study_data(folder), ARM_CONFIGS))
    if before == _decisive(study):
        return study
    digest = signature({**_decisive(study), "name": ""})
    return study.model_copy(update={"name": f"{study.name[:57]}-{digest[:6]}"})


def hold_to_data(folder: Path, slices: str) -> None:
    """Keep the run in ``folder`` to the scans that it began with.

    Raises:
        IntegrityError: they are others now; half of the trials would be scored on other patients.
    """
    before = read_json(folder / "data.json")
    if before is None:
        write_json(folder / "data.json", {"slices": slices})
    elif before["slices"] != slices:
        raise IntegrityError(
            f"{folder}: began with {before['slices']}, but these scans (or this site key) make "
            f"{slices}; bring the old ones back, or give this run another --name"
        )


def check_sizes(study: StudySpec, slices: str) -> None:
    """Raises UserError when ``sweep.train_rows`` wants more than some fold can give."""
    store = Artifacts(study.storage).open_store(slices)
    have = min(len(store.split("train", fold)) for fold in range(study.split.folds))
    wanted = max(study.sweep.train_rows or (0,))
    if wanted > have:
        raise UserError(
            f"sweep.train_rows: {wanted}, but the smallest fold trains on {have} rows; ask for "
            f"{have} at most"
        )


def _decisive(study: StudySpec) -> dict[str, Any]:
    """What a study's results depend on: not where it is kept, tracked or computed."""
    elsewhere = {"storage", "tracking", "resources"}
    return {key: value for key, value in study.canonical().items() if key not in elsewhere}


def make_slices(study: StudySpec, display: Display) -> tuple[str, str | None]:
    """Names of the study's slice store and of the pre-training cohort's; made when missing."""
    slices = _ingest(study.data, study.split, study.storage, display, "reading scans")
    pretrain = study.segmenter.pretrain if study.segmenter else None
    if pretrain is None or pretrain.phantom is None:
        return slices, None
    cohort = study.data.model_copy(
        update={
            "layout": "phantom",
            "root": None,
            "table": None,
            "covariates": (),
            "phantom": pretrain.phantom,
            "classes": DataSpec().classes,
            "max_patients": None,
        }
    )
    split = SplitSpec(seed=study.split.seed)
    return slices, _ingest(cohort, split, study.storage, display, "making pre-training scans")


def look_for_leaks(study: StudySpec, slices: str, folder: Path, display: Display) -> None:
    """Compare the slices of different patients before anything is trained; say what is found.

    At 32 pixels all heads are alike: images that the study makes so small are read again for this.
    """
    if study.data.image_size < SIDE and of_images(Artifacts(study.storage).open_store(slices)):
        larger = study.data.model_copy(update={"image_size": SIDE})
        slices = _ingest(larger, study.split, study.storage, display, "reading them larger", False)
    with display.progress("looking for copies between patients"):
        leakage = scan_slices(Artifacts(study.storage), slices)
    path = note_leakage(folder, leakage)
    advice = f"; see {path}; put them into one group" if leakage.leaks else ""
    display.note(f"{leakage.summary()}{advice}")


def _ingest(
    data: DataSpec,
    split: SplitSpec,
    storage: Path,
    display: Display,
    title: str,
    tell: bool = True,
) -> str:
    artifacts = Artifacts(storage)
    digests = Digests(artifacts.store_path(DIGESTS))
    with display.progress(title) as progress:
        cohort = read_cohort(data, progress, digests=digests)
        config = ingest_signature(cohort, data, split, digests)
        digests.save()
        name = f"slices-{config}"
        artifacts.fetch_store(name)  # another machine may have made it
        path = artifacts.store_path(name)
        report = ingest(data, split, path, progress=progress, cohort=cohort, config=config)
        artifacts.share_store(name)
    if tell:
        display.note_ingest(report)
    return name


def has_inputs(trial: TrialConfig, artifacts: Artifacts) -> bool:
    """Whether all that ``trial`` reads has been made."""
    return all(map(artifacts.has, trial.inputs))


def _first_difference(before: Any, now: Any, path: str = "") -> str | None:
    """``a.b: old -> new`` of the first key that differs, or None."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            inner = f"{path}.{key}" if path else str(key)
            if found := _first_difference(before.get(key), now.get(key), inner):
                return found
        return None
    return None if before == now else f"{path}: {before!r} -> {now!r}"
