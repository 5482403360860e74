from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.utils.class_weight import compute_class_weight

from medaug.errors import UserError
from medaug.train.weighting import (
    class_counts,
    class_weights,
    equal_classes,
    log_loss,
    logit_shift,
    patient_weights,
)

LABEL = np.array([0, 0, 0, 0, 1, 1, 2])


def test_class_weights_are_scikit_learns_and_average_one() -> None:
    weight = class_weights(class_counts(LABEL, "abc"))
    np.testing.assert_allclose(
        weight, compute_class_weight("balanced", classes=np.arange(3), y=LABEL)
    )
    assert weight[LABEL].mean() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(LABEL, weight[LABEL]), 7 / 3)


def test_a_class_without_rows_is_named() -> None:
    with pytest.raises(UserError, match="no training row of class d among 7"):
        class_counts(LABEL, "abcd")


def test_logit_adjustment_gives_the_posterior_under_equal_classes() -> None:
    """Two Gaussians at -1 and 1 with shares .9 and .1: the adjusted logit is 2x."""
    x = np.linspace(-2, 2, 9)
    logits = np.stack([np.log(0.9) - (x + 1) ** 2 / 2, np.log(0.1) - (x - 1) ** 2 / 2], axis=1)
    counts = np.array([90, 10])
    adjusted = softmax(logits + logit_shift(counts, "logit_adjust"), axis=1)
    np.testing.assert_allclose(adjusted[:, 1], 1 / (1 + np.exp(-2 * x)))
    assert (logit_shift(counts, "none") == 0).all()
    assert (logit_shift(counts, "class_weights") == 0).all()
    half = logit_shift(counts, "logit_adjust", tau=0.5)
    np.testing.assert_allclose(2 * half, logit_shift(counts, "logit_adjust"))


def test_patients_and_classes_weigh_alike() -> None:
    patient = np.array(["a", "a", "a", "b", "c", "c", "d"])
    weight = patient_weights(patient)
    for name in "abcd":
        assert weight[patient == name].sum() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(LABEL, equal_classes(LABEL, weight, 4)), 1)


def test_log_loss_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    logits, weight = rng.standard_normal((7, 3)), rng.random(7)
    expected = sklearn_log_loss(LABEL, softmax(logits, axis=1), sample_weight=weight)
    assert log_loss(logits, LABEL, weight) == pytest.approx(expected)
