"""The attack finds a generator that remembers, and nothing in one that does not."""

from __future__ import annotations

import math

import numpy as np

from medaug.metrics.membership import membership_attack


def rows(seed: int, patients: int, each: int = 3, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((patients, 1, d))
    x = centre + 0.3 * rng.standard_normal((patients, each, d))
    names = np.array([f"{seed}-{i}" for i in range(patients)]).repeat(each)
    return x.reshape(-1, d), names


def test_fresh_rows_give_nobody_away() -> None:
    """Over 60 cohorts the mean AUC is .5, and 95 % intervals leave it out in a few at most."""
    aucs, missed = [], 0
    for i in range(60):
        (train, a), (heldout, b), (fake, _) = (rows(3 * i + k, 20) for k in range(3))
        attack = membership_attack(train, heldout, fake, a, b, seed=i, resamples=300)
        aucs.append(attack.auc)
        missed += not attack.low <= 0.5 <= attack.high
    assert abs(np.mean(aucs) - 0.5) < 0.04
    assert missed <= 8


def test_copies_give_everybody_away() -> None:
    (train, a), (heldout, b) = rows(0, 20), rows(1, 20)
    fake = train + 0.01 * np.random.default_rng(2).standard_normal(train.shape)
    attack = membership_attack(train, heldout, fake, a, b)
    assert attack.auc > 0.99
    assert attack.low > 0.9


def test_one_copied_row_is_enough_to_give_a_patient_away() -> None:
    (train, a), (heldout, b), (fresh, _) = rows(0, 20), rows(1, 20), rows(2, 20)
    fake = np.concatenate([fresh, train[::3]])  # one of each patient's three
    assert membership_attack(train, heldout, fake, a, b).low > 0.9


def test_too_little_is_no_number() -> None:
    (train, a), (heldout, b) = rows(0, 1), rows(1, 1)
    attack = membership_attack(train, heldout, train, a, b)
    assert attack.auc == 1.0
    assert math.isnan(attack.low)
    assert math.isnan(membership_attack(train, heldout, train[:0], a, b).auc)
    assert math.isnan(membership_attack(train, heldout[:0], train, a, b[:0]).auc)
