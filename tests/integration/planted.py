"""Whole studies of a known world, in this process: patients are drawn, so the truth is known.

An image is a point of a few dimensions on fixed random patterns, plus pixel noise. The classes are
Gaussians with one covariance, a patient's slices share most of theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medaug.experiment import output_name, run_bundle
from medaug.given import bring_given
from medaug.metrics.board import Board
from medaug.plan.sizes import held_back
from medaug.plan.trials import Plan, plan_study
from medaug.results.configuration import by_configuration, row_of
from medaug.results.leaderboard import leaderboard_of
from medaug.results.records import read_trials
from medaug.results.rows import Leaderboard, Row
from medaug.spec import StudySpec, TrialConfig, build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import ClassifyResult, HeldOut, TrialResult
from medaug.sweep.display import Silent
from medaug.train.world import World
from tests.experiment.in_process import InProcess
from tests.store.cohorts import SLICES

SIDE = 16
CLASSES = ("A", "B", "C")


@dataclass(frozen=True)
class Truth:
    """Classes at the corners of a simplex, ``apart`` standard deviations of a patient from one
    another, in ``dimensions`` of which only the first few tell them apart."""

    per_class: tuple[int, ...]
    apart: float = 2.2
    dimensions: int = 40
    slices: int = 2
    shared: float = 0.8
    """Part of a slice's variance that the patient's other slices share."""

    def images(
        self, rng: np.random.Generator, per_class: tuple[int, ...] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(patients, slices, side, side) float32 and their classes (patients,), mixed."""
        counts = per_class or self.per_class
        label = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        n, q = len(label), self.dimensions
        corners = np.eye(len(counts), q) * self.apart / np.sqrt(2)
        of_patient = np.sqrt(self.shared) * rng.standard_normal((n, 1, q))
        of_slice = np.sqrt(1 - self.shared) * rng.standard_normal((n, self.slices, q))
        z = corners[label][:, None] + of_patient + of_slice
        patterns = np.linalg.qr(np.random.default_rng(99).standard_normal((SIDE**2, q)))[0].T
        x = z @ patterns * 300 + 20 * rng.standard_normal((n, self.slices, SIDE**2)) + 500
        return x.reshape(n, self.slices, SIDE, SIDE).clip(0, 1000).astype(np.float32), label


def planted(storage: Path, truth: Truth, **changes: Any) -> StudySpec:
    """Two folds, components of pixels, a probe, all automatic controls."""
    body: dict[str, Any] = {
        "name": "planted",
        "data": {"image_size": SIDE, "classes": CLASSES[: len(truth.per_class)]},
        "split": {"folds": 2},
        "encoder": {
            **{"kind": "pixels_pca", "size": SIDE, "components": truth.dimensions},
            "intensity": [0, 1000],
        },
        "classifier": {"kind": "probe"},
        "sweep": {"n_synthetic": [120], "seeds": [0]},
        "storage": str(storage),
    }
    return build_study(body | changes, ARM_CONFIGS)


def write_rows(path: Path, x: np.ndarray, label: np.ndarray) -> Path:
    """Rows as another tool leaves them, for the arm ``folder``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=x.astype(np.float32), label=label)
    return path


def plan_here(study: StudySpec) -> Plan:
    """The plan without the linear models on the slices themselves, which would be the same again.

    Raises:
        UserError: rows that are brought are refused.
    """
    folder = study.storage / study.name
    folder.mkdir(parents=True, exist_ok=True)
    sweep = InProcess(study.storage)
    given, _ = bring_given(study, SLICES, folder, Silent(), sweep)  # type: ignore[arg-type]
    left = held_back(study, Artifacts(study.storage).open_store(SLICES))
    plan = plan_study(study, SLICES, held_back=left, given=given)
    classify = tuple(trial for trial in plan.classify if not trial.linear)
    read = {name for trial in (*plan.generate, *classify) for name in trial.inputs}
    extract = tuple(trial for trial in plan.extract if output_name(trial) in read)
    return Plan((), (), extract, plan.generate, classify)


def run_planted(
    study: StudySpec, scored: Callable[[np.ndarray], np.ndarray] | None = None
) -> Leaderboard:
    """Every trial of the study on the slices that are there, and its leaderboard.

    ``scored``: patients' pseudonyms -> the labels that they are scored by, where those that were
    trained on are wrong.
    """
    plan = plan_here(study)
    folder = study.storage / study.name
    for config, result in run_bundle(plan.trials(), World.single(), study.storage):
        assert result.status == "done", result
        if scored is not None and isinstance(result, ClassifyResult):
            result = _rescored(result, scored)
        write_result(folder, config, result)
    (folder / "study.json").write_text(json.dumps(study.canonical()))
    return leaderboard_of(folder)


def write_result(folder: Path, config: TrialConfig, result: TrialResult) -> None:
    place = folder / "trials" / config.key
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(config.model_dump_json())
    (place / "result.json").write_text(result.model_dump_json())


def beside(study: StudySpec, kinds: Collection[str], means: bool = False) -> Leaderboard:
    """The leaderboard of the same results if arms of these kinds had been all, and the
    classifiers that the protocol adds only with ``means``."""
    folder = study.storage / study.name
    part = study.storage / f"part-{'-'.join(sorted(kinds))}-{means}"
    for record in read_trials(folder):
        config = record.config
        if config.stage == "classify":
            by_mean = record.classify.classifier_name in ("class_mean", "cosine_mean")
            if record.classify.kind not in kinds or (by_mean and not means):
                continue
        assert record.result is not None
        write_result(part, config, record.result)
    (part / "study.json").write_text((folder / "study.json").read_text())
    return leaderboard_of(part)


def board_of(study: StudySpec) -> Board:
    """The joint scores of all configurations of a study that has run."""
    trials = read_trials(study.storage / study.name)
    classify = (trial for trial in trials if trial.config.stage == "classify")
    found = by_configuration(classify, len(study.data.classes))
    hits = {row_of(each, study, {}).title: each.hits for each in found}
    return Board({title: one for title, one in hits.items() if one is not None})


def row_of_arm(board: Leaderboard, arm: str) -> Row:
    (row,) = [row for row in board.rows if row.arm == arm]
    return row


def shown(row: Row) -> str:
    """``+.050 [+.010, +.090] over duplicate +120``."""
    gain = f"{row.gain:+.3f} [{row.gain_low:+.3f}, {row.gain_high:+.3f}]"
    return f"{gain} over {row.reference}"


def _rescored(result: ClassifyResult, scored: Callable[[np.ndarray], np.ndarray]) -> ClassifyResult:
    said = result.predictions
    names = said.patient_names()
    right = HeldOut.of(names, said.slice.array(), scored(names), said.probability.array())
    return result.model_copy(update={"predictions": right})
