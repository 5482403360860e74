"""Finished classifiers, and rows that no training has seen, as these want to see them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from medaug.errors import IntegrityError, UserError
from medaug.experiment.classify import classify
from medaug.experiment.extract import features_of
from medaug.experiment.solve import solved
from medaug.spec import ClassifyTrial, ExtractTrial, LinearSpec, TrialConfig
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import ClassifyResult, TrialResult
from medaug.storage.temporary import temporary_folder
from medaug.storage.trial_folder import TrialFolder
from medaug.store import Store
from medaug.train.checkpoint import Checkpoint, Ledger
from medaug.train.classify import Classifier, classifier_of
from medaug.train.world import World

SAME = 1e-3
"""How far a probability of a network that was trained again may be from that of the first."""


class Trained(Protocol):
    """A trial of stage ``classify`` as it was read back: a ``TrialRecord``."""

    @property
    def config(self) -> TrialConfig: ...

    @property
    def result(self) -> TrialResult | None: ...

    @property
    def folder(self) -> Path:
        """Its own; that of a trial which ran in a bundle does not exist."""
        ...


def load_classifier(trial: Trained, world: World, *, retrain: bool = False) -> Classifier:
    """The classifier of a finished trial: from its ledger, or solved again.

    A network whose weights were not kept (``resources.keep_classifiers``) is trained again where
    ``retrain`` says so, which takes as long as it took.

    Raises:
        UserError: the trial is not finished, or its weights are gone.
        IntegrityError: its checkpoint is damaged, or another training came to another network.
    """
    config, result, folder = trial.config, trial.result, trial.folder
    assert isinstance(config, ClassifyTrial)
    if not isinstance(result, ClassifyResult):
        raise UserError(f"{folder}: not finished; resume the run")
    if isinstance(config.classifier, LinearSpec):  # milliseconds, and it is the same again
        return solved(config, _artifacts(folder), world)
    checkpoint = Ledger(folder).finished(config.key)
    if checkpoint is None:
        if not retrain:
            raise UserError(
                f"{folder}: the weights of {config.full_title} were not kept; --retrain trains it "
                "again here, and resources.keep_classifiers keeps those of the next run"
            )
        checkpoint = _trained_again(config, result, folder, world)
    features = _artifacts(folder).open_store(config.features)
    return classifier_of(
        _on_device(checkpoint, world),
        config.classifier,
        features.schema.shape,
        len(features.classes),
        threshold=result.threshold,
    )


@contextmanager
def sealed_rows(trial: Trained, world: World) -> Iterator[Store]:
    """The sealed patients' rows for the classifier of a trial.

    Where rows are features, the fold's U-Net or the encoder makes those of the sealed slices now;
    they are gone when the block ends. Order, labels and patients are the same for all folds.

    Raises:
        UserError: a store or the U-Net is gone.
    """
    with _rows_of(trial, world, None) as rows:
        yield rows


@contextmanager
def rows_of(trial: Trained, world: World, slices: Store) -> Iterator[Store]:
    """The rows of another cohort's ``slices`` for the classifier of a trial: as
    :func:`sealed_rows`, and nothing is fitted to them.

    Raises:
        UserError: they are of another shape or have other classes; a store or the U-Net is gone.
    """
    with _rows_of(trial, world, slices) as rows:
        yield rows


@contextmanager
def _rows_of(trial: Trained, world: World, other: Store | None) -> Iterator[Store]:
    assert isinstance(trial.config, ClassifyTrial)
    folder, name = trial.folder, trial.config.features
    artifacts = _artifacts(folder)
    features = artifacts.open_store(name)
    if features.provenance.encoder is None:
        if other is not None:
            _check_alike(features, other)
        yield features.split("test") if other is None else other
        return
    extract = TrialFolder(folder.parents[1], name.removeprefix("features-")).config()
    assert isinstance(extract, ExtractTrial)
    slices = artifacts.open_store(extract.slices)
    if other is not None:
        _check_alike(slices, other)
    rows = slices.split("test") if other is None else other
    with temporary_folder(".unsealing-", artifacts.storage) as private:
        out = private / "features-test"
        for _ in features_of(extract, slices, out, world, artifacts, rows=rows):
            pass
        yield Store.open(out)


def _check_alike(ours: Store, other: Store) -> None:
    if (ours.schema.shape, ours.classes) != (other.schema.shape, other.classes):
        raise UserError(
            f"data: the other cohort's images are {_shape(other)} of the classes "
            f"{', '.join(other.classes)}, the run's {_shape(ours)} of {', '.join(ours.classes)}; "
            "bring the same sequences or colours, and the same classes"
        )


def _shape(store: Store) -> str:
    return " x ".join(map(str, store.schema.shape))


def _trained_again(
    config: ClassifyTrial, result: ClassifyResult, folder: Path, world: World
) -> Checkpoint:
    """The last checkpoint of another training, which has to end as the first one did."""
    checkpoint = again = None
    if result.precision is not None:  # that which "auto" came to
        spec = config.classifier.model_copy(update={"precision": result.precision})
        config = config.model_copy(update={"classifier": spec})
    for progress in classify(config, world, _artifacts(folder), None):
        checkpoint, again = progress.checkpoint or checkpoint, progress.result
    assert checkpoint is not None
    before = result.predictions.probability.array()
    now = again.predictions.probability.array() if isinstance(again, ClassifyResult) else None
    if now is None or now.shape != before.shape or np.abs(now - before).max() > SAME:
        raise IntegrityError(
            f"{folder}: trained again, {config.full_title} says something else of the patients "
            "that it was scored on (another processor or another torch, perhaps); run the study "
            "again with resources.keep_classifiers"
        )
    return checkpoint


def _artifacts(trial: Path) -> Artifacts:
    """``trial`` is ``<storage>/<run>/trials/<key>``."""
    return Artifacts(trial.parents[2])


def _on_device(checkpoint: Checkpoint, world: World) -> Checkpoint:
    tensors = {name: tensor.to(world.device) for name, tensor in checkpoint.tensors.items()}
    return Checkpoint(checkpoint.epoch, checkpoint.step, tensors, checkpoint.state)
