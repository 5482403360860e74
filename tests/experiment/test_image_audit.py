"""The near-copy audit of generators of images looks through the image extractor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medaug.metrics.extractor import image_features
from medaug.metrics.neighbours import near_copies
from medaug.seeding import generator

ROWS = 4
"""Images of one patient."""


def anatomies(n: int, seed: int, side: int) -> torch.Tensor:
    """Smooth random fields (N, 1, 64, 64), finer with more cells on a ``side``."""
    coarse = torch.randn(n, 1, side, side, generator=generator("anatomy", seed, side))
    return F.interpolate(coarse, size=(64, 64), mode="bicubic")


def cohort(patients: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Images of patients who differ more between than within themselves; and whose they are."""
    index = np.repeat(np.arange(patients), ROWS)
    x = anatomies(patients, seed, 8)[index] + 0.3 * anatomies(len(index), seed, 12)
    return x.tanh(), np.char.add(f"{seed}-", index.astype(str))


TRAIN, PATIENTS = cohort(30, seed=0)
HELDOUT, HELDOUT_PATIENTS = cohort(20, seed=1)


def audit(fake: torch.Tensor) -> tuple[float, bool]:
    """The rate of near-copies, and whether it would keep the generator from being exported."""
    sides = (image_features(x) for x in (TRAIN, HELDOUT, fake))
    found = near_copies(*sides, PATIENTS, HELDOUT_PATIENTS)
    return found.rate, found.exceeds_heldout


@pytest.mark.parametrize("change", ["noise", "shifted a pixel", "darker", "blurred"])
def test_a_memory_of_training_images_is_found_behind_small_changes(change: str) -> None:
    noise = torch.randn(TRAIN.shape, generator=generator("noise"))
    copies = {
        "noise": TRAIN + 0.03 * noise,
        "shifted a pixel": TRAIN.roll((1, 1), (2, 3)),
        "darker": 0.9 * TRAIN,
        "blurred": F.avg_pool2d(F.pad(TRAIN, (1, 1, 1, 1), mode="replicate"), 3, 1),
    }
    rate, refused = audit(copies[change])
    assert rate > 0.8
    assert refused


def test_images_of_new_patients_pass() -> None:
    rate, refused = audit(cohort(40, seed=2)[0])
    assert rate < 0.2
    assert not refused
