"""The trials of one configuration, and what they say without a look at the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from medaug.metrics.hits import Hits, hits_of
from medaug.metrics.predictions import Predictions
from medaug.metrics.uncertainty import statistic
from medaug.results.records import TrialRecord, predictions_of
from medaug.results.rows import MORE_REAL, Row
from medaug.spec import ClassifyTrial, LinearSpec, StudySpec
from medaug.spec.per_class import per_class_title
from medaug.storage.results import GenerateResult

WITHOUT_CHANCE = frozenset({"none", "class_weights", "logit_adjust", MORE_REAL})
"""Kinds of arm whose rows another seed would not change: a solved classifier then knows no
chance but the draw of its training set."""


@dataclass(frozen=True)
class Configuration:
    """All trials of one row of the leaderboard, over its seeds, draws and folds."""

    trials: tuple[TrialRecord, ...]
    done: tuple[TrialRecord, ...]
    table: Predictions | None

    @staticmethod
    def of(trials: Sequence[TrialRecord], n_classes: int) -> Configuration:
        """Of two trials of one replicate the later one counts: the data have changed since."""
        by_age = sorted(trials, key=lambda trial: (trial.ended, trial.config.key))
        newest = {trial.replicate: trial for trial in by_age}
        # Not in the order in which they ended: a run that was disturbed adds up the same way.
        latest = tuple(newest[replicate] for replicate in sorted(newest))
        done = tuple(trial for trial in latest if trial.status == "done")
        return Configuration(latest, done, predictions_of(done, n_classes) if done else None)

    @property
    def about(self) -> ClassifyTrial:
        """One of its trials: what they have in common is to be had from any."""
        return self.trials[0].classify

    @property
    def without_chance(self) -> bool:
        """Whether another seed would change nothing: a solved classifier on real rows alone."""
        return isinstance(self.about.classifier, LinearSpec) and self.about.kind in WITHOUT_CHANCE

    @cached_property
    def hits(self) -> Hits | None:
        return hits_of(self.table) if self.table is not None else None

    @property
    def splits(self) -> set[str]:
        return {trial.classified.split for trial in self.done}

    @property
    def steps(self) -> set[tuple[int, int]]:
        """(fold, budget of optimiser steps) of each replicate; none where nothing is trained."""
        if isinstance(self.about.classifier, LinearSpec):
            return set()
        return {(trial.config.fold, trial.classified.steps) for trial in self.done}

    def expected(self, study: StudySpec) -> int:
        """Replicates that the study plans: one seed is enough where there is no chance."""
        seeds = len(study.sweep.seeds)
        if self.without_chance:
            seeds = min(seeds, len({trial.config.seed for trial in self.trials}))
        return study.split.folds * seeds * draws_of(study, self.about.train_rows)


def draws_of(study: StudySpec, train_rows: int | None) -> int:
    """Draws of a training set of so many rows; there is one draw of all rows."""
    return study.sweep.draws if train_rows is not None else 1


def by_configuration(trials: Iterable[TrialRecord], n_classes: int) -> list[Configuration]:
    """The classifiers' trials, replicates of one configuration together."""
    groups: dict[tuple[Any, ...], list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault(trial.classify.configuration, []).append(trial)
    return [Configuration.of(group, n_classes) for group in groups.values()]


def row_of(found: Configuration, study: StudySpec, makers: Mapping[str, TrialRecord]) -> Row:
    """The row of a configuration without its interval; ``makers``: generators by their rows."""
    about, classes = found.about, study.data.classes
    names = sorted({trial.classify.rows or "" for trial in found.done})
    made = [makers[name] for name in names if name in makers]
    keys = {trial.generate.generator_key for trial in made}  # trained when fewer rows were wanted
    behind = [trial for trial in makers.values() if trial.generate.generator_key in keys]
    spent = sum(trial.device_seconds for trial in (*found.done, *behind))
    scores = dict(_means(trial.scores for trial in found.done))
    if found.table is not None and found.hits is not None:
        scores |= _pooled_scores(found.table, classes)
        scores["balanced_accuracy"] = float(found.hits.totals.mean())
        recalls = zip(classes, found.hits.recalls(), strict=True)
        scores |= {f"recall/{name}": float(value) for name, value in recalls}
        scores = {name: value for name, value in scores.items() if math.isfinite(value)}
    return Row(
        arm=about.arm,
        kind=about.kind,
        synthetic=about.synthetic,
        point=about.point,
        n_synthetic=about.n_synthetic,
        train_rows=about.train_rows,
        per_class=per_class_title(about.per_class),
        classifier=about.classifier_name,
        linear=about.linear,
        control=about.control,
        draws=draws_of(study, about.train_rows),
        real_rows=_real_rows(found),
        replicates=len(found.done),
        expected=found.expected(study),
        patients=len(found.hits.patients) if found.hits else 0,
        mean=float(found.hits.totals.mean()) if found.hits else math.nan,
        low=math.nan,
        high=math.nan,
        scores=scores,
        quality=_means(trial.scores for trial in made),
        below_gaussian=_below_gaussian(made),
        collapsed=_collapsed(made),
        device_hours=spent / 3600,
        trials=tuple(trial.config.key for trial in found.trials),
    )


def _collapsed(makers: Sequence[TrialRecord]) -> str:
    """How many of the generators have collapsed, of how many; nothing where none has."""
    fallen: dict[str, bool] = {}
    for trial in makers:
        result, key = trial.result, trial.generate.generator_key
        if isinstance(result, GenerateResult):
            fallen[key] = fallen.get(key, False) or result.collapsed is not None
    return f"{sum(fallen.values())} of {len(fallen)}" if any(fallen.values()) else ""


def _below_gaussian(makers: Sequence[TrialRecord]) -> bool:
    """Whether TSTR is lower than the Gaussian's of the same fold: on average over the folds, by
    more than the standard error of that."""
    by_fold: dict[int, list[float]] = {}
    for trial in makers:
        if {"tstr", "tstr_gaussian"} <= trial.scores.keys():
            lead = trial.scores["tstr"] - trial.scores["tstr_gaussian"]
            by_fold.setdefault(trial.config.fold, []).append(lead)
    if not by_fold:
        return False
    leads = [float(np.mean(each)) for each in by_fold.values()]
    error = float(np.std(leads, ddof=1)) / math.sqrt(len(leads)) if len(leads) > 1 else 0.0
    return float(np.mean(leads)) + error < 0


def _real_rows(found: Configuration) -> int | None:
    if not found.done:
        return None
    more = found.about.n_synthetic if found.about.kind == MORE_REAL else 0
    return round(float(np.mean([trial.classified.train_rows for trial in found.done]))) + more


def _pooled_scores(table: Predictions, classes: Sequence[str]) -> dict[str, float]:
    """Scores of slices over all folds, mean over the replicates."""
    metrics = {name: name for name in ("accuracy", "macro_f1", "mcc")}
    metrics["slice_balanced_accuracy"] = "balanced_accuracy"
    if len(classes) == 2:
        metrics |= {"auroc": "auroc", "auprc": "auprc"}
    everyone = np.ones((1, len(table.patients)))
    return {
        name: float(statistic(table, metric)(everyone).mean()) for name, metric in metrics.items()
    }


def _means(dictionaries: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each key over the dictionaries that have it as a finite number."""
    values: dict[str, list[float]] = {}
    for dictionary in dictionaries:
        for key, value in dictionary.items():
            if isinstance(value, int | float) and math.isfinite(value):
                values.setdefault(key, []).append(value)
    return {key: float(np.mean(found)) for key, found in values.items()}
