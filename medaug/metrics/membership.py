"""A membership-inference attack: does a generator give away whose scans it was trained on?

The attacker holds the generated rows and a person's scan, and asks whether that person was among
the training patients. His evidence is how close the nearest generated row comes (GAN-Leaks, Chen et
al. 2020, the attack on generated samples alone), set against how close the person's rows lie to
other real people's, since a common anatomy is near to everything (their calibrated attack).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from medaug.metrics.neighbours import nearest, neighbour_radius, owner_index
from medaug.metrics.uncertainty import expanded_levels
from medaug.seeding import numpy_generator

Array = np.ndarray
FEWEST_PATIENTS = 2
"""On each side, for an interval."""


class Membership(NamedTuple):
    """AUC of the attack over patients: .5 gives nothing away, 1 gives everybody away."""

    auc: float
    low: float
    high: float


def membership_attack(
    train: Array,
    heldout: Array,
    fake: Array,
    train_patients: Array,
    heldout_patients: Array,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Membership:
    """Attack ``fake`` (n, d): tell the patients of ``train`` from those of ``heldout``.

    A patient's evidence is that of the most telling of its rows. The interval resamples the
    patients of both sides. NaN where a side has no patient, or fewer than two for the interval, or
    there is no generated row.

    Args:
        train, heldout: rows (n, d) of the generator's training patients and of others, in the same
            space as ``fake``.
        train_patients, heldout_patients: whose they are, str (n,).
    """
    if min(len(train), len(heldout), len(fake)) == 0:
        return Membership(math.nan, math.nan, math.nan)
    real = np.concatenate([train, heldout])
    inside_index = owner_index(train, train_patients)
    outside_index = owner_index(heldout, heldout_patients) + inside_index.max() + 1
    owner = np.concatenate([inside_index, outside_index])
    to_fake, _ = nearest(real, fake)
    others = neighbour_radius(real, 1, owner)
    tiny = np.finfo(np.float64).tiny
    evidence = np.log(np.maximum(others, tiny)) - np.log(np.maximum(to_fake, tiny))
    best = np.full(owner.max() + 1, -np.inf)
    np.maximum.at(best, owner, evidence)
    inside, outside = np.split(best, [inside_index.max() + 1])
    auc = _auc(inside[None], outside[None])[0]
    if min(len(inside), len(outside)) < FEWEST_PATIENTS:
        return Membership(float(auc), math.nan, math.nan)
    rng = numpy_generator("membership", seed)
    drawn = (rng.choice(side, (resamples, len(side))) for side in (inside, outside))
    quantiles = expanded_levels(min(len(inside), len(outside)), level)
    low, high = np.quantile(_auc(*drawn), quantiles)
    return Membership(float(auc), float(low), float(high))


def _auc(inside: Array, outside: Array) -> Array:
    """Share of (inside, outside) pairs in which inside is larger, ties half: float64 (B,)."""
    out = np.empty(len(inside))
    for i, (a, b) in enumerate(zip(inside, outside, strict=True)):
        b = np.sort(b)
        below = np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")
        out[i] = below.sum() / (2 * len(a) * len(b))
    return out
