"""Which rows a trial trains on: patients of its fold, and what its arm adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medaug.arms import ARMS, ArmContext, ResampleArm
from medaug.arms.classical import ClassicalArm
from medaug.encoders import encoder_of
from medaug.errors import MedaugError, UserError
from medaug.experiment.lineage import choosing_rows, prove_lineage
from medaug.experiment.pool import with_pool
from medaug.experiment.segment import feature_spec, load_unet
from medaug.seeding import numbered, numpy_generator
from medaug.spec import AugmentSpec, ClassifyTrial, GenerateTrial, WrittenArm, build_arm
from medaug.spec.arms import ARM_CONFIGS
from medaug.spec.per_class import UNIFORM, quotas, rows_to_draw
from medaug.spec.trial import TrainingSet
from medaug.storage.artifacts import Artifacts
from medaug.store import Store
from medaug.train.extract import encoder
from medaug.train.world import World


class TooFewRows(MedaugError):
    """An arm could not make the rows that a trial wants: a result of the arm, not a failure."""


def added_rows(
    config: ClassifyTrial, features: Store, context: ArmContext, artifacts: Artifacts
) -> Store | None:
    """The first rows of each class that the arm makes, ``n_synthetic`` in all, or None when it adds
    none."""
    n = config.n_synthetic
    if n == 0:
        return None
    if config.rows is None:
        assert config.maker is not None
        arm = arm_of(config.maker)
        if arm.adds_held_back:
            train = _fitting_rows(config, features)
            return train.select(more_real_rows(config, train, n))
        if config.views:
            views = Store.concat(*_views(config, features, artifacts))
            return views.select(view_rows(arm, config, context))
        return context.train.select(rows_again(arm, config, context))
    rows = artifacts.open_store(config.rows)
    chosen = made_rows(rows, config, context.train)
    if config.protocol == "honest":
        prove_lineage(rows, features, config.fold)
    return rows.select(chosen)


def _wanted(config: ClassifyTrial, real: Store) -> tuple[int, ...]:
    """How many rows of each class are added to the training rows ``real``."""
    have = np.bincount(real.labels, minlength=len(real.classes)).tolist()
    return quotas(config.per_class, config.n_synthetic, real.classes, have)


def _first_of_each(labels: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """Where the first ``wanted[k]`` rows of each class k stand among ``labels``, in their order,
    int64."""
    chosen = [np.flatnonzero(labels == label)[:n] for label, n in enumerate(wanted)]
    return np.sort(np.concatenate(chosen))


def made_rows(made: Store, config: ClassifyTrial, real: Store) -> np.ndarray:
    """Which rows of a generator's store join the training rows ``real``, int64.

    Raises:
        TooFewRows: it has not made enough, or not of some class.
    """
    n = config.n_synthetic
    if config.per_class == UNIFORM:  # as they stand in the store
        if len(made) < n:
            raise TooFewRows(f"{n} rows wanted, but only {len(made)} were made")
        return np.arange(n)
    wanted = _wanted(config, real)
    have = np.bincount(made.labels, minlength=len(wanted)).tolist()
    for name, n, there in zip(made.classes, wanted, have, strict=True):
        if n > there:
            raise TooFewRows(f"{n} rows of class {name} wanted, but only {there} were made")
    return _first_of_each(made.labels, wanted)


def rows_again(arm: ResampleArm, config: ClassifyTrial, context: ArmContext) -> np.ndarray:
    """Which training rows are added once more, int64."""
    if config.per_class == UNIFORM:  # as the arm itself shares them out
        return arm.rows(context, config.n_synthetic)
    wanted = _wanted(config, context.train)
    rows = arm.rows(context, rows_to_draw(wanted))
    return rows[_first_of_each(context.train.labels[rows], wanted)]


def _views(config: ClassifyTrial, features: Store, artifacts: Artifacts) -> list[Store]:
    """The trial's training rows in each view."""
    views = [artifacts.open_store(name).split("train", config.fold) for name in config.views]
    if config.training_set is None:
        return views
    train = features.split("train", config.fold)
    chosen = first_rows(train, config.training_set)
    return [view.select(np.flatnonzero(chosen)) for view in views]


def view_rows(arm: ClassicalArm, config: ClassifyTrial, context: ArmContext) -> np.ndarray:
    """Which of the training rows' views (all rows of the first, of the second, …) are added:
    (n,) int64. Views repeat when each has been used."""
    wanted = _wanted(config, context.train)
    rows, rounds = arm.choose(context, rows_to_draw(wanted))
    added = _first_of_each(context.train.labels[rows], wanted)
    return rounds[added] % len(config.views) * len(context.train) + rows[added]


def more_real_rows(config: ClassifyTrial, train: Store, n: int) -> np.ndarray:
    """The first ``n`` rows of ``train`` that the trial's training set leaves out, int64 (n,).

    Raises TooFewRows when it leaves out fewer.
    """
    assert config.training_set is not None, "without a small training set nothing is held back"
    rows = held_back_rows(train, config.training_set)
    if len(rows) < n:
        raise TooFewRows(f"{n} more real rows wanted, but only {len(rows)} are held back")
    return rows[:n]


def arm_of(maker: WrittenArm) -> Any:
    """The arm that was written down as ``maker``, not yet fitted."""
    spec = build_arm(maker.kind, maker.canonical(), ARM_CONFIGS)
    return ARMS[spec.kind](spec)


def arm_context(
    config: GenerateTrial | ClassifyTrial, features: Store, world: World, artifacts: Artifacts
) -> ArmContext:
    """What the trial's arm may look at."""
    context = ArmContext(
        train=training_rows(config, features),
        val=choosing_rows(features, config.fold),
        seed=config.seed,
        world=world,
    )
    if isinstance(config, ClassifyTrial):
        return context
    if config.given is not None:
        context = replace(context, given=artifacts.open_store(config.given))
    context = _with_images(context, config, artifacts)
    if config.pool is None:
        return context
    slices = config.pool_slices
    images = None if slices is None else artifacts.open_store(slices)
    return with_pool(context, artifacts.open_store(config.pool), images)


def training_rows(config: GenerateTrial | ClassifyTrial, features: Store) -> Store:
    """The real rows that the trial may use: of its fold, as many as it is to have."""
    train = _fitting_rows(config, features)
    if config.training_set is None:
        return train
    return train.select(first_rows(train, config.training_set))


def _with_images(context: ArmContext, config: GenerateTrial, artifacts: Artifacts) -> ArmContext:
    """The rows' slices, and what makes features of images, where the arm wants them."""
    context = replace(context, augment=config.augment or AugmentSpec())
    if config.slices is None:
        return context
    slices = artifacts.open_store(config.slices)
    images, val_images = (
        slices.select(np.isin(slices.units, np.unique(rows.units)))
        for rows in (context.train, context.val)
    )
    context = replace(context, images=images, val_images=val_images)
    if config.encoder is not None:
        own = encoder_of(config.encoder)
        own.open(slices, context.world, config.fold if own.fitted else None)
        return replace(context, encode=lambda x_NCHW: own.encode(x_NCHW)[:, :, None, None])
    assert config.unet is not None
    assert config.encoding is not None
    unet, about = load_unet(config.unet, artifacts)
    spec = feature_spec(config.encoding, about)
    encode = encoder(unet, spec, tuple(about["normalisation"]), context.world)
    return replace(context, encode=encode)


def _fitting_rows(config: GenerateTrial | ClassifyTrial, features: Store) -> Store:
    """The fold's training rows; or, as study D did, all of the publisher's folder ``train``."""
    if isinstance(config, ClassifyTrial) or config.generator_rows == "train":
        return features.split("train", config.fold)
    parts = features.manifest["extra"].get("parts", {})
    inside = np.array(["train" in parts.get(unit, ()) for unit in features.units.tolist()], bool)
    if not inside.any():
        raise UserError(
            "split.generator_rows: publisher_train wants images in a folder train, and there is "
            "none here; use train"
        )
    return features.select(inside)


def first_rows(train: Store, wanted: TrainingSet) -> np.ndarray:
    """Which rows of ``train`` the training set holds, bool (n,): whole patients (or single images,
    where the split is by image) in a fixed random order, classes in turn, until so many are
    reached.

    A larger one keeps all patients of a smaller one, so the size axis is nested. Another draw is
    another order.
    """
    index, turn, _ = _turns(train, wanted)
    sizes = np.bincount(turn[index])  # rows by turn
    enough = np.searchsorted(np.cumsum(sizes), wanted.n_rows)
    return turn[index] <= enough


def held_back_rows(train: Store, wanted: TrainingSet) -> np.ndarray:
    """Rows of ``train`` that the training set leaves out, in the order in which a larger one would
    take them, int64."""
    index, turn, label = _turns(train, wanted)
    rest = np.flatnonzero(~first_rows(train, wanted))
    unit = index[rest]
    return rest[np.lexsort((rest, label[unit], turn[unit]))]


def _turns(train: Store, wanted: TrainingSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row's unit (n,); each unit's turn (from 0, one unit of each class a turn) and class."""
    if wanted.drawn_by == "place":
        n, index = numbered(train.units)
    else:
        units, index = np.unique(train.units, return_inverse=True)
        n = len(units)
    label = np.zeros(n, np.int64)
    np.maximum.at(label, index, train.labels)
    dice = numpy_generator("train_rows", wanted.fold, *([wanted.draw] if wanted.draw else []))
    order = dice.permutation(n)
    turn = np.empty(n, np.int64)
    for each in np.unique(label):
        queue = order[label[order] == each]
        turn[queue] = np.arange(len(queue))
    return index, turn, label
