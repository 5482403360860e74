"""Which rows a trial trains on: patients of its fold, and what its arm adds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from medaug.arms import ARMS, ArmContext, ResampleArm
from medaug.errors import MedaugError, UserError
from medaug.experiment.lineage import choosing_rows, prove_lineage
from medaug.experiment.segment import feature_spec, load_unet
from medaug.seeding import numpy_generator
from medaug.spec import AugmentSpec, ClassifyTrial, GenerateTrial, WrittenArm, build_arm
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import Artifacts
from medaug.store import Store
from medaug.train.extract import encoder
from medaug.train.world import World


class TooFewRows(MedaugError):
    """An arm could not make the rows that a trial wants: a result of the arm, not a failure."""


def added_rows(
    config: ClassifyTrial, features: Store, context: ArmContext, artifacts: Artifacts
) -> Store | None:
    """The first ``n_synthetic`` rows of the arm, or None when it adds none."""
    n = config.n_synthetic
    if n == 0:
        return None
    if config.rows is None:
        assert config.maker is not None
        arm = arm_of(config.maker)
        assert isinstance(arm, ResampleArm)
        return context.train.select(arm.rows(context, n))
    rows = artifacts.open_store(config.rows)
    if len(rows) < n:
        raise TooFewRows(f"{n} rows wanted, but the generator's filter let only {len(rows)} pass")
    if config.protocol == "honest":
        prove_lineage(rows, features, config.fold)
    return rows.select(np.arange(n))


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
    return (
        context if isinstance(config, ClassifyTrial) else _with_images(context, config, artifacts)
    )


def training_rows(config: GenerateTrial | ClassifyTrial, features: Store) -> Store:
    """The real rows that the trial may use: of its fold, as many as it is to have."""
    train = _fitting_rows(config, features)
    if config.train_rows is None:
        return train
    return _first_units(train, config.train_rows, config.fold, config.draw)


def _with_images(context: ArmContext, config: GenerateTrial, artifacts: Artifacts) -> ArmContext:
    """The training rows' slices, and what makes features of images, where the arm wants them."""
    augment = config.augment or AugmentSpec()
    if config.unet is None or config.slices is None or config.encoding is None:
        return replace(context, augment=augment)
    unet, about = load_unet(config.unet, artifacts)
    slices = artifacts.open_store(config.slices)
    images = slices.select(np.isin(slices.units, np.unique(context.train.units)))
    spec = feature_spec(config.encoding, about)
    encode = encoder(unet, spec, tuple(about["normalisation"]), context.world)
    return replace(context, augment=augment, images=images, encode=encode)


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


def _first_units(train: Store, n_rows: int, fold: int, draw: int) -> Store:
    """Whole patients (or single images, where the split is by image) in a fixed random order,
    classes in turn, until ``n_rows`` rows are reached.

    A larger ``n_rows`` keeps all patients of a smaller one, so the size axis is nested. Another
    ``draw`` is another order.
    """
    units, index, sizes = np.unique(train.units, return_inverse=True, return_counts=True)
    label = np.zeros(len(units), np.int64)
    np.maximum.at(label, index, train.labels)
    order = numpy_generator("train_rows", fold, *([draw] if draw else [])).permutation(len(units))
    queues = [order[label[order] == c].tolist() for c in np.unique(label)]
    chosen: list[int] = []
    while sum(sizes[chosen]) < n_rows and any(queues):
        for queue in filter(None, queues):
            chosen.append(queue.pop(0))
    return train.select(np.isin(index, chosen))
