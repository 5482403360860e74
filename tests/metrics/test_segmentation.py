import math

import pytest
import torch
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from medaug.metrics.segmentation import (
    N_SUMS,
    dice,
    iou,
    overlap_counts,
    segmentation_scores,
    segmentation_sums,
)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    mask = (torch.rand(6, 1, 16, 16, generator=draw) > 0.7).to(torch.uint8)
    mask[0] = 0
    logits = torch.randn(6, 1, 16, 16, generator=draw) + 2 * mask - 1
    return logits, mask


def test_dice_and_iou_equal_torchmetrics_on_the_batch_and_on_each_image(batch):
    logits, mask = batch
    counts = overlap_counts(logits, mask)
    for n, (image, truth) in enumerate(zip(logits, mask, strict=True)):
        assert dice(counts[n]).item() == pytest.approx(
            binary_f1_score(image.sigmoid(), truth).item()
        )
        assert iou(counts[n]).item() == pytest.approx(
            binary_jaccard_index(image.sigmoid(), truth).item()
        )
    pooled = counts.sum(dim=0)
    assert dice(pooled).item() == pytest.approx(binary_f1_score(logits.sigmoid(), mask).item())
    assert iou(pooled).item() == pytest.approx(binary_jaccard_index(logits.sigmoid(), mask).item())


def test_scores_do_not_depend_on_how_rows_fall_into_batches_and_ranks(batch):
    logits, mask = batch
    whole = segmentation_scores(segmentation_sums(logits, mask))
    sizes = [1, 3, 2]
    batches = zip(logits.split(sizes), mask.split(sizes), strict=True)
    parts = [segmentation_sums(x, y) for x, y in batches]
    assert segmentation_scores(torch.stack(parts).sum(dim=0)) == pytest.approx(whole)


def test_scores_per_image_and_over_images_with_a_tumour(batch):
    logits, mask = batch
    per_image = dice(overlap_counts(logits, mask))
    scores = segmentation_scores(segmentation_sums(logits, mask))
    assert scores["dice_per_image"] == pytest.approx(per_image.mean().item())
    assert scores["dice_tumour"] == pytest.approx(per_image[1:].mean().item())


def test_two_empty_masks_agree_and_no_images_score_nan():
    empty = torch.zeros(2, 3, dtype=torch.int64)
    assert dice(empty).tolist() == iou(empty).tolist() == [1, 1]
    scores = segmentation_scores(torch.zeros(N_SUMS))
    assert all(math.isnan(value) for value in scores.values())


def test_threshold_is_a_probability():
    logits = torch.tensor([[0.3, 0.7]]).logit().reshape(1, 1, 1, 2)
    mask = torch.ones(1, 1, 2)
    assert overlap_counts(logits, mask, threshold=0.5).tolist() == [[1, 1, 2]]
    assert overlap_counts(logits, mask, threshold=0.2).tolist() == [[2, 2, 2]]


def test_a_step_never_waits_for_the_device():
    """Meta tensors have no values: whatever asked for one would raise."""
    logits, mask = torch.empty(4, 1, 8, 8, device="meta"), torch.empty(4, 8, 8, device="meta")
    assert segmentation_sums(logits, mask).shape == (N_SUMS,)


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in size"):
        overlap_counts(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5, 5))
