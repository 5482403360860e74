"""The sealed test patients, read for the first time: as finished classifiers want to see them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from medaug.errors import UserError
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


def load_classifier(trial: Trained, world: World) -> Classifier:
    """The classifier of a finished trial: from its ledger, or solved again.

    Raises:
        UserError: the trial is not finished, or its checkpoints are gone.
        IntegrityError: its checkpoint is damaged.
    """
    config, result, folder = trial.config, trial.result, trial.folder
    assert isinstance(config, ClassifyTrial)
    if not isinstance(result, ClassifyResult):
        raise UserError(f"{folder}: not finished; resume the run")
    if isinstance(config.classifier, LinearSpec):  # milliseconds, and it is the same again
        return solved(config, _artifacts(folder), world)
    checkpoint = Ledger(folder).finished(config.key)
    if checkpoint is None:
        raise UserError(
            f"{folder}: its checkpoints are gone; delete result.json there and resume the run"
        )
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
    assert isinstance(trial.config, ClassifyTrial)
    folder, name = trial.folder, trial.config.features
    artifacts = _artifacts(folder)
    features = artifacts.open_store(name)
    if features.provenance.encoder is None:
        yield features.split("test")
        return
    extract = TrialFolder(folder.parents[1], name.removeprefix("features-")).config()
    assert isinstance(extract, ExtractTrial)
    slices = artifacts.open_store(extract.slices)
    with temporary_folder(".unsealing-", artifacts.storage) as private:
        out = private / "features-test"
        for _ in features_of(extract, slices, out, world, artifacts, sealed=True):
            pass
        yield Store.open(out)


def _artifacts(trial: Path) -> Artifacts:
    """``trial`` is ``<storage>/<run>/trials/<key>``."""
    return Artifacts(trial.parents[2])


def _on_device(checkpoint: Checkpoint, world: World) -> Checkpoint:
    tensors = {name: tensor.to(world.device) for name, tensor in checkpoint.tensors.items()}
    return Checkpoint(checkpoint.epoch, checkpoint.step, tensors, checkpoint.state)
