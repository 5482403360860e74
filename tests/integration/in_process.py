"""A study's trials one after another in this process: every stage, without Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medaug.data.layouts import read_cohort
from medaug.data.slices import ingest, ingest_signature
from medaug.experiment import run_trial
from medaug.plan.trials import plan_study
from medaug.results.leaderboard import leaderboard_of
from medaug.results.rows import Leaderboard
from medaug.spec import StudySpec
from medaug.storage.trial_folder import TrialFolder, write_json
from medaug.store import Store
from medaug.train.world import World


@dataclass(frozen=True)
class Ended:
    """A trial and its result."""

    config: Any
    result: Any


def run_here(study: StudySpec) -> tuple[Leaderboard, list[Ended], Store]:
    """The study's leaderboard, its trials' results in the order they ran, and its slices.

    The linear models that stand beside every study are left out. It pre-trains no U-Net on phantoms: ``segmenter.pretrain`` has to be null.
    """
    cohort = read_cohort(study.data)
    slices = f"slices-{ingest_signature(cohort, study.data, study.split)}"
    path = study.storage / "stores" / slices
    ingest(study.data, study.split, path, cohort=cohort, workers=1)
    folder = study.storage / study.name
    folder.mkdir()
    write_json(folder / "study.json", study.canonical())
    results = []
    for _, trials in plan_study(study, slices).waves():
        for config in trials:
            beside = getattr(config, "linear", False) or getattr(config, "encoder", None)
            if beside and study.image_encoder is None:
                continue
            trial = TrialFolder(folder, config.key)
            trial.claim(config)
            *_, last = run_trial(config, World.single(), study.storage)
            trial.finish(last.result)
            results.append(Ended(config, last.result))
    assert {each.result.status for each in results} == {"done"}
    return leaderboard_of(folder), results, Store.open(path)
