"""Hard Dice and intersection over union, as sums that add up over batches and ranks.

A step only adds a vector on the device; nothing waits for the host. At the end of an epoch the
vector is all-reduced once and :func:`segmentation_scores` turns it into numbers.
"""

from __future__ import annotations

import math

import torch

N_SUMS = 8
"""Intersection, predicted and true pixels; images and the sums of their Dice and IoU; images with
a tumour and the sum of their Dice."""


def overlap_counts(
    logits_N1HW: torch.Tensor, mask_N1HW: torch.Tensor, threshold: float = 0.5
) -> torch.Tensor:
    """Pixels in the intersection, in the prediction and in the mask of each image; int64 (N, 3).

    ``mask`` is anything that is non-zero inside the tumour; (N, H, W) is accepted too.
    ``threshold`` is a probability: a pixel is predicted when sigmoid(logit) exceeds it.
    """
    predicted = (logits_N1HW > math.log(threshold / (1 - threshold))).flatten(1)
    actual = (mask_N1HW != 0).flatten(1)
    if predicted.shape != actual.shape:
        raise ValueError(
            f"logits {tuple(logits_N1HW.shape)} and mask {tuple(mask_N1HW.shape)} differ in size"
        )
    return torch.stack(
        [(predicted & actual).sum(dim=1), predicted.sum(dim=1), actual.sum(dim=1)], dim=1
    )


def dice(counts: torch.Tensor) -> torch.Tensor:
    """2 |A and B| / (|A| + |B|) of (..., 3) counts, float64; 1 where both are empty.

    Counts of single images give a score per image; their sum over a batch gives TensorLayer's
    batch-reduced ``dice_hard_coe`` (axis [0, 1, 2, 3]), which study A reports.
    """
    intersection, predicted, actual = counts.double().unbind(-1)
    return _ratio(2 * intersection, predicted + actual)


def iou(counts: torch.Tensor) -> torch.Tensor:
    """|A and B| / |A or B| of (..., 3) counts, float64; 1 where both are empty."""
    intersection, predicted, actual = counts.double().unbind(-1)
    return _ratio(intersection, predicted + actual - intersection)


def segmentation_sums(
    logits_N1HW: torch.Tensor, mask_N1HW: torch.Tensor, threshold: float = 0.5
) -> torch.Tensor:
    """What a batch adds to the epoch: float64 (:data:`N_SUMS`,) on the batch's device."""
    counts = overlap_counts(logits_N1HW, mask_N1HW, threshold)
    dice_N, iou_N, has_tumour = dice(counts), iou(counts), (counts[:, 2] > 0).double()
    images = torch.ones_like(dice_N)
    per_image = torch.stack([images, dice_N, iou_N, has_tumour, dice_N * has_tumour])
    return torch.cat([counts.sum(dim=0).double(), per_image.sum(dim=1)])


def segmentation_scores(sums: torch.Tensor) -> dict[str, float]:
    """Scores of added (and all-reduced) :func:`segmentation_sums`.

    ``dice`` and ``iou`` are taken over all pixels that were added, so they depend neither on the
    batch size nor on the number of ranks; ``*_per_image`` are means over images, and
    ``dice_tumour`` is the mean over the images that hold a tumour. NaN without such images.
    """
    totals = sums.double().cpu()
    images, dice_sum, iou_sum, tumour_images, tumour_dice_sum = totals[3:].tolist()
    return {
        "dice": dice(totals[:3]).item() if images else math.nan,
        "iou": iou(totals[:3]).item() if images else math.nan,
        "dice_per_image": dice_sum / images if images else math.nan,
        "iou_per_image": iou_sum / images if images else math.nan,
        "dice_tumour": tumour_dice_sum / tumour_images if tumour_images else math.nan,
    }


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=1), 1.0)
