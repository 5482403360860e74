import math
import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error as binary_ece
from torchmetrics.functional.classification import multiclass_calibration_error as multiclass_ece

from medaug.metrics import classification as c


def rows(n_classes: int, n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)) + 1.2 * np.eye(n_classes)[label]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return label, p.round(2) / p.round(2).sum(axis=1, keepdims=True)  # rounding makes ties


@pytest.mark.parametrize("n_classes", [2, 4])
def test_scores_equal_scikit_learn(n_classes):
    label, p = rows(n_classes)
    predicted = p.argmax(axis=1)
    confusion = c.confusion_matrix(label, predicted, n_classes)
    assert np.array_equal(confusion, sk.confusion_matrix(label, predicted))
    prf = sk.precision_recall_fscore_support(label, predicted)
    np.testing.assert_allclose(c.precision(confusion), prf[0])
    np.testing.assert_allclose(c.recall(confusion), prf[1])
    np.testing.assert_allclose(c.f1(confusion), prf[2])
    scores = c.classification_scores(label, p, predicted, n_classes)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(label, predicted))
    balanced = sk.balanced_accuracy_score(label, predicted)
    assert scores["balanced_accuracy"] == pytest.approx(balanced)
    assert scores["macro_f1"] == pytest.approx(sk.f1_score(label, predicted, average="macro"))
    assert scores["mcc"] == pytest.approx(sk.matthews_corrcoef(label, predicted))
    assert scores["log_loss"] == pytest.approx(sk.log_loss(label, p))
    one_hot = np.eye(n_classes)[label]
    if n_classes == 2:
        assert scores["auroc"] == pytest.approx(sk.roc_auc_score(label, p[:, 1]))
        assert scores["auprc"] == pytest.approx(sk.average_precision_score(label, p[:, 1]))
        assert scores["brier"] == pytest.approx(sk.brier_score_loss(label, p[:, 1]))
        assert scores["sensitivity"] == scores["recall_class1"]
        assert scores["specificity"] == scores["recall_class0"]
    else:
        assert scores["auroc"] == pytest.approx(sk.roc_auc_score(label, p, multi_class="ovr"))
        assert scores["auprc"] == pytest.approx(sk.average_precision_score(one_hot, p))
        assert scores["brier"] == pytest.approx(((p - one_hot) ** 2).sum(axis=1).mean())


def test_calibration_error_equals_torchmetrics():
    label, p = rows(2)
    p = np.random.default_rng(1).random(len(label))  # off the bin edges
    expected = binary_ece(torch.tensor(p), torch.tensor(label), n_bins=15)
    assert c.expected_calibration_error(label, p) == pytest.approx(expected.item())
    label, p = rows(4)
    p = np.random.default_rng(1).dirichlet(np.ones(4), len(label))
    expected = multiclass_ece(torch.tensor(p), torch.tensor(label), num_classes=4, n_bins=15)
    assert c.expected_calibration_error(label, p) == pytest.approx(expected.item())


def test_scores_of_counts_take_any_leading_axes():
    counts = np.random.default_rng(0).integers(0, 9, size=(3, 5, 4, 4))
    for score in (c.accuracy, c.balanced_accuracy, c.macro_f1, c.mcc, c.recall, c.precision):
        together = score(counts)
        assert together.shape[:2] == (3, 5)
        np.testing.assert_allclose(together[1, 2], score(counts[1, 2]))


def test_outputs_that_are_no_class_count_as_errors():
    """Study C's third neuron is never a target."""
    confusion = c.confusion_matrix(np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1]), n_classes=2)
    assert confusion.shape == (2, 3)
    assert c.recall(confusion).tolist() == [0.5, 1]
    assert c.balanced_accuracy(confusion) == 0.75
    assert c.mcc(confusion) == pytest.approx(sk.matthews_corrcoef([0, 0, 1, 1], [0, 2, 1, 1]))


@pytest.mark.parametrize("only", [0, 1])
def test_rows_of_one_class_leave_two_class_scores_undefined(only):
    label, p = np.full(10, only), np.linspace(0, 1, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = c.classification_scores(label, p)
        curve = c.roc_curve(label, p)
    for name in ("balanced_accuracy", "mcc", "auroc", "auprc", f"recall_class{1 - only}"):
        assert math.isnan(scores[name]), name
    for name in ("accuracy", "brier", "ece", "log_loss", f"recall_class{only}"):
        assert math.isfinite(scores[name]), name
    undefined = curve.true_positive_rate if only == 0 else curve.false_positive_rate
    assert np.isnan(undefined).all()
    assert c.choose_threshold(label, p) == 0.5


def test_no_rows_are_no_crash():
    nothing = np.array([], dtype=int)
    assert all(math.isnan(s) for s in c.classification_scores(nothing, np.array([])).values())


def test_constant_predictions_have_no_correlation():
    assert c.mcc(np.array([[3, 0], [5, 0]])) == 0


def test_study_a_published_recalls_are_chance_and_below():
    """SCIENCE: (.95 + .05) / 2 = .500 and (.569 + .384) / 2 = .4765; majority scores .635."""
    hgg, lgg = 362, 208
    for recalls, expected in (((0.05, 0.95), 0.5), ((0.384, 0.569), 0.4765)):
        right = np.array([recalls[0] * lgg, recalls[1] * hgg])
        confusion = np.array([[right[0], lgg - right[0]], [hgg - right[1], right[1]]])
        assert c.balanced_accuracy(confusion) == pytest.approx(expected)
    assert c.accuracy(np.array([[0, lgg], [0, hgg]])) == pytest.approx(0.635, abs=5e-4)


def test_roc_curve_spans_the_square_and_holds_the_auroc():
    label, p = rows(2)
    curve = c.roc_curve(label, p)
    assert (curve.false_positive_rate[0], curve.true_positive_rate[0]) == (0, 0)
    assert (curve.false_positive_rate[-1], curve.true_positive_rate[-1]) == (1, 1)
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == pytest.approx(c.auroc(label, p))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=2, max_size=40))
def test_no_threshold_beats_the_chosen_one(pairs):
    label = np.array([y for y, _ in pairs], dtype=int)
    p = np.array([k for _, k in pairs]) / 12
    chosen = c.choose_threshold(label, p)

    def merit(threshold: float) -> float:
        return float(c.balanced_accuracy(c.confusion_matrix(label, c.predict(p, threshold))))

    if label.min() == label.max():
        assert chosen == 0.5
        return
    best = max(merit(t) for t in np.arange(-1, 27) / 24)
    assert merit(chosen) == pytest.approx(best)


def test_threshold_ties_go_to_the_middle_then_down():
    assert c.choose_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])) == 0.5
    label, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.3, 0.7, 0.9])  # .2 and .8 are as good
    assert c.choose_threshold(label, p) == pytest.approx(0.2)
    order = np.array([2, 0, 3, 1])
    assert c.choose_threshold(label[order], p[order]) == c.choose_threshold(label, p)


def test_improper_input_is_refused():
    with pytest.raises(ValueError, match="probabilities must"):
        c.as_distribution(np.array([0.2, 1.2]))
    with pytest.raises(ValueError, match=r"0\.\.1"):
        c.confusion_matrix(np.array([2]), np.array([0]))
    with pytest.raises(ValueError, match="3 labels but 2"):
        c.classification_scores(np.array([0, 1, 1]), np.array([0.1, 0.2]))
