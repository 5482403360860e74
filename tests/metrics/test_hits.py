"""Patients as units: against the definition written out, and for slices with labels of their own."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk

from medaug.metrics.hits import hits_of
from medaug.metrics.predictions import Predictions


def test_a_score_is_the_balanced_accuracy_of_patients_called_by_their_mean(cohort):
    table = cohort(np.random.default_rng(0), patients=21, seeds=3)
    hits = hits_of(table)
    whole = table.by_patient()
    for s in range(3):
        rows = whole.select(whole.seed == s)
        expected = sk.balanced_accuracy_score(rows.label, rows.predicted)
        assert hits.totals[s, 0] == pytest.approx(expected)
    assert hits.recalls().mean() == pytest.approx(hits.totals.mean())
    assert len(hits.label) == len(hits.patients) == 21


def test_draws_are_an_axis_of_their_own(cohort):
    tables = [cohort(np.random.default_rng(i), seeds=2) for i in range(3)]
    columns = [table.select(np.arange(len(table))) for table in tables]
    for draw, table in enumerate(columns):
        table.draw[:] = draw
    hits = hits_of(Predictions.concat(columns))
    assert hits.right.shape == (40, 2, 3)
    for draw, table in enumerate(tables):
        np.testing.assert_allclose(hits.totals[:, draw], hits_of(table).totals[:, 0])


def slices_of_both_labels(n: int, each: int, p_right: float, rng: np.random.Generator):
    """``n`` patients with ``each`` slices of either label, right with the same chance."""
    patient = np.repeat(np.arange(n), 2 * each)
    label = np.tile(np.repeat([0, 1], each), n)
    # A classifier that leans the right way by little and errs by slice, not by patient.
    lean = np.quantile(rng.normal(size=100_000), p_right)
    odds = (2 * label - 1) * lean + rng.normal(size=len(label))
    probability = 1 / (1 + np.exp(-odds))
    return Predictions.of_trial(patient.astype(str), label, probability, seed=0, fold=0)


def test_slices_with_labels_of_their_own_are_called_one_by_one():
    """Their mean over the label's slices would call a coin that leans a little near perfect."""
    table = slices_of_both_labels(50, 40, 0.6, np.random.default_rng(0))
    assert not table.labels_are_patients
    assert hits_of(table).totals.mean() == pytest.approx(0.6, abs=0.02)
    peeking = table.by_patient()
    assert sk.balanced_accuracy_score(peeking.label, peeking.predicted) > 0.9


def test_patients_count_alike_however_many_slices_they_have():
    """Patient a: 90 of 100 negative slices right, b: none of 2; positives all right."""
    patient = np.array(["a"] * 100 + ["b"] * 2 + ["a", "b", "c"])
    label = np.array([0] * 102 + [1, 1, 1])
    probability = np.array([0.1] * 90 + [0.9] * 10 + [0.9] * 2 + [0.9] * 3)
    hits = hits_of(Predictions.of_trial(patient, label, probability, seed=0, fold=0))
    assert hits.recalls().tolist() == pytest.approx([0.45, 1.0])
    assert hits.totals.item() == pytest.approx(0.725)
    assert hits.patients[hits.patient].tolist() == ["a", "a", "b", "b", "c"]
    assert hits.influence.shape == (3, 1, 1)
    assert hits.influence.sum() == pytest.approx(0)


def test_replicates_that_all_say_the_same_are_one(cohort):
    table = cohort(np.random.default_rng(0), seeds=1)
    copies = [table.select(np.arange(len(table))) for _ in range(3)]
    for seed, copy in enumerate(copies):
        copy.seed[:] = seed
    hits = hits_of(Predictions.concat(copies))
    assert hits.right.shape == (40, 1, 1)
    np.testing.assert_allclose(hits.totals, hits_of(table).totals)


def test_unfinished_replicates_leave_the_patients(cohort):
    table = cohort(np.random.default_rng(0))
    hits = hits_of(table.select((table.seed < 4) | (table.fold == 0)))
    assert not hits.complete
    assert hits.right.shape == (40, 1, 1)
    without = hits_of(table.select(table.seed < 4)).right.mean(axis=(1, 2))
    np.testing.assert_allclose(hits.right[1:5, 0, 0], without[1:5])  # fold 0 is every fifth
