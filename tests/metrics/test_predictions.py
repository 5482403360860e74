import numpy as np
import pytest

from medaug.metrics.predictions import Predictions


def trial(seed: int, fold: int, threshold: float = 0.5) -> Predictions:
    patients = {0: ["a", "a", "b"], 1: ["c", "d", "d"]}[fold]
    label = {0: [0, 0, 1], 1: [0, 1, 1]}[fold]
    probability = [0.1, 0.7, 0.6] if fold == 0 else [0.3, 0.2, 0.9]
    return Predictions.of_trial(
        patients, label, probability, seed=seed, fold=fold, threshold=threshold
    )


def test_a_trial_calls_rows_by_its_threshold():
    assert trial(0, 0).predicted.tolist() == [0, 1, 1]
    assert trial(0, 0, threshold=0.65).predicted.tolist() == [0, 1, 0]


def test_patients_are_called_by_their_mean_probability_and_their_folds_threshold():
    table = Predictions.concat([trial(s, f, [0.35, 0.6][f]) for s in (0, 1) for f in (1, 0)])
    whole = table.by_patient()
    assert len(whole) == 8
    assert sorted(whole.patient[whole.seed == 1]) == ["a", "b", "c", "d"]
    by_name = {name: whole.select((whole.patient == name) & (whole.seed == 0)) for name in "abcd"}
    assert {n: p.probability.item() for n, p in by_name.items()} == pytest.approx(
        {"a": 0.4, "b": 0.6, "c": 0.3, "d": 0.55}
    )
    assert {n: p.predicted.item() for n, p in by_name.items()} == {"a": 1, "b": 1, "c": 0, "d": 0}
    assert {n: p.label.item() for n, p in by_name.items()} == {"a": 0, "b": 1, "c": 0, "d": 1}


def test_a_patient_of_several_labels_has_a_row_for_each():
    table = Predictions.of_trial(["a", "a", "b"], [0, 1, 0], [0.1, 0.2, 0.3], seed=0, fold=0)
    assert table.strata.tolist() == [1, 0]
    assert not table.labels_are_patients
    whole = table.by_patient()
    assert list(zip(whole.patient, whole.label, strict=True)) == [("a", 0), ("a", 1), ("b", 0)]


def test_draws_are_replicates_like_seeds():
    tables = [
        Predictions.of_trial(["a", "a", "b"], [0, 0, 1], [0.1, p, 0.6], seed=s, draw=d, fold=0)
        for s, d, p in ((0, 0, 0.3), (0, 1, 0.5), (2, 0, 0.7))
    ]
    table = Predictions.concat(tables)
    assert table.replicates.tolist() == [[0, 0], [0, 1], [2, 0]]
    assert table.replicate_index.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    whole = table.by_patient()
    assert whole.draw.tolist().count(1) == 2
    assert whole.probability[(whole.draw == 1) & (whole.patient == "a")] == pytest.approx([0.3])
    assert table.labels_are_patients


def test_many_classes_average_as_distributions():
    p = np.array([[0.6, 0.3, 0.1], [0.0, 0.1, 0.9], [0.2, 0.5, 0.3]])
    table = Predictions.of_trial(["a", "a", "b"], [2, 2, 1], p, seed=0, fold=0, n_classes=3)
    whole = table.by_patient()
    np.testing.assert_allclose(whole.probability, [[0.3, 0.2, 0.5], [0.2, 0.5, 0.3]])
    assert whole.predicted.tolist() == [2, 1]


def test_unfit_columns_are_refused():
    with pytest.raises(ValueError, match="column label has 1 rows, patient 2"):
        Predictions.of_trial(["a", "b"], [0], [0.1, 0.2], seed=0, fold=0)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1"):
        Predictions.of_trial(["a", "b"], [0, 2], [0.1, 0.2], seed=0, fold=0)
    with pytest.raises(ValueError, match="probabilities"):
        Predictions.of_trial(["a", "b"], [0, 1], [0.1, np.nan], seed=0, fold=0)
