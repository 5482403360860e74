"""The arms of a study at every point of its grid, and the controls that the protocol adds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medaug.arms import ARMS, Arm, ResampleArm
from medaug.errors import UserError
from medaug.spec import (
    ArmSpec,
    ClassifierSpec,
    LinearSpec,
    MeanSpec,
    NetworkSpec,
    StudySpec,
    build_arm,
    build_classifier,
)
from medaug.spec.arms import ARM_CONFIGS, DuplicateSpec
from medaug.spec.axes import grid_points, inside
from medaug.spec.per_class import UNIFORM, PerClass
from medaug.spec.study import CONTROLS

MEANS = ("class_mean", "cosine_mean")
"""Controls that are classifiers: they look at the training rows as they are."""


@dataclass(frozen=True)
class ArmVariant:
    """One arm at one point of its grid."""

    name: str
    spec: ArmSpec
    point: Mapping[str, Any] = field(default_factory=dict)
    """The grid values that make this variant, by their key inside the arm."""
    control: bool = False
    """Whether the protocol added it."""

    @property
    def arm(self) -> type[Arm]:
        return ARMS[self.spec.kind]

    @property
    def generates(self) -> bool:
        """Whether a trial of its own makes its rows."""
        return not issubclass(self.arm, ResampleArm) and not self.arm.adds_held_back

    @property
    def by_chance(self) -> bool:
        """Whether another seed gives other rows."""
        return self.arm.adds_rows and not self.arm.adds_held_back

    def ways(self, study: StudySpec) -> tuple[PerClass, ...]:
        """How its rows are shared out among the classes: ``sweep.per_class``, unless the arm itself
        says so. Rows that no real ones join are all that there is of a class."""
        of_its_own = isinstance(self.spec, DuplicateSpec) and self.spec.classes == "prior"
        shared_out = self.by_chance and self.spec.real_rows and not of_its_own
        return study.sweep.per_class if shared_out else (UNIFORM,)


@dataclass(frozen=True)
class Judge:
    """A classifier, and by what name."""

    name: str
    spec: ClassifierSpec
    only: str | None = None
    """The kind of arm that it looks at; None: all."""
    control: bool = False

    def spec_for(self, variant: ArmVariant) -> ClassifierSpec | None:
        """How it is trained for an arm; None where the two do not go together."""
        if self.only not in (None, variant.spec.kind):
            return None
        weighting = variant.arm.weighting
        if weighting is None:
            return self.spec
        balanced = isinstance(self.spec, NetworkSpec) and self.spec.balanced_sampler
        if balanced or isinstance(self.spec, MeanSpec):  # classes count alike already
            return None
        return self.spec.model_copy(update={"weighting": weighting})

    def seeds(self, variant: ArmVariant, seeds: Sequence[int]) -> Sequence[int]:
        """One is enough where nothing happens by chance."""
        solved = isinstance(self.spec, LinearSpec)
        return seeds if variant.by_chance or not solved else seeds[:1]


def expand_arms(study: StudySpec, points: Sequence[Mapping[str, Any]] = ()) -> list[ArmVariant]:
    """Every arm at every point of its own part of ``sweep.grid``; tied keys move together.

    ``points`` (dotted key -> value) are what a random or Optuna search has drawn; an arm that they
    name is taken at each of them as well as at its grid.

    Raises:
        UserError: a drawn point does not suit its arm.
    """
    variants: dict[tuple[str, str], ArmVariant] = {}
    for name, spec in study.arms.items():
        given = spec.model_dump(mode="json", exclude_unset=True)
        drawn = [inside(name, point) for point in points if inside(name, point)] or [{}]
        for chosen, point in itertools.product(drawn, grid_points(study.sweep, name)):
            point = {**chosen, **point}
            merged = build_arm(name, {**given, **point}, ARM_CONFIGS)
            variants.setdefault((name, merged.signature()), ArmVariant(name, merged, point))
    return list(variants.values())


def pool_arms(study: StudySpec) -> list[ArmVariant]:
    """The arms that look at unlabelled scans, at some point of their grid.

    Raises:
        UserError: a search decides whether one does.
    """
    for axis in study.sweep.space:
        if axis.endswith(".fit_on"):
            raise UserError(f"sweep.space: {axis} decides what is read; name it in sweep.grid")
    return [variant for variant in expand_arms(study) if variant.spec.reads_pool]


def wanted_controls(study: StudySpec) -> tuple[str, ...]:
    """What the protocol adds, by kind: nothing as published."""
    if study.protocol != "honest" or study.controls == "none":
        return ()
    wanted: tuple[str, ...] = CONTROLS if study.controls == "auto" else study.controls
    if study.controls == "auto" and pool_arms(study):
        wanted = (*wanted, "pseudo_labels")
    if not study.sweep.small_sizes:  # nothing is held back
        wanted = tuple(kind for kind in wanted if kind != "more_real")
    return wanted


def control_arms(study: StudySpec) -> list[ArmVariant]:
    """The arms that the protocol adds, those of a kind that the study has already left out."""
    have = {spec.kind for spec in study.arms.values() if spec.real_rows}
    missing = [kind for kind in wanted_controls(study) if kind not in (*have, *MEANS)]
    return [
        ArmVariant(_free(kind, study.arms), build_arm(kind, {}, ARM_CONFIGS), control=True)
        for kind in missing
    ]


def judges_of(study: StudySpec) -> list[Judge]:
    """The study's classifiers, then those that the protocol adds."""
    several = len(study.judges) > 1  # one needs no name
    judges = [Judge(name if several else "", spec) for name, spec in study.judges.items()]
    have = {judge.spec.kind for judge in judges}
    return judges + [
        Judge(_free(kind, study.judges), build_classifier({"kind": kind}), "none", control=True)
        for kind in wanted_controls(study)
        if kind in MEANS and kind not in have
    ]


def _free(kind: str, names: Mapping[str, Any]) -> str:
    return kind if kind not in names else f"{kind}_control"
