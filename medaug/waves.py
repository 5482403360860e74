"""The arrows of a study in their order, and the search for the arms that go through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medaug.errors import TrialsFailed
from medaug.experiment import bundle_by, output_name
from medaug.plan.sizes import Given
from medaug.plan.trials import Plan, plan_study
from medaug.plan.variants import ArmVariant, expand_arms
from medaug.spec import StopSpec, StudySpec, TrialConfig
from medaug.storage.artifacts import Artifacts
from medaug.storage.bundle_folder import Bundled
from medaug.storage.results import ClassifyResult
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.display import Display
from medaug.sweep.events import Outcome
from medaug.sweep.runner import Sweep
from medaug.sweep.trial.replicates import share_passes
from medaug.sweep.tune.space import draw, search


def run_waves(plan: Plan, study: StudySpec, sweep: Sweep, display: Display) -> list[Outcome]:
    """Run the plan's waves in order; trials whose inputs were not made are left out."""
    outcomes: list[Outcome] = []
    again = to_make_again(plan, study.storage / study.name, Artifacts(study.storage))
    for title, trials in plan.waves():
        ready = [trial for trial in trials if has_inputs(trial, Artifacts(study.storage))]
        display.note_blocked(title, len(trials) - len(ready))
        if title == "generate" and study.resources.replicates == "fused":
            share_passes(sweep, ready, study.storage / study.name)
        stopping = _stopping(study, title)
        outcomes += sweep.run(ready, stopping=stopping, bundle_by=bundle_by, again=again)
    return outcomes


def to_make_again(plan: Plan, run: Path, artifacts: Artifacts) -> set[str]:
    """Keys of trials of the run in the folder ``run`` that have ended, but whose store or model is
    gone, where a trial that has not ended reads it, or another one that has to be made again."""
    trials = plan.trials()
    gone = {
        trial.key
        for trial in trials
        if trial.stage != "classify" and not artifacts.has(output_name(trial))
    }
    if not gone:
        return set()
    bundled = Bundled(run)
    members, again, wanted = bundled.members(gone), set[str](), set[str]()
    for trial in reversed(trials):  # who reads comes before who has made it
        folder = TrialFolder(run, trial.key)
        if trial.key in gone:
            member = members.get(trial.key)
            result = folder.result() or (member.result if member else None)
            if result is not None and not wanted.intersection(result.made):
                continue
            again |= {trial.key} if result is not None else set()
        elif (folder.path / "result.json").exists() or bundled.ended(trial.key):
            continue
        wanted.update(name for name in trial.inputs if not artifacts.has(name))
    return again


def _stopping(study: StudySpec, wave: str) -> StopSpec | None:
    """What ends trials of the wave early."""
    if study.sweep.stopping is None:
        return None
    _, spec = study.sweep.stopping
    if wave == "classify":
        return spec.of_classifiers() if spec.classifiers else None
    return spec if wave == "generate" else None


def choose_arms(
    study: StudySpec,
    slices: str,
    pretrain_slices: str | None,
    sweep: Sweep,
    display: Display,
    given: Given | None = None,
    pool: str | None = None,
) -> list[ArmVariant]:
    """The arms to run with all seeds and folds: the grid's, the drawn, or what Optuna found.

    A search looks at one fold and one seed only, and there at the validation patients: its
    objective is the classifier's validation loss with the largest number of added rows.

    Raises:
        TrialsFailed: no point of a search came to a score.
    """
    axes = study.sweep
    if axes.search == "grid" or not axes.space:
        return expand_arms(study)
    if axes.search == "random":
        return expand_arms(study, draw(axes.space, axes.samples, study.split.seed))

    def evaluate(points: Sequence[Mapping[str, Any]]) -> list[float | None]:
        variants = [expand_arms(study, [point]) for point in points]
        plans = [
            plan_study(study, slices, pretrain_slices, arms, given=given, pool=pool).only(
                0, axes.seeds[0], searched
            )
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
    found = [point for point, loss in best[: axes.keep] if loss is not None]
    if not found:  # an arm that nobody drew would stand in for them
        raise TrialsFailed(
            f"sweep.space: none of {len(best)} points that were tried came to a score; see the "
            f"failures (`medaug report {study.name}`), correct the space under another --name, or "
            f"`medaug resume {study.name}`"
        )
    return expand_arms(study, found)


def _validation_loss(outcome: Outcome) -> float | None:
    """Of a classifier's best epoch; None where a trial has made something else, or nothing."""
    return outcome.result.best_loss if isinstance(outcome.result, ClassifyResult) else None


def has_inputs(trial: TrialConfig, artifacts: Artifacts) -> bool:
    """Whether all that ``trial`` reads has been made."""
    return all(map(artifacts.has, trial.inputs))
