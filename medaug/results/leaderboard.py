"""The honest leaderboard: what may be ranked, what each row has shown, and what it has not.

A row is one configuration over all its seeds and folds. It ranks by the lower bound of its paired,
patient-level gain in balanced accuracy over the best arm without synthetic data; what cannot be
compared is not ranked, and says why (SCIENCE, "Leaderboard: how a row ranks").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medaug.audit.leakage import leakage_of
from medaug.metrics.hits import hits_of
from medaug.metrics.predictions import Predictions
from medaug.metrics.uncertainty import gain, interval, statistic
from medaug.ownership.seals import planned
from medaug.results.records import TrialRecord, predictions_of, read_study, read_trials
from medaug.spec import ClassifyTrial, StudySpec
from medaug.spec.trial import configuration_title
from medaug.storage.results import ClassifyResult

MIN_SEEDS = 3
RECALL_FLOOR = 0.2
"""A class recall below this is called a collapse onto the other class."""
CONTROLS = ("duplicate", "classical")
"""Arm kinds that every synthetic row must be compared with."""

NO_GAIN = "no demonstrated gain"
CHANCE = "not better than chance"
COLLAPSE = "one-class collapse"
REFERENCE = "reference"
LEAK = "near-copies across the split"


@dataclass(frozen=True)
class Row:
    """One configuration: an arm at one point of its grid with one number of added rows."""

    arm: str
    kind: str
    synthetic: bool
    point: Mapping[str, Any]
    """Values of the arm's grid axes, for example ``{"ngf": 64, "ndf": 64}``."""
    n_synthetic: int
    train_rows: int | None
    replicates: int
    expected: int
    patients: int
    mean: float
    """Balanced accuracy, mean over replicates; NaN without any."""
    low: float
    high: float
    """95 % interval: bootstrap crossed over patients and seeds."""
    gain: float = math.nan
    gain_low: float = math.nan
    gain_high: float = math.nan
    reference: str | None = None
    """The configuration that the gain is measured against."""
    scores: Mapping[str, float] = field(default_factory=dict)
    quality: Mapping[str, float] = field(default_factory=dict)
    device_hours: float = 0.0
    """Classifiers and generators, over all replicates."""
    flags: tuple[str, ...] = ()
    rank: int | None = None
    trials: tuple[str, ...] = ()
    """Keys of the classifiers' trials, finished or not."""

    @property
    def title(self) -> str:
        """For people: ``acgan ngf=64 ndf=64 +1200``."""
        return configuration_title(self.arm, self.point, self.n_synthetic, self.train_rows)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; numbers that do not exist are null."""
        body = asdict(self) | {"title": self.title, "flags": list(self.flags)}
        return _without_nan(body)


@dataclass(frozen=True)
class Leaderboard:
    """All rows of a run, best first, then what is not rankable."""

    run: str
    protocol: str
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    tried: int
    """Configurations scored: the more were tried, the less the best one's lead means."""
    unfinished: int = 0

    @property
    def reference(self) -> Row | None:
        """The best configuration without synthetic data: of several (one for each training-set
        size), that of the most data."""
        found = [row for row in self.rows if REFERENCE in row.flags]
        controls = [row for row in self.rows if not row.synthetic and row.replicates]
        by_mean = max(controls, key=lambda row: row.mean, default=None)
        return max(found, key=lambda row: row.train_rows or 0, default=by_mean)

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "protocol": self.protocol,
            "classes": list(self.classes),
            "configurations_tried": self.tried,
            "trials_unfinished": self.unfinished,
            "rows": [row.to_json() for row in self.rows],
        }


def leaderboard_of(folder: Path) -> Leaderboard:
    """The leaderboard of the run in ``folder``, from its trials' stored predictions.

    Raises:
        UserError: there is no such run.
    """
    study = read_study(folder)
    trials = list(read_trials(folder))
    makers = {
        f"rows-{trial.config.key}": trial for trial in trials if trial.config.stage == "generate"
    }
    classify = (trial for trial in trials if trial.config.stage == "classify")
    classes = study.data.classes
    groups = [_Group.of(group, len(classes)) for group in _by_configuration(classify).values()]
    expected = study.split.folds * len(study.sweep.seeds)
    rows = _judge([_row(group, expected, makers, classes) for group in groups], groups, study)
    if (leakage := leakage_of(folder)) is not None and leakage.folds:
        rows = [replace(row, flags=(*row.flags, LEAK)) for row in rows]
    unfinished = sum(trial.status in ("unfinished", "failed") for trial in trials)
    unfinished += len(planned(folder) - {trial.config.key for trial in trials})  # no trace of them
    return Leaderboard(
        folder.name,
        study.protocol,
        classes,
        tuple(rows),
        tried=len(rows),
        unfinished=unfinished,
    )


@dataclass(frozen=True)
class _Group:
    """The trials of one configuration."""

    trials: tuple[TrialRecord, ...]
    done: tuple[TrialRecord, ...]
    table: Predictions | None

    @staticmethod
    def of(trials: Sequence[TrialRecord], n_classes: int) -> _Group:
        """Of two trials of one replicate the later one counts: the data have changed since."""
        by_age = sorted(trials, key=lambda trial: (trial.ended, trial.config.key))
        newest = {trial.replicate: trial for trial in by_age}
        # Not in the order in which they ended: a run that was disturbed adds up the same way.
        latest = tuple(newest[replicate] for replicate in sorted(newest))
        done = tuple(trial for trial in latest if trial.status == "done")
        return _Group(latest, done, predictions_of(done, n_classes) if done else None)

    @property
    def about(self) -> ClassifyTrial:
        """One of its trials: what they have in common is to be had from any."""
        return self.trials[0].classify


def _by_configuration(trials: Iterable[TrialRecord]) -> dict[tuple[Any, ...], list[TrialRecord]]:
    groups: dict[tuple[Any, ...], list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault(trial.classify.configuration, []).append(trial)
    return groups


def _row(
    group: _Group, expected: int, makers: Mapping[str, TrialRecord], classes: Sequence[str]
) -> Row:
    about = group.about
    row = Row(
        arm=about.arm,
        kind=about.kind,
        synthetic=about.synthetic,
        n_synthetic=about.n_synthetic,
        train_rows=about.train_rows,
        point=about.point,
        replicates=len(group.done),
        expected=expected,
        patients=0,
        mean=math.nan,
        low=math.nan,
        high=math.nan,
        trials=tuple(trial.config.key for trial in group.trials),
    )
    if group.table is None:
        return row
    balanced = interval(group.table)
    names = sorted({trial.classify.rows or "" for trial in group.done})
    made = [makers[name] for name in names if name in makers]
    spent = sum(trial.device_seconds for trial in (*group.done, *made))
    return replace(
        row,
        patients=len(group.table.patients),
        mean=balanced.mean,
        low=balanced.low,
        high=balanced.high,
        scores=_means(trial.scores for trial in group.done) | _pooled_scores(group.table, classes),
        quality=_means(trial.scores for trial in made),
        device_hours=spent / 3600,
    )


def _pooled_scores(table: Predictions, classes: Sequence[str]) -> dict[str, float]:
    """Scores over the rows of all folds, mean over the seeds, as the balanced accuracy is."""
    metrics = {name: name for name in ("accuracy", "balanced_accuracy", "macro_f1", "mcc")}
    metrics |= {f"recall/{name}": f"recall_class{k}" for k, name in enumerate(classes)}
    if len(classes) == 2:
        metrics |= {"auroc": "auroc", "auprc": "auprc"}
    scores = {name: _score(table, metric) for name, metric in metrics.items()}
    scores["patient_balanced_accuracy"] = float(hits_of(table).totals.mean())
    return {name: value for name, value in scores.items() if math.isfinite(value)}


def _score(table: Predictions, metric: str) -> float:
    everyone = np.ones((1, len(table.patients)))
    return float(statistic(table, metric)(everyone).mean())


def _means(dictionaries: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each key over the dictionaries that have it as a finite number."""
    values: dict[str, list[float]] = {}
    for dictionary in dictionaries:
        for key, value in dictionary.items():
            if isinstance(value, int | float) and math.isfinite(value):
                values.setdefault(key, []).append(value)
    return {key: float(np.mean(found)) for key, found in values.items()}


def _judge(rows: Sequence[Row], groups: Sequence[_Group], study: StudySpec) -> list[Row]:
    """Gains, flags and ranks of all rows; rows come back best first."""
    judged = []
    for row, group in zip(rows, groups, strict=True):
        peers = [
            (other, theirs)
            for other, theirs in zip(rows, groups, strict=True)
            if other.train_rows == row.train_rows and theirs.table is not None
        ]
        reasons = _gate(row, group, peers, study)
        reference = _reference(peers)
        if reference is not None and group.table is not None:
            row = _with_gain(row, group, *reference)
        flags = (*(f"not rankable: {why}" for why in reasons), *_flags(row, study))
        judged.append(replace(row, flags=flags))
    ranked = sorted((row for row in judged if _rankable(row)), key=_order)
    rest = sorted((row for row in judged if not _rankable(row)), key=lambda row: row.title)
    numbered = [replace(row, rank=place) for place, row in enumerate(ranked, start=1)]
    return [*numbered, *rest]


def _gate(
    row: Row,
    group: _Group,
    peers: Sequence[tuple[Row, _Group]],
    study: StudySpec,
) -> list[str]:
    """Why the row cannot be compared with the others; empty when it can."""
    mine = [trial.classified for trial in group.done]
    reasons = []
    if study.protocol != "honest":
        reasons.append(f"protocol as_published{_seen_before(mine)}")
    if row.replicates < row.expected:
        ends = {trial.status for trial in group.trials} - {"done"}
        reasons.append(
            f"{row.replicates} of {row.expected} replicates"
            + (f" ({', '.join(sorted(ends))})" if ends else "")
        )
    if (n := len(study.sweep.seeds)) < MIN_SEEDS:
        reasons.append(f"{n} seed{'s' * (n != 1)}, fewer than {MIN_SEEDS}")
    everyone = [t.classified for _, other in peers for t in other.done]
    if len({result.split for result in everyone}) > 1:
        reasons.append("not the same split as the other rows")
    if doubts := {result.lineage for result in mine} - {"proven"}:
        violated = doubts == {"violated as published"}
        reasons.append(f"lineage {'violated as published' if violated else 'not proven'}")
    complete = [(other, theirs) for other, theirs in peers if other.replicates == other.expected]
    unaugmented = [steps for other, t in complete if other.kind == "none" for steps in _steps(t)]
    if not unaugmented:
        reasons.append("no complete arm 'none' to compare with")
    elif not _steps(group) <= set(unaugmented):
        reasons.append("not the same number of optimiser steps as arm 'none'")
    if row.synthetic:
        have = {other.kind for other, _ in complete if other.n_synthetic == row.n_synthetic}
        missing = [kind for kind in CONTROLS if kind not in have]
        if missing:
            reasons.append(f"no complete {' and no '.join(missing)} arm with +{row.n_synthetic}")
    return reasons


def _seen_before(results: Sequence[ClassifyResult]) -> str:
    """What a published protocol let its trials see of the patients that they are scored on."""
    ways = {
        "chose": "chose epoch and threshold",
        "trained_on": "were trained on",
        "seen_by_generator": "were seen by the generator",
    }
    exposures = [result.exposure for result in results if result.exposure is not None]
    said = []
    for way, what in ways.items():
        if seen := max((getattr(each, way).patients for each in exposures), default=0):
            said.append(f"{seen} {what}")
    if not said:
        return ""
    return f": of {exposures[0].scored.patients} test patients {', '.join(said)}"


def _steps(group: _Group) -> set[tuple[int, int]]:
    """(fold, budget of optimiser steps) of each replicate."""
    return {(t.config.fold, t.classified.steps) for t in group.done}


def _reference(peers: Sequence[tuple[Row, _Group]]) -> tuple[Row, _Group] | None:
    """The complete configuration without synthetic data that has the highest mean."""
    controls = [
        (row, group) for row, group in peers if not row.synthetic and row.replicates == row.expected
    ]
    return max(controls, key=lambda pair: (pair[0].mean, -pair[0].n_synthetic), default=None)


def _with_gain(row: Row, group: _Group, best: Row, theirs: _Group) -> Row:
    assert group.table is not None
    assert theirs.table is not None
    if group is theirs:
        return replace(row, gain=0.0, gain_low=0.0, gain_high=0.0, reference=row.title)
    if row.replicates < row.expected or _splits(group) != _splits(theirs):
        return row  # other patients or replicates than the reference has: nothing to pair
    paired = gain(group.table, theirs.table)
    return replace(
        row, gain=paired.mean, gain_low=paired.low, gain_high=paired.high, reference=best.title
    )


def _splits(group: _Group) -> set[str]:
    return {trial.classified.split for trial in group.done}


def _flags(row: Row, study: StudySpec) -> list[str]:
    """What the row's own numbers say against it."""
    if not row.replicates:
        return []
    recalls = [row.scores.get(f"recall/{name}", math.nan) for name in study.data.classes]
    flags = verdict(row.low, recalls)
    if row.reference == row.title:
        flags.append(REFERENCE)
    elif not row.gain_low > 0:
        flags.append(NO_GAIN)
    return flags


def verdict(low: float, recalls: Sequence[float]) -> list[str]:
    """The floor: ``low`` is the lower bound of balanced accuracy, one recall for each class."""
    flags = []
    if not low > 1 / len(recalls):
        flags.append(CHANCE)
    if any(recall < RECALL_FLOOR for recall in recalls):
        flags.append(COLLAPSE)
    return flags


def _rankable(row: Row) -> bool:
    return not any(flag.startswith("not rankable") for flag in row.flags)


def _order(row: Row) -> tuple[float, float, int, float]:
    """Rows above the floor first, then by gain; ties go to less data, then to less time."""
    below_floor = CHANCE in row.flags or COLLAPSE in row.flags
    known = row.gain_low if math.isfinite(row.gain_low) else -math.inf
    return below_floor, -known, row.n_synthetic, row.device_hours


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
