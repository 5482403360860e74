"""The smallest gain that a study would see, before anything has been trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medaug.metrics.power import assumed_components, smallest_visible_gain, with_replicates
from medaug.metrics.variance import Components
from medaug.plan.trials import Plan
from medaug.spec import StudySpec

MOST_EQUAL = 5
"""Controls that are taken for equally good; more make little difference."""


@dataclass(frozen=True)
class Power:
    """What a study of these sizes shows in eight of ten repetitions."""

    gain: float
    """The smallest gain in balanced accuracy of which the leaderboard would say ``gain``."""
    patients: Mapping[str, int]
    """That are scored, by class."""
    seeds: int
    draws: int
    rows: int
    """Configurations with synthetic data, whose bounds hold at once."""
    pilot: str | None = None
    """The run whose gains' variance was taken; None: an assumption."""

    @property
    def text(self) -> str:
        """One sentence for a terminal."""
        numbers = f"{sum(self.patients.values()):,} patients, {self.seeds} seeds"
        numbers += f", {self.draws} draws" if self.draws > 1 else ""
        return (
            f"a gain of +{self.gain:.3f} would be seen in 8 of 10 such studies ({numbers},"
            f" {self.rows} rows with synthetic data; {self._basis})"
        )

    @property
    def _basis(self) -> str:
        if self.pilot is not None:
            return f"by how much the gains of {self.pilot} vary"
        return "assumed: two rows differ on 15 % of the patients; --pilot NAME takes a run's own"

    def to_json(self) -> dict[str, Any]:
        return {"smallest_visible_gain": self.gain, **asdict(self)} | {"probability": 0.8}


def power_of(
    study: StudySpec,
    patients: Sequence[tuple[int, int]],
    plan: Plan,
    pilot: tuple[str, Components] | None = None,
) -> Power | None:
    """For ``patients``, (class, slices) of each that the study takes; None where nothing is
    compared, or a class has fewer than two patients to score.

    ``pilot``: a run's name, and the components of a gain there; without one they are assumed.
    """
    scored = _scored(study, patients)
    synthetic = {trial.configuration for trial in plan.classify if trial.synthetic}
    kinds = {trial.kind for trial in plan.classify if not trial.synthetic} - {"more_real"}
    if not synthetic or not kinds or min(scored.values()) < 2:
        return None
    seeds = len(study.sweep.seeds)
    draws = len({trial.draw for trial in plan.classify})
    controls = min(len(kinds), MOST_EQUAL)
    name, components = pilot or (
        None,
        assumed_components([*scored.values()], n_seeds=seeds, n_draws=draws),
    )
    gain = smallest_visible_gain(
        with_replicates(components, n_seeds=seeds, n_draws=draws),
        n_patients=sum(scored.values()),
        n_seeds=seeds,
        n_draws=draws,
        rows=len(synthetic),
        controls=controls,
    )
    return Power(gain, scored, seeds, draws, len(synthetic), name)


def _scored(study: StudySpec, patients: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Patients by class that some fold scores: all but the sealed ones, or the part cut off."""
    counts = np.bincount([label for label, _ in patients], minlength=len(study.data.classes))
    split = study.split
    share = 1 - split.test_fraction if split.scheme != "published" else split.eval_fraction
    return {name: round(share * int(n)) for name, n in zip(study.data.classes, counts, strict=True)}
