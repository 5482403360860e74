"""The sealed test patients, read for the first time: as finished classifiers want to see them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from medaug.errors import UserError
from medaug.experiment.extract import features_of
from medaug.experiment.solve import solved
from medaug.spec import ClassifyTrial, ExtractTrial, LinearSpec, TrialConfig
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import ClassifyResult
from medaug.storage.trial_folder import TrialFolder
from medaug.store import Store
from medaug.train.checkpoint import Checkpoint, Ledger
from medaug.train.classify import Classifier, classifier_of
from medaug.train.world import World

T = TypeVar("T", bound=TrialConfig)


def load_classifier(folder: Path, world: World) -> Classifier:
    """The classifier of the finished trial in ``folder``: the best epoch, from its ledger.

    Raises:
        UserError: the trial is not finished, or its checkpoints are gone.
        IntegrityError: its checkpoint is damaged.
    """
    config, result = _config(folder, ClassifyTrial), _folder(folder).result()
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
def sealed_rows(folder: Path, world: World) -> Iterator[Store]:
    """The sealed patients' rows for the classifier of the trial in ``folder``.

    Where rows are features, the fold's U-Net or the encoder makes those of the sealed slices now;
    they are gone when the block ends. Order, labels and patients are the same for all folds.

    Raises:
        UserError: a store or the U-Net is gone.
    """
    artifacts, name = _artifacts(folder), _config(folder, ClassifyTrial).features
    features = artifacts.open_store(name)
    if features.provenance.encoder is None:
        yield features.split("test")
        return
    extract = _config(folder.with_name(name.removeprefix("features-")), ExtractTrial)
    slices = artifacts.open_store(extract.slices)
    with tempfile.TemporaryDirectory(prefix=".unsealing-", dir=artifacts.storage) as private:
        out = Path(private) / "features-test"
        for _ in features_of(extract, slices, out, world, artifacts, sealed=True):
            pass
        yield Store.open(out)


def _folder(trial: Path) -> TrialFolder:
    return TrialFolder(trial.parents[1], trial.name)


def _config(trial: Path, kind: type[T]) -> T:
    config = _folder(trial).config()
    assert isinstance(config, kind)
    return config


def _artifacts(trial: Path) -> Artifacts:
    """``trial`` is ``<storage>/<run>/trials/<key>``."""
    return Artifacts(trial.parents[2])


def _on_device(checkpoint: Checkpoint, world: World) -> Checkpoint:
    tensors = {name: tensor.to(world.device) for name, tensor in checkpoint.tensors.items()}
    return Checkpoint(checkpoint.epoch, checkpoint.step, tensors, checkpoint.state)
