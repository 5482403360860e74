"""Every trial of a study, before any of them runs.

The name of a trial's output is the hash of its configuration and of its inputs' names, so the whole
chain (U-Net -> features -> synthetic rows -> classifier) can be written down from the study and the
name of its slice store alone. Running it is then only a matter of filling in what does not exist.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from medaug.encoders import encoder_of
from medaug.errors import UserError
from medaug.experiment import generator_name, output_name
from medaug.models.unet import tap_shape
from medaug.plan.encoded import (
    Pool,
    check_pool,
    encode_trials,
    linear_encoders,
    linear_rows,
    view_trials,
)
from medaug.plan.sizes import Given, HeldBack, Size, held_back_counts, sizes_of
from medaug.plan.unets import pretrain_trials, segment_trials
from medaug.plan.variants import (
    ArmVariant,
    Judge,
    control_arms,
    expand_arms,
    judges_of,
    wanted_controls,
)
from medaug.spec import (
    AugmentSpec,
    ClassifyTrial,
    DrawTrial,
    ExtractTrial,
    GenerateTrial,
    SegmentTrial,
    StudySpec,
    TrialConfig,
    WrittenArm,
)
from medaug.spec.per_class import most_to_draw

T = TypeVar("T", bound=TrialConfig)


@dataclass(frozen=True)
class Plan:
    """The trials of a study by wave; a wave needs only the waves before it."""

    pretrain: tuple[SegmentTrial, ...]
    segment: tuple[SegmentTrial, ...]
    extract: tuple[ExtractTrial, ...]
    generate: tuple[GenerateTrial, ...]
    classify: tuple[ClassifyTrial, ...]
    draw: tuple[DrawTrial, ...] = ()
    """Where they are still to be run: a run has drawn, and looked at what was drawn, before the
    rest is planned."""

    def waves(self) -> Iterator[tuple[str, tuple[TrialConfig, ...]]]:
        """(title, trials) of each wave that has any, in the order they run."""
        for title in ("draw", "pretrain", "segment", "extract", "generate", "classify"):
            if trials := getattr(self, title):
                yield title, trials

    def trials(self) -> list[TrialConfig]:
        """All of them, in the order they run."""
        return [trial for _, trials in self.waves() for trial in trials]

    def only(self, fold: int, seed: int, arms: Collection[str]) -> Plan:
        """The part that a search looks at: one fold and seed, these arms, their most rows, shared
        out in the first way."""

        def searched(trial: GenerateTrial | ClassifyTrial) -> bool:
            return trial.fold == fold and trial.seed == seed and trial.arm in arms

        first = next((t.classifier_name for t in self.classify), "")
        most = max((t.n_synthetic for t in self.classify), default=0)
        generate = tuple(filter(searched, self.generate))
        found = [
            t
            for t in self.classify
            if searched(t) and (t.n_synthetic, t.classifier_name) == (most, first)
        ]
        way = {t.arm: t.per_class for t in reversed(found)}
        classify = tuple(t for t in found if t.per_class == way[t.arm])
        read = {name for trial in (*generate, *classify) for name in trial.inputs}
        return Plan(
            self.pretrain,
            tuple(t for t in self.segment if t.fold == fold),
            tuple(t for t in self.extract if output_name(t) in read),  # not the linear rows'
            generate,
            classify,
            self.draw,
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
    held_back: HeldBack | None = None,
    given: Given | None = None,
    pool: str | None = None,
    draws: Iterable[DrawTrial] = (),
) -> Plan:
    """All trials of ``study`` on the slice store named ``slices``.

    Args:
        pretrain_slices: the phantom cohort's store, when the U-Net is pre-trained on one.
        arms: replace the grid's variants (what a search has chosen); controls join them.
        held_back: what :func:`medaug.plan.sizes.held_back` gave; without it the positive control
            is planned as if there were always real rows left over.
        given: what :func:`medaug.given.bring_given` gave; without it the arms that read rows of
            the user's are planned with stores that there are not.
        pool: the store of unlabelled slices; without it, so are the arms that read them.
        draws: what :func:`medaug.plan.draws.draws_of` gave, where it has not been drawn.

    Raises:
        UserError: the plan holds no trial or more than ``sweep.max_trials``, an arm cannot make
            rows of the features' size, or an encoder is not installed.
    """
    variants = [*(arms if arms is not None else expand_arms(study)), *control_arms(study)]
    judges, sizes = judges_of(study), sizes_of(study)
    check_sides(study, variants)
    # Counted before the trials of a sweep that nobody can run are written down one by one.
    rows = sum(
        len(_counts(study, variant))
        * len(variant.ways(study))
        * len(judge.seeds(variant, study.sweep.seeds))
        for variant, judge in itertools.product(variants, judges)
        if judge.spec_for(variant) is not None
    )
    _check_count(study, study.split.folds * len(sizes) * rows)
    pretrain = pretrain_trials(study, pretrain_slices)
    segment = segment_trials(study, slices, pretrain)
    extract = _extract(study, slices, segment)
    features = [output_name(config) for config in extract] or [slices] * study.split.folds
    beside = {
        name: encode_trials(study, slices, spec) for name, spec in linear_encoders(study).items()
    }
    views = view_trials(study, slices, variants)
    shown = {signature: [*map(output_name, trials)] for signature, trials in views.items()}
    makers = [v for v in variants if v.generates and v.spec.signature() not in shown]
    check_pool(study)
    pool = (pool or "slices-pool") if any(v.spec.reads_pool for v in variants) else None
    unlabelled = _extract(study, pool, segment) if pool else ()
    generate = _generate(
        *(study, slices, segment, features, makers, sizes, given or {}),
        Pool(pool, [output_name(config) for config in unlabelled]) if pool else None,
    )
    classify = [
        *_classify(study, features, generate, shown, variants, judges, sizes, held_back),
        *linear_rows(study, beside, sizes, held_back),
    ]
    plan = Plan(
        pretrain,
        segment,
        _distinct(itertools.chain(extract, unlabelled, *beside.values(), *views.values())),
        _distinct(generate.values()),
        _told_linear(classify),
        _distinct(draws),
    )
    _check_count(study, len(plan))
    return plan


def rows_left_out(study: StudySpec, held_back: HeldBack) -> list[str]:
    """A line for each row of the positive control that has too few real rows left over."""
    if "more_real" not in wanted_controls(study):
        return []
    return [
        f"more_real +{n} of {train_rows}: left out, only {rows} real rows are held back"
        for train_rows, rows in held_back.items()
        for n in study.sweep.n_synthetic
        if n > rows
    ]


def _told_linear(trials: Iterable[ClassifyTrial]) -> tuple[ClassifyTrial, ...]:
    """Each once; where the study's own is the linear model itself, it is called that."""
    first: dict[str, ClassifyTrial] = {}
    for trial in trials:
        known = first.setdefault(trial.key, trial)
        if trial.linear and not known.linear:
            first[trial.key] = known.model_copy(update={"linear": True})
    return tuple(first.values())


def check_sides(study: StudySpec, variants: Sequence[ArmVariant]) -> None:
    """Now, rather than on a device when the U-Nets are trained.

    Raises:
        UserError: an arm cannot make rows of the study's size, or its transforms do not work.
    """
    side = images = study.data.image_size
    if study.image_encoder is not None:
        side = 1
    elif study.features is not None and study.segmenter is not None:
        side = tap_shape(study.features.tap, study.segmenter.base, images)[-1]
    for variant in variants:
        own = images if variant.arm.makes_images and study.image_encoder is not None else side
        variant.arm(variant.spec).check_side(variant.name, own, images)


def _check_count(study: StudySpec, n_trials: int) -> None:
    if n_trials > study.sweep.max_trials:
        raise UserError(
            f"sweep: {n_trials} trials, more than sweep.max_trials = {study.sweep.max_trials}; "
            "shorten an axis or raise the limit"
        )


def _distinct(trials: Iterable[T]) -> tuple[T, ...]:
    first: dict[str, T] = {}
    for config in trials:
        first.setdefault(config.key, config)
    return tuple(first.values())


def _extract(
    study: StudySpec, slices: str, segment: Sequence[SegmentTrial]
) -> tuple[ExtractTrial, ...]:
    if (encoder := study.image_encoder) is not None:
        return tuple(encode_trials(study, slices, encoder))
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


_Place = tuple[str, str, int, int, Size]  # arm, signature, fold, seed, training-set size


def _generate(
    study: StudySpec,
    slices: str,
    segment: Sequence[SegmentTrial],
    features: Sequence[str],
    makers: Sequence[ArmVariant],
    sizes: Sequence[Size],
    given: Given,
    pool: Pool | None,
) -> dict[_Place, GenerateTrial]:
    augment = (study.segmenter.augment if study.segmenter else None) or AugmentSpec()
    encoder = study.image_encoder
    name = encoder_of(encoder).name if encoder else None
    trials: dict[_Place, GenerateTrial] = {}
    folds = range(study.split.folds)
    for variant, fold, seed, size in itertools.product(makers, folds, study.sweep.seeds, sizes):
        with_images: dict[str, Any] = {}
        arm = variant.arm
        if encoder is not None and (arm.needs_images or arm.makes_images):
            with_images = {"slices": slices, "encoder": encoder, "encoder_name": name}
        elif study.features is not None and arm.needs_images:
            unet = output_name(segment[fold])
            with_images = {"slices": slices, "unet": unet, "encoding": study.features}
        if with_images:
            with_images["augment"] = augment
        signed = variant.spec.signature()
        trials[variant.name, signed, fold, seed, size] = GenerateTrial(
            arm=variant.name,
            maker=WrittenArm.of(variant.spec, *size),
            point=variant.point,
            n=rows_to_make(study, variant),
            features=features[fold],
            given=given.get((signed, fold, seed, size), f"given-{signed}")
            if arm.reads_given
            else None,
            train_rows=size[0],
            draw=size[1],
            **(pool.inputs(fold, bool(with_images)) if pool and variant.spec.reads_pool else {}),
            generator_rows=study.split.generator_rows if variant.arm.synthetic else "train",
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
    views: Mapping[str, Sequence[str]],
    variants: Sequence[ArmVariant],
    judges: Sequence[Judge],
    sizes: Sequence[Size],
    held_back: HeldBack | None,
) -> Iterator[ClassifyTrial]:
    """In an order in which those that share rows are next to each other."""
    for judge, fold, size, variant in itertools.product(
        judges, range(study.split.folds), sizes, variants
    ):
        spec = judge.spec_for(variant)
        if spec is None:
            continue
        train_rows, draw = size
        counts = _counts(study, variant)
        if variant.arm.adds_held_back:
            counts = held_back_counts(study, train_rows, held_back)
        for seed in judge.seeds(variant, study.sweep.seeds):
            maker = generate.get((variant.name, variant.spec.signature(), fold, seed, size))
            for n, per_class in itertools.product(counts, variant.ways(study)):
                yield ClassifyTrial(
                    classifier=spec,
                    classifier_name=judge.name,
                    arm=variant.name,
                    kind=variant.spec.kind,
                    synthetic=variant.arm.synthetic,
                    point=variant.point,
                    control=variant.control or judge.control,
                    features=features[fold],
                    generator=generator_name(maker) if maker else None,
                    rows=output_name(maker) if maker else None,
                    maker=None if maker else WrittenArm.of(variant.spec),
                    views=tuple(views.get(variant.spec.signature(), ())),
                    n_synthetic=n,
                    per_class=per_class,
                    real_rows=variant.spec.real_rows,
                    train_rows=train_rows,
                    draw=draw,
                    protocol=study.protocol,
                    keep=study.resources.keep_classifiers,
                    fold=fold,
                    seed=seed,
                    ranks=study.resources.ranks,
                )


def _counts(study: StudySpec, variant: ArmVariant) -> tuple[int, ...]:
    """How many rows are added in each of the variant's classifiers."""
    return study.sweep.n_synthetic if variant.arm.adds_rows else (0,)


def rows_to_make(study: StudySpec, variant: ArmVariant) -> int:
    """How many rows a generator draws, so that there are enough of each class."""
    n = max(study.sweep.n_synthetic)
    return max(most_to_draw(way, n, study.data.classes) for way in variant.ways(study))
