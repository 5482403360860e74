"""Stage ``classify``: real rows and an arm's -> classifier -> scores on held-out patients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from medaug.experiment.lineage import choosing_rows, exposure_of, lineage_of
from medaug.experiment.rows import added_rows, arm_context
from medaug.experiment.scores import scores_of
from medaug.experiment.solve import solve_all
from medaug.spec import ClassifyTrial, LinearSpec, NetworkSpec
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import ClassifyResult, HeldOut
from medaug.store import Store
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.classify import Classifier, train_classifier
from medaug.train.world import World


def classify(
    config: ClassifyTrial, world: World, artifacts: Artifacts, resume: Checkpoint | None
) -> Iterator[Progress]:
    """Train a classifier on real rows plus the arm's; score it on the fold's held-out patients."""
    if isinstance(config.classifier, LinearSpec):
        ((_, result),) = solve_all([config], artifacts, world)
        metrics = dict(result.history[0]) if isinstance(result, ClassifyResult) else {}
        yield Progress(1, metrics, result=result)
        return
    spec, honest = config.classifier, config.protocol == "honest"
    assert isinstance(spec, NetworkSpec)
    features = artifacts.open_store(config.features)
    held_out = features.split("eval", config.fold)
    context = arm_context(config, features, world, artifacts)
    added = added_rows(config, features, context, artifacts)
    only_added = not config.real_rows
    trained = context.train.select(np.arange(0 if only_added else len(context.train)))
    # Equal steps for all arms; the papers gave an arm with more rows more steps.
    rows_per_epoch = len(context.train) if honest else len(trained) + len(added or ())
    steps_per_epoch = max(1, rows_per_epoch // spec.batch_size)
    exposure = exposure_of(features, config.fold, trained, added)
    assert features.splits is not None  # or it would have no held-out rows
    keep = config.keep or bool(features.splits.test)
    epochs = train_classifier(
        spec,
        context.train,
        added,
        choosing_rows(features, config.fold),
        world,
        config.seed,
        only_added=only_added,
        steps_per_epoch=steps_per_epoch,
        resume=resume,
    )
    for progress in epochs:
        if progress.result is not None:
            result = ClassifyResult(
                **_scored(progress.result, held_out, world),
                steps=spec.epochs * steps_per_epoch,
                train_rows=len(trained),
                train_patients=len(np.unique(trained.patients)),
                split=features.manifest["splits"]["hash"],
                lineage=lineage_of(exposure, added, features),
                exposure=exposure,
            )
            progress = replace(progress, result=result, keep=keep)
        yield progress


def _scored(classifier: Classifier, held_out: Store, world: World) -> dict[str, Any]:
    """What a classifier says of the held-out rows, and what that is worth."""
    # Not rounded: saturated probabilities must stay on their side of the threshold.
    probability = classifier.predict(held_out, world).astype(float)
    return {
        "scores": scores_of(held_out.labels, probability, classifier.threshold, held_out.classes),
        "threshold": classifier.threshold,
        "best_epoch": classifier.best_epoch,
        "precision": getattr(classifier.spec, "precision", None),
        "history": tuple(classifier.history),
        "predictions": HeldOut.of(
            held_out.patients, held_out.slice_index, held_out.labels, probability
        ),
    }
