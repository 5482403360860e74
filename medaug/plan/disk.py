"""How much a study will write, from its plan alone: asked before anything runs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

import torch

from medaug.experiment import output_name
from medaug.models.unet import UNet, tap_shape
from medaug.spec import DrawTrial, ExtractTrial, GenerateTrial, StudySpec, TrialConfig
from medaug.spec.encoder import EfficientNetLite0Spec, ImageEncoderSpec, PixelsPcaSpec
from medaug.storage.artifacts import Artifacts

CHECKPOINT_BYTES = 16
"""Per float32 weight: itself, the best one so far, and Adam's two moments."""
MOST_NUMBERS = 8192
KEPT = 2
"""Checkpoints that a trial keeps."""


def bytes_to_write(study: StudySpec, trials: Iterable[TrialConfig], rows: int) -> int:
    """Bytes of the stores that ``trials`` will make of ``rows`` slices, those that are there
    already left out, and of the U-Nets' checkpoints that exist at a time.

    Checkpoints of generators and classifiers are small beside them, and not counted.
    """
    artifacts = Artifacts(study.storage)
    makers = [trial for trial in trials if trial.stage != "classify"]
    new = [trial for trial in makers if not artifacts.has(output_name(trial))]
    stores = sum(_rows_made(trial, rows) * row_bytes_of(trial, study) for trial in new)
    unets = sum(trial.stage == "segment" for trial in new)
    at_once = min(unets, study.resources.max_concurrent or os.cpu_count() or 1)
    return stores + at_once * KEPT * CHECKPOINT_BYTES * _unet_weights(study)


def row_bytes(study: StudySpec) -> int:
    """Of one row that a classifier is given: a feature, or an image where nothing makes such."""
    size = study.data.image_size
    if study.image_encoder is not None:
        return 4 * _numbers(study.image_encoder)
    if study.features is None or study.segmenter is None:
        return 4 * len(study.data.sequences) * size * size
    values = math.prod(tap_shape(study.features.tap, study.segmenter.base, size))
    return values * torch.finfo(getattr(torch, study.features.dtype)).bits // 8


def row_bytes_of(trial: TrialConfig, study: StudySpec) -> int:
    """Of one row that a trial makes."""
    if isinstance(trial, DrawTrial):
        return 4 * trial.channels * trial.side**2
    if isinstance(trial, ExtractTrial) and trial.encoder is not None:
        return 4 * _numbers(trial.encoder)
    return row_bytes(study)


def _numbers(encoder: ImageEncoderSpec) -> int:
    """What an encoder makes of an image; of networks that are not open, at most."""
    match encoder:
        case PixelsPcaSpec(components=components):
            return components
        case EfficientNetLite0Spec(taps=taps):
            return 1808 if taps == "blocks" else 1280
    return MOST_NUMBERS


def _rows_made(trial: TrialConfig, rows: int) -> int:
    if isinstance(trial, DrawTrial):
        return trial.rows
    if isinstance(trial, GenerateTrial):
        return trial.n
    return rows if trial.stage == "extract" else 0


def _unet_weights(study: StudySpec) -> int:
    if study.segmenter is None:
        return 0
    with torch.device("meta"):  # nothing is computed
        unet = UNet(len(study.data.sequences), study.segmenter.base)
    return sum(parameter.numel() for parameter in unet.parameters())
