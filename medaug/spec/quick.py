"""A study made small: whether all is read as it was meant, in minutes instead of hours."""

from __future__ import annotations

from typing import Any, TypeVar

from medaug.spec.base import Spec
from medaug.spec.study import ArmSpec, PretrainSpec, SegmenterSpec, StudySpec
from medaug.spec.sweep import STOPPING

S = TypeVar("S", bound=Spec)

PATIENTS, PIXELS, EPOCHS, ROWS = 24, 64, 4, 32
BASE, PHANTOMS, STEPS = 8, 12, 20


def quick(study: StudySpec) -> StudySpec:
    """``study`` with few patients, folds, epochs and added rows, one seed and no axes, as
    ``NAME-quick``. Every stage and every arm is still there; the scores are not meaningful."""
    data, split = study.data, study.split
    return _with(
        study,
        name=f"{study.name[:58]}-quick",
        data=_with(
            data,
            max_patients=min(data.max_patients or PATIENTS, PATIENTS),
            phantom=_with(data.phantom, patients=min(data.phantom.patients, PATIENTS)),
            # Networks of images are made for one size; a U-Net takes any.
            image_size=min(data.image_size, PIXELS) if study.features else data.image_size,
        ),
        split=_with(split, folds=min(split.folds, 2), test_fraction=0.0),
        segmenter=_small_segmenter(study.segmenter) if study.segmenter else None,
        arms={name: _small_arm(arm) for name, arm in study.arms.items()},
        classifier=study.classifier.at_most(EPOCHS),
        classifiers={name: each.at_most(EPOCHS) for name, each in study.classifiers.items()},
        sweep=_with(
            study.sweep,
            **{
                "n_synthetic": (min(*study.sweep.n_synthetic, ROWS),),
                "per_class": study.sweep.per_class[:1],
                "train_rows": None,
                "draws": 1,
            },
            **{"grid": {}, "tie": (), "search": "grid", "space": {}},
            **dict.fromkeys(STOPPING),
            seeds=study.sweep.seeds[:1],
        ),
    )


def _small_segmenter(segmenter: SegmenterSpec) -> SegmenterSpec:
    pretrain = segmenter.pretrain
    weights = pretrain is not None and pretrain.weights is not None
    return _with(
        segmenter,
        base=segmenter.base if weights else min(segmenter.base, BASE),  # of the weights' size
        epochs=min(segmenter.epochs, EPOCHS),
        pretrain=_small_pretrain(pretrain) if pretrain else None,
    )


def _small_pretrain(pretrain: PretrainSpec) -> PretrainSpec:
    phantom = pretrain.phantom
    if phantom is not None:
        phantom = _with(phantom, patients=min(phantom.patients, PHANTOMS))
    return _with(pretrain, epochs=min(pretrain.epochs, EPOCHS), phantom=phantom)


def _small_arm(arm: ArmSpec) -> ArmSpec:
    most = {"epochs": EPOCHS, "steps_per_epoch": STEPS}
    given = {key: getattr(arm, key, None) for key in most}
    return _with(arm, **{key: min(n, most[key]) for key, n in given.items() if n is not None})


def _with(spec: S, **changes: Any) -> S:
    return spec.model_copy(update=changes)
