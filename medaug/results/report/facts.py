"""Facts of a run for its report: plain sentences and tables, with no path and no raw id."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy as np
from scipy.special import ndtr

from medaug.audit.leakage import leakage_of
from medaug.audit.sealed import unsealed_of
from medaug.results.goodput import Spent, elapsed, spent_by
from medaug.results.numbers import with_interval
from medaug.results.published import TITLES
from medaug.results.report.evidence import Evidence
from medaug.spec import Stage, StudySpec
from medaug.spec.per_class import UNIFORM, per_class_title
from medaug.store import Store
from medaug.units import duration

PRIVATE_KEYS = frozenset({"root", "storage", "uri", "weights"})
"""Settings that are places on the user's disks or network: such names may tell who a patient is."""
STAGES: tuple[Stage, ...] = ("draw", "segment", "extract", "generate", "classify")
ROLES = {
    "train": "trains",
    "val": "chooses epoch and threshold",
    "eval": "is scored",
}
PACKAGES = ("medaug", "torch", "ray", "mlflow", "scikit-learn", "numpy", "pyarrow")

_REST = r"[^\s:;,'\"()]"
_PLACE = re.compile(rf"\w+://\S+|(~?(?<![\w.])/|\.\.?/){_REST}+|{_REST}+/{_REST}+/{_REST}+")
"""An address, an absolute path, or a relative one of three parts or more."""


@dataclass(frozen=True)
class Table:
    """A table of text."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: bool = True
    """Whether all columns but the first hold numbers."""


def question(study: StudySpec) -> str:
    """The study in a sentence."""
    data, sweep, features = study.data, study.sweep, study.features
    *others, last = reversed(data.classes)
    what = f"images of {data.image_size} x {data.image_size} pixels"
    if features is not None:
        what = f"U-Net features (block {features.tap})"
    synthetic = ", ".join(study.arms)
    counts = ", ".join(f"{n:,}" for n in sweep.n_synthetic)
    text = (
        f"Does adding rows to the real training rows help a classifier"
        f" ({study.classifier.kind}) tell {', '.join(others)} from {last} on {what}?"
        f" Compared are the arms {synthetic}, with {counts} added rows, under"
        f" {len(sweep.seeds)} seeds and {study.split.folds} folds."
    )
    if sweep.per_class != (UNIFORM,):
        ways = ", ".join(map(per_class_title, sweep.per_class))
        text += f" Added rows are shared out among the classes by: {ways}."
    if sweep.train_rows:
        sizes = ", ".join("all" if n == "all" else f"{n:,}" for n in sweep.train_rows)
        text += f" The number of real training rows is varied too: {sizes}."
    if study.paper:
        text += f" It rebuilds study {study.paper} ({TITLES[study.paper]})."
    return text


def cohort(slices: Store) -> Table:
    """Patients and slices by class."""
    report = slices.manifest["extra"].get("ingest", {})
    patients = report.get("patients") or _patients_by_class(slices)
    rows = dict(zip(slices.classes, np.bincount(slices.labels).tolist(), strict=False))
    body = [(name, f"{patients.get(name, 0):,}", f"{rows.get(name, 0):,}") for name in rows]
    total = ("all", f"{sum(patients.values()):,}", f"{sum(rows.values()):,}")
    return Table(("class", "patients", "slices"), (*body, total))


def splits(slices: Store) -> Table | None:
    """Patients of each class and slices, by fold and role."""
    if slices.splits is None:
        return None
    rows = [
        (str(fold), *(_part(slices.split(role, fold)) for role in ROLES))
        for fold in range(len(slices.splits.folds))
    ]
    return Table(("fold", *ROLES.values()), tuple(rows), numeric=False)


def _part(slices: Store) -> str:
    """``7 LGG + 12 HGG patients, 114 slices``."""
    if not len(slices):
        return "nobody"
    counts = _patients_by_class(slices)
    patients = " + ".join(f"{counts[name]:,} {name}" for name in slices.classes)
    return f"{patients} patients, {plural(len(slices), 'slice')}"


def about_data(run: Evidence, slices: Store) -> list[str]:
    """What else is known of the data: rejects, notes, the sealed set, lineage, the ceiling."""
    report = slices.manifest["extra"].get("ingest", {})
    reasons = Counter(reason for _, reason in report.get("rejects", ()))
    n = sum(reasons.values())
    listed = "; ".join(f"“{without_paths(why)}” ({k})" for why, k in reasons.most_common(5))
    facts = [f"Left out: {plural(n, 'file')}{f', {listed}' if n else ''}."]
    facts += [
        f"Note of the reader: {without_paths(note).rstrip('.')}."
        for note in report.get("notes", ())
    ]
    facts += about_channels(run.study, slices)
    assert slices.splits is not None
    facts.append(test_set(run, len(slices.splits.test)))
    shared = _on_both_sides(slices)
    facts.append(
        "No patient is in two parts of a fold."
        if not shared
        else f"{shared} patients are on both sides of the split (it is by image, as published)."
    )
    facts.append(lineage(run))
    facts.append(leakage(run))
    if (top := ceiling(run.study)) is not None:
        facts.append(top)
    return facts


def about_channels(study: StudySpec, slices: Store) -> list[str]:
    """What the channels of an image are, and what an encoder makes of them; of one, nothing."""
    channels = slices.schema.shape[0]
    if channels == 1:
        return []
    named = study.data.sequences
    what = ", ".join(named) if len(named) == channels else "its sequences"
    if slices.manifest["extra"].get("colour"):
        what = "red, green and blue"
    facts = [f"Each image has {channels} channels, {what}, normalised one by one."]
    if study.image_encoder is not None and channels != 3:
        facts.append(f"The encoder sees the mean of the {channels} channels.")
    return facts


def lineage(run: Evidence) -> str:
    """Whether anything behind a classifier has seen the patients that it is scored on."""
    done = run.done("classify")
    proven = sum(trial.classified.lineage == "proven" for trial in done)
    text = (
        f"Lineage is proven for {proven} of {len(done)} finished classifiers: every store carries"
        " the patients that any model behind it was fitted on, and none of those is scored."
    )
    told = {
        "declared": "have rows of another tool, whose lineage is declared by the study",
        "unknown": "have rows of which nobody says what made them",
        "violated as published": "stand on a model that has seen scored patients",
    }
    for kind, what in told.items():
        if n := sum(trial.classified.lineage == kind for trial in done):
            text += f" {n} {what}."
    return text


def test_set(run: Evidence, patients: int) -> str:
    """Whether there is a sealed test set, and what came of opening it."""
    if not patients:
        return "No test set is sealed: the scored patients of the folds are the only evidence."
    if (record := unsealed_of(run.folder)) is None:
        return f"Sealed test set: {patients} patients, read by nothing in this report."
    tried = record["configurations_tried"]
    text = f"Test set of {patients} patients, opened {record['when']} after {tried} configurations."
    for row in record["rows"]:
        score = row["scores"]["balanced_accuracy"]
        bounds = (math.nan if score[key] is None else score[key] for key in ("mean", "low", "high"))
        text += f" {row['configuration']}: balanced accuracy {with_interval(*bounds)}."
    if run.board.tried > tried:
        text += " What was tried since was no longer blind to it."
    return text


def leakage(run: Evidence) -> str:
    """What the scan for copies between patients has found."""
    if (found := leakage_of(run.folder)) is None:
        return "Near-copies between patients: no scan is on record for this run."
    text = found.summary()
    advice = " Scores across those splits are too good." if found.folds else ""
    return f"{text[0].upper()}{text[1:]}.{advice}"


def ceiling(study: StudySpec) -> str | None:
    """The best that anything can reach on a phantom cohort; None for real data."""
    if study.data.layout != "phantom":
        return None
    d_prime = study.data.phantom.d_prime
    text = "These patients are simulated (phantoms). "
    if d_prime == 0:
        return text + "d′ is 0, the null control: the true balanced accuracy of everything is 0.5."
    return text + (
        f"Their class shows in one latent with d′ = {d_prime:g}, so no classifier can exceed a"
        f" patient-level balanced accuracy of Φ(d′/2) = {ndtr(d_prime / 2):.3f}."
    )


def time_spent(run: Evidence) -> Table | None:
    """Seconds by stage and bucket; None before any epoch."""
    rows = []
    for name, trials in [
        ("pre-train", run.of_stage("segment", pretraining=True)),
        *((stage, run.of_stage(stage)) for stage in STAGES),
    ]:
        spent = spent_by(trials)
        if spent.trials:
            times = [elapsed(trial.epochs) for trial in trials if trial.epochs]
            wall = max(end for _, end in times) - min(begin for begin, _ in times)
            rows.append(_time_row(name, spent, wall))
    if not rows:
        return None
    everything = spent_by(run.trials.values())
    times = [elapsed(trial.epochs) for trial in run.trials.values() if trial.epochs]
    wall = max(end for _, end in times) - min(begin for begin, _ in times)
    rows.append(_time_row("all", everything, wall))
    header = (
        *("stage", "trials", "start to end", "in all trials", "training", "saving"),
        *("redone", "waiting", "goodput"),
    )
    return Table(header, tuple(rows))


def state(run: Evidence) -> Table | None:
    """Trials by stage and how they ended; None where all are done."""
    counts = {stage: Counter(t.status for t in run.of_stage(stage)) for stage in STAGES}
    statuses = sorted({status for counter in counts.values() for status in counter} - {"done"})
    to_come = [*_stages_of(run.study), *(["draw"] if counts["draw"] else [])]
    expected = [stage for stage in STAGES if stage in to_come]
    if not statuses and all(counts[stage] for stage in expected):
        return None
    rows = [
        (stage, *(str(counts[stage][status]) for status in ("done", *statuses)))
        if counts[stage]
        else (stage, "not begun", *("" for _ in statuses))
        for stage in expected
    ]
    return Table(("stage", "done", *statuses), tuple(rows))


def failures(run: Evidence) -> list[str]:
    """What ended trials that failed or diverged, the commonest first."""
    errors = Counter(
        f"{trial.config.title}: {trial.error or getattr(trial.result, 'why', '')}"
        for trial in run.trials.values()
        if trial.status in ("failed", "diverged")
    )
    return [without_paths(f"{error} ({n} trials)") for error, n in errors.most_common(8)]


def versions() -> str:
    """Of medaug and what it stands on, where the report was written."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def ended(run: Evidence) -> str:
    """When the last epoch was safe, or nothing."""
    last = max((trial.ended for trial in run.trials.values()), default=0.0)
    return datetime.fromtimestamp(last, UTC).strftime("%Y-%m-%d %H:%M UTC") if last else ""


def plural(n: int, noun: str) -> str:
    """``1 file``, ``2,000 files``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def public(value: Any) -> Any:
    """A study's settings without its places."""
    if isinstance(value, Mapping):
        return {k: public(inner) for k, inner in value.items() if k not in PRIVATE_KEYS}
    if isinstance(value, list | tuple):
        return [public(inner) for inner in value]
    return without_paths(value) if isinstance(value, str) else value


def without_paths(text: str) -> str:
    """``text`` with paths and addresses left out: they may hold a patient's name."""
    return _PLACE.sub("(place)", text)


def _stages_of(study: StudySpec) -> Sequence[str]:
    """What has to come; whether anything is drawn, only the trials tell."""
    return STAGES[1:] if study.segmenter is not None else ("generate", "classify")


def _time_row(name: str, spent: Spent, wall: float) -> tuple[str, ...]:
    buckets = (spent.wall, spent.good, spent.saving, spent.redone, spent.waiting)
    return (
        *(name, f"{spent.trials:,}", duration(wall)),
        *(duration(seconds) for seconds in buckets),
        f"{spent.goodput:.0%}",
    )


def _patients_by_class(store: Store) -> dict[str, int]:
    """Each patient once, in the highest of its rows' classes."""
    names, index = np.unique(store.patients, return_inverse=True)
    highest = np.full(len(names), -1)
    np.maximum.at(highest, index, store.labels)
    return {name: int((highest == k).sum()) for k, name in enumerate(store.classes)}


def _on_both_sides(slices: Store) -> int:
    """Patients with rows in two parts of one fold."""
    assert slices.splits is not None
    shared: set[str] = set()
    for fold in range(len(slices.splits.folds)):
        parts = [set(slices.split(role, fold).patients.tolist()) for role in ROLES]
        shared |= (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])
    return len(shared)
