"""The sealed test patients, read for the first time: as finished classifiers want to see them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medaug.errors import UserError
from medaug.experiment.segment import feature_spec, load_unet
from medaug.spec import TrialConfig, build_classifier
from medaug.storage.artifacts import Artifacts
from medaug.store import Store
from medaug.train.checkpoint import Checkpoint, Ledger
from medaug.train.classify import Classifier, classifier_of
from medaug.train.extract import extract_features
from medaug.train.world import World


def load_classifier(folder: Path, world: World) -> Classifier:
    """The classifier of the finished trial in ``folder``: the best epoch, from its ledger.

    Raises:
        UserError: the trial is not finished, or its checkpoints are gone.
    """
    config = _config(folder)
    try:
        result = json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        raise UserError(f"{folder}: not finished; resume the run") from None
    checkpoint = Ledger(folder).latest(config.key)
    if checkpoint is None:
        raise UserError(
            f"{folder}: its checkpoints are gone; delete result.json there and resume the run"
        )
    features = _artifacts(folder).open_store(config.inputs["features"])
    return classifier_of(
        _on_device(checkpoint, world),
        build_classifier(config.settings["classifier"]),
        features.schema.shape,
        len(features.classes),
        threshold=result["threshold"],
    )


@contextmanager
def sealed_rows(folder: Path, world: World) -> Iterator[Store]:
    """The sealed patients' rows for the classifier of the trial in ``folder``.

    Where rows are features, the fold's U-Net encodes the sealed slices now; the features are gone
    when the block ends. Order, labels and patients are the same for all folds.

    Raises:
        UserError: a store or the U-Net is gone.
    """
    artifacts, name = _artifacts(folder), _config(folder).inputs["features"]
    features = artifacts.open_store(name)
    if features.provenance.encoder is None:
        yield features.split("test")
        return
    extract = _config(folder.with_name(name.removeprefix("features-")))
    unet, about = load_unet(extract.inputs["unet"], artifacts)
    slices = artifacts.open_store(extract.inputs["slices"]).split("test")
    with tempfile.TemporaryDirectory(prefix=".unsealing-", dir=artifacts.storage) as private:
        out = Path(private) / "features-test"
        for _ in extract_features(
            unet,
            feature_spec(extract, about),
            slices,
            tuple(about["normalisation"]),
            out,
            world,
            provenance=features.provenance,
        ):
            pass
        yield Store.open(out)


def _config(trial: Path) -> TrialConfig:
    return TrialConfig.model_validate_json((trial / "config.json").read_text())


def _artifacts(trial: Path) -> Artifacts:
    """``trial`` is ``<storage>/<run>/trials/<key>``."""
    return Artifacts(trial.parents[2])


def _on_device(checkpoint: Checkpoint, world: World) -> Checkpoint:
    tensors = {name: tensor.to(world.device) for name, tensor in checkpoint.tensors.items()}
    return Checkpoint(checkpoint.epoch, checkpoint.step, tensors, checkpoint.state)
