"""The U-Nets of a study: on phantoms, then on each fold's patients."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from medaug.errors import UserError
from medaug.experiment import output_name
from medaug.spec import SegmentTrial, StudySpec


def pretrain_trials(study: StudySpec, slices: str | None) -> tuple[SegmentTrial, ...]:
    """The one on phantoms of the slice store ``slices``; none where the study asks for none."""
    spec = study.segmenter
    if spec is None or spec.pretrain is None or spec.pretrain.phantom is None:
        return ()
    assert slices is not None, "pre-training on phantoms needs their slice store"
    settings = spec.model_copy(
        update={"pretrain": None, "epochs": spec.pretrain.epochs, "lr": spec.pretrain.lr}
    )
    return (
        SegmentTrial(
            segmenter=settings,
            slices=slices,
            fold=0,
            ranks=study.resources.ranks,
            purpose="pretrain",
        ),
    )


def segment_trials(
    study: StudySpec, slices: str, pretrain: Sequence[SegmentTrial]
) -> tuple[SegmentTrial, ...]:
    """One for each fold; none where the study has no segmenter. Raises UserError where a file of
    weights cannot be read."""
    if (segmenter := study.segmenter) is None:
        return ()
    source, weights_sha256 = segmenter.pretrain, None
    if source and source.weights:
        weights_sha256 = _file_sha256(source.weights)
    elif pretrain:  # the starting weights' name already says where they come from
        segmenter = segmenter.model_copy(update={"pretrain": None})
    return tuple(
        SegmentTrial(
            segmenter=segmenter,
            slices=slices,
            initial=output_name(pretrain[0]) if pretrain else None,
            weights_sha256=weights_sha256,
            fold=fold,
            ranks=study.resources.ranks,
        )
        for fold in range(study.split.folds)
    )


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"segmenter.pretrain.weights: {path}: {error.strerror}") from None
