"""Which rows a trial trains on: patients of its fold, and what its arm adds."""

from __future__ import annotations

from typing import Any

import numpy as np

from medaug.arms import ARM_CONFIGS, ARMS, ArmContext, ResampleArm
from medaug.errors import MedaugError, UserError
from medaug.experiment.lineage import choosing_rows, prove_lineage
from medaug.experiment.segment import feature_spec, load_unet
from medaug.seeding import numpy_generator
from medaug.spec import AugmentSpec, TrialConfig, build_arm
from medaug.storage.artifacts import Artifacts
from medaug.store import Store
from medaug.train.extract import encoder
from medaug.train.world import World


class TooFewRows(MedaugError):
    """An arm could not make the rows that a trial wants: a result of the arm, not a failure."""


def added_rows(
    config: TrialConfig, features: Store, context: ArmContext, artifacts: Artifacts
) -> Store | None:
    """The first ``n_synthetic`` rows of the arm, or None when it adds none."""
    n = config.settings["n_synthetic"]
    if n == 0:
        return None
    if "rows" not in config.inputs:
        arm = arm_of(config)
        assert isinstance(arm, ResampleArm)
        return context.train.select(arm.rows(context, n))
    rows = artifacts.open_store(config.inputs["rows"])
    if len(rows) < n:
        raise TooFewRows(f"{n} rows wanted, but the generator's filter let only {len(rows)} pass")
    if config.settings["protocol"] == "honest":
        prove_lineage(rows, features, config.fold)
    return rows.select(np.arange(n))


def arm_of(config: TrialConfig) -> Any:
    """The arm that ``config`` names, not yet fitted."""
    spec = build_arm(config.settings["arm"]["kind"], config.settings["arm"], ARM_CONFIGS)
    return ARMS[spec.kind](spec)


def arm_context(
    config: TrialConfig, features: Store, world: World, artifacts: Artifacts
) -> ArmContext:
    train = _fitting_rows(config, features)
    if (wanted := config.settings.get("train_rows")) is not None:
        train = _first_units(train, wanted, config.fold)
    images, encode = None, None
    if "unet" in config.inputs:
        unet, about = load_unet(config.inputs["unet"], artifacts)
        spec = feature_spec(config, about)
        slices = artifacts.open_store(config.inputs["slices"])
        images = slices.select(np.isin(slices.units, np.unique(train.units)))
        encode = encoder(unet, spec, tuple(about["normalisation"]), world)
    augment = AugmentSpec.model_validate(config.settings.get("augment", {}))
    return ArmContext(
        train=train,
        val=choosing_rows(features, config.fold),
        seed=config.seed,
        world=world,
        images=images,
        encode=encode,
        augment=augment,
    )


def _fitting_rows(config: TrialConfig, features: Store) -> Store:
    """The fold's training rows; or, as study D did, all of the publisher's folder ``train``."""
    if config.settings.get("generator_rows", "train") == "train":
        return features.split("train", config.fold)
    parts = features.manifest["extra"].get("parts", {})
    inside = np.array(["train" in parts.get(unit, ()) for unit in features.units.tolist()], bool)
    if not inside.any():
        raise UserError(
            "split.generator_rows: publisher_train wants images in a folder train, and there is "
            "none here; use train"
        )
    return features.select(inside)


def _first_units(train: Store, n_rows: int, fold: int) -> Store:
    """Whole patients (or single images, where the split is by image) in a fixed random order,
    classes in turn, until ``n_rows`` rows are reached.

    A larger ``n_rows`` keeps all patients of a smaller one, so the size axis is nested.
    """
    units, index, sizes = np.unique(train.units, return_inverse=True, return_counts=True)
    label = np.zeros(len(units), np.int64)
    np.maximum.at(label, index, train.labels)
    order = numpy_generator("train_rows", fold).permutation(len(units))
    queues = [order[label[order] == c].tolist() for c in np.unique(label)]
    chosen: list[int] = []
    while sum(sizes[chosen]) < n_rows and any(queues):
        for queue in filter(None, queues):
            chosen.append(queue.pop(0))
    return train.select(np.isin(index, chosen))
