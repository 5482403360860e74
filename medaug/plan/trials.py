"""Every trial of a study, before any of them runs.

The name of a trial's output is the hash of its configuration and of its inputs' names, so the whole
chain (U-Net -> features -> synthetic rows -> classifier) can be written down from the study and the
name of its slice store alone. Running it is then only a matter of filling in what does not exist.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from medaug.arms import ARMS, ResampleArm
from medaug.errors import UserError
from medaug.experiment import output_name
from medaug.models.unet import tap_shape
from medaug.spec import (
    ArmSpec,
    AugmentSpec,
    ClassifyTrial,
    ExtractTrial,
    GenerateTrial,
    SegmentTrial,
    StudySpec,
    TrialConfig,
    WrittenArm,
    build_arm,
)
from medaug.spec.arms import ARM_CONFIGS
from medaug.spec.axes import grid_points, inside

T = TypeVar("T", bound=TrialConfig)


@dataclass(frozen=True)
class ArmVariant:
    """One arm at one point of its grid."""

    name: str
    spec: ArmSpec
    point: Mapping[str, Any] = field(default_factory=dict)
    """The grid values that make this variant, by their key inside the arm."""

    @property
    def resamples(self) -> bool:
        return issubclass(ARMS[self.spec.kind], ResampleArm)

    @property
    def synthetic(self) -> bool:
        return ARMS[self.spec.kind].synthetic


@dataclass(frozen=True)
class Plan:
    """The trials of a study by wave; a wave needs only the waves before it."""

    pretrain: tuple[SegmentTrial, ...]
    segment: tuple[SegmentTrial, ...]
    extract: tuple[ExtractTrial, ...]
    generate: tuple[GenerateTrial, ...]
    classify: tuple[ClassifyTrial, ...]

    def waves(self) -> Iterator[tuple[str, tuple[TrialConfig, ...]]]:
        """(title, trials) of each wave that has any, in the order they run."""
        for title in ("pretrain", "segment", "extract", "generate", "classify"):
            if trials := getattr(self, title):
                yield title, trials

    def trials(self) -> list[TrialConfig]:
        """All of them, in the order they run."""
        return [trial for _, trials in self.waves() for trial in trials]

    def only(self, fold: int, seed: int, arms: Collection[str]) -> Plan:
        """The part that a search looks at: one fold and seed, these arms, their most rows."""

        def searched(trial: GenerateTrial | ClassifyTrial) -> bool:
            return trial.fold == fold and trial.seed == seed and trial.arm in arms

        most = max((t.n_synthetic for t in self.classify), default=0)
        return Plan(
            self.pretrain,
            tuple(t for t in self.segment if t.fold == fold),
            tuple(t for t in self.extract if t.fold == fold),
            tuple(filter(searched, self.generate)),
            tuple(t for t in self.classify if searched(t) and t.n_synthetic == most),
        )

    @classmethod
    def joined(cls, plans: Sequence[Plan]) -> Plan:
        """Several plans as one; a trial that several of them hold is in it once."""
        names = [each.name for each in fields(cls)]
        waves = ([trial for plan in plans for trial in getattr(plan, name)] for name in names)
        return cls(*map(_distinct, waves))

    def __len__(self) -> int:
        return sum(len(trials) for _, trials in self.waves())


def plan_study(
    study: StudySpec,
    slices: str,
    pretrain_slices: str | None = None,
    arms: Sequence[ArmVariant] | None = None,
) -> Plan:
    """All trials of ``study`` on the slice store named ``slices``.

    ``pretrain_slices`` names the phantom cohort's store when the U-Net is pre-trained on one;
    ``arms`` replaces the grid's variants (what a search has chosen).

    Raises:
        UserError: the plan holds no trial or more than ``sweep.max_trials``, or an arm cannot make
            rows of the features' size.
    """
    variants = arms if arms is not None else expand_arms(study)
    _check_sides(study, variants)
    replicates = study.split.folds * len(study.sweep.seeds) * len(study.sweep.train_rows or (None,))
    # Counted before the trials of a sweep that nobody can run are written down one by one.
    _check_count(study, replicates * sum(len(_counts(study, variant)) for variant in variants))
    pretrain = _pretrain(study, pretrain_slices)
    segment = _segment(study, slices, pretrain)
    extract = _extract(study, slices, segment)
    features = [output_name(config) for config in extract] or [slices] * study.split.folds
    generate = _generate(study, slices, segment, features, variants)
    classify = _classify(study, features, generate, variants)
    plan = Plan(pretrain, segment, extract, _distinct(generate.values()), _distinct(classify))
    _check_count(study, len(plan))
    return plan


def _check_sides(study: StudySpec, variants: Sequence[ArmVariant]) -> None:
    """Now, rather than on a device when the U-Nets are trained."""
    side = images = study.data.image_size
    if study.features is not None and study.segmenter is not None:
        side = tap_shape(study.features.tap, study.segmenter.base, images)[-1]
    for variant in variants:
        ARMS[variant.spec.kind](variant.spec).check_side(variant.name, side, images)


def _check_count(study: StudySpec, n_trials: int) -> None:
    if n_trials > study.sweep.max_trials:
        raise UserError(
            f"sweep: {n_trials} trials, more than sweep.max_trials = {study.sweep.max_trials}; "
            "shorten an axis or raise the limit"
        )


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


def _distinct(trials: Iterable[T]) -> tuple[T, ...]:
    first: dict[str, T] = {}
    for config in trials:
        first.setdefault(config.key, config)
    return tuple(first.values())


def _pretrain(study: StudySpec, slices: str | None) -> tuple[SegmentTrial, ...]:
    spec = study.segmenter
    if spec is None or spec.pretrain is None or spec.pretrain.phantom is None:
        return ()
    assert slices is not None, "pre-training on phantoms needs their slice store"
    settings = spec.model_copy(
        update={"pretrain": None, "epochs": spec.pretrain.epochs, "lr": spec.pretrain.lr}
    )
    return (
        SegmentTrial(
            segmenter=settings,
            slices=slices,
            fold=0,
            ranks=study.resources.ranks,
            purpose="pretrain",
        ),
    )


def _segment(
    study: StudySpec, slices: str, pretrain: Sequence[SegmentTrial]
) -> tuple[SegmentTrial, ...]:
    if (segmenter := study.segmenter) is None:
        return ()
    source, weights_sha256 = segmenter.pretrain, None
    if source and source.weights:
        weights_sha256 = _file_sha256(source.weights)
    elif pretrain:  # the starting weights' name already says where they come from
        segmenter = segmenter.model_copy(update={"pretrain": None})
    return tuple(
        SegmentTrial(
            segmenter=segmenter,
            slices=slices,
            initial=output_name(pretrain[0]) if pretrain else None,
            weights_sha256=weights_sha256,
            fold=fold,
            ranks=study.resources.ranks,
        )
        for fold in range(study.split.folds)
    )


def _extract(
    study: StudySpec, slices: str, segment: Sequence[SegmentTrial]
) -> tuple[ExtractTrial, ...]:
    if study.features is None:
        return ()
    return tuple(
        ExtractTrial(
            features=study.features,
            slices=slices,
            unet=output_name(unet),
            fold=unet.fold,
            ranks=study.resources.ranks,
        )
        for unet in segment
    )


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"segmenter.pretrain.weights: {path}: {error.strerror}") from None


_Place = tuple[str, str, int, int, int | None]  # arm, signature, fold, seed, train_rows


def _generate(
    study: StudySpec,
    slices: str,
    segment: Sequence[SegmentTrial],
    features: Sequence[str],
    variants: Sequence[ArmVariant],
) -> dict[_Place, GenerateTrial]:
    augment = (study.segmenter.augment if study.segmenter else None) or AugmentSpec()
    trials: dict[_Place, GenerateTrial] = {}
    for variant, fold, seed, train_rows in _replicates(study, variants):
        if variant.resamples:
            continue
        with_images: dict[str, Any] = {}
        if ARMS[variant.spec.kind].needs_images and study.features is not None:
            with_images = {
                **{"slices": slices, "unet": output_name(segment[fold])},
                **{"encoding": study.features, "augment": augment},
            }
        trials[variant.name, variant.spec.signature(), fold, seed, train_rows] = GenerateTrial(
            arm=variant.name,
            maker=WrittenArm.of(variant.spec),
            point=variant.point,
            n=max(study.sweep.n_synthetic),
            features=features[fold],
            train_rows=train_rows,
            generator_rows=study.split.generator_rows if variant.synthetic else "train",
            **with_images,
            fold=fold,
            seed=seed,
            ranks=study.resources.ranks,
        )
    return trials


def _classify(
    study: StudySpec,
    features: Sequence[str],
    generate: Mapping[_Place, GenerateTrial],
    variants: Sequence[ArmVariant],
) -> Iterator[ClassifyTrial]:
    for variant, fold, seed, train_rows in _replicates(study, variants):
        maker = generate.get((variant.name, variant.spec.signature(), fold, seed, train_rows))
        for n in _counts(study, variant):
            yield ClassifyTrial(
                classifier=study.classifier,
                arm=variant.name,
                kind=variant.spec.kind,
                synthetic=variant.synthetic,
                point=variant.point,
                features=features[fold],
                rows=output_name(maker) if maker else None,
                maker=None if maker else WrittenArm.of(variant.spec),
                n_synthetic=n,
                real_rows=variant.spec.real_rows,
                train_rows=train_rows,
                protocol=study.protocol,
                fold=fold,
                seed=seed,
                ranks=study.resources.ranks,
            )


def _counts(study: StudySpec, variant: ArmVariant) -> tuple[int, ...]:
    """How many rows are added in each of the variant's classifiers."""
    return (0,) if variant.spec.kind == "none" else study.sweep.n_synthetic


def _replicates(
    study: StudySpec, variants: Sequence[ArmVariant]
) -> Iterator[tuple[ArmVariant, int, int, int | None]]:
    sizes = study.sweep.train_rows or (None,)
    return itertools.product(variants, range(study.split.folds), study.sweep.seeds, sizes)
