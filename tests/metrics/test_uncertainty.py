import time

import numpy as np
import pytest
import sklearn.metrics as sk
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from medaug.metrics import classification
from medaug.metrics.predictions import Predictions
from medaug.metrics.uncertainty import gain, interval, statistic


def per_seed(table: Predictions, metric: str = "balanced_accuracy") -> np.ndarray:
    return statistic(table, metric)(np.ones((1, len(table.patients))))[0]


def test_scores_under_patient_weights_equal_scores_of_the_repeated_rows(cohort):
    """The vectorised counts against the literal resample: rows written out as often as drawn."""
    table = cohort(np.random.default_rng(0), patients=12, seeds=2)
    weights = np.random.default_rng(1).integers(0, 4, size=(3, 12))
    for metric in ("balanced_accuracy", "accuracy", "macro_f1", "mcc", "brier", "lowest_recall"):
        fast = statistic(table, metric)(weights.astype(float))
        for b, s in np.ndindex(3, 2):
            rows = np.flatnonzero(table.seed == s)
            rows = np.repeat(rows, weights[b, table.patient_index[rows]])
            drawn = table.select(rows)
            scores = classification.classification_scores(
                drawn.label, drawn.probability, drawn.predicted
            )
            scores["lowest_recall"] = min(scores["sensitivity"], scores["specificity"])
            assert fast[b, s] == pytest.approx(scores[metric]), metric


@pytest.mark.parametrize(
    ("metric", "reference"),
    [("auroc", sk.roc_auc_score), ("auprc", sk.average_precision_score)],
)
def test_rank_scores_under_weights_equal_scikit_learn(cohort, metric, reference):
    table = cohort(np.random.default_rng(0), patients=20, seeds=2)
    table = table.select(table.fold == 3)
    table.probability.round(1, out=table.probability)  # ties
    weights = np.random.default_rng(1).integers(0, 3, size=(4, len(table.patients))).astype(float)
    weights[:, 0] = weights[:, 1] = 1
    fast = statistic(table, metric)(weights)
    for b, s in np.ndindex(4, 2):
        rows = table.select(table.seed == s)
        expected = reference(
            rows.label, rows.probability, sample_weight=weights[b, rows.patient_index]
        )
        assert fast[b, s] == pytest.approx(expected)


def test_networks_of_different_folds_are_not_ranked_against_each_other(cohort):
    table = cohort(np.random.default_rng(0), skill=2)
    shifted = np.where(table.fold == 0, 0.9 + 0.1 * table.probability, table.probability)
    moved = table.select(np.arange(len(table)))
    np.copyto(moved.probability, shifted)
    assert interval(moved, "auroc").mean == pytest.approx(interval(table, "auroc").mean)


def test_folds_are_scored_together_and_seeds_averaged(cohort):
    table = cohort(np.random.default_rng(0))
    expected = [
        sk.balanced_accuracy_score(table.label[table.seed == s], table.predicted[table.seed == s])
        for s in range(5)
    ]
    result = interval(table)
    assert result.mean == pytest.approx(np.mean(expected))
    assert (result.n_patients, result.n_seeds) == (40, 5)
    assert result == interval(table)
    assert result.low < result.mean < result.high


def test_intervals_cover_and_a_t_interval_over_seeds_does_not(cohort):
    """What a study would find with new patients and new seeds: the bootstrap must hold it."""
    truth = np.mean([per_seed(cohort(np.random.default_rng(9), patients=20_000, seeds=2))])
    trials = 200
    crossed = seeds_only = 0
    for i in range(trials):
        table = cohort(np.random.default_rng(100 + i))
        ours = interval(table, resamples=300)
        crossed += ours.low <= truth <= ours.high
        scores = per_seed(table)
        reach = student.ppf(0.975, 4) * scores.std(ddof=1) / np.sqrt(5)
        seeds_only += abs(scores.mean() - truth) <= reach
    assert crossed / trials >= 0.90
    assert seeds_only / trials < 0.60


def test_equal_arms_rarely_show_a_gain_and_often_do_by_a_t_test_over_seeds(cohort):
    """Each arm errs on patients of its own; neither is better."""
    trials = 200
    crossed = seeds_only = 0
    for i in range(trials):
        rng = np.random.default_rng(1000 + i)
        shared = rng.normal(0, 1.0, 40)
        a, b = (cohort(rng, patient_effect=shared + rng.normal(0, 0.7, 40)) for _ in range(2))
        ours = gain(a, b, resamples=300)
        crossed += not ours.low <= 0 <= ours.high
        seeds_only += ttest_1samp(per_seed(a) - per_seed(b), 0).pvalue < 0.05
    assert crossed / trials <= 0.10
    assert seeds_only / trials > 0.12


def test_pairing_sharpens_a_gain_and_finds_a_real_one(cohort):
    rng = np.random.default_rng(3)
    shared = rng.normal(0, 1.2, 60)
    better = cohort(rng, patients=60, skill=1.2, patient_effect=shared)
    worse = cohort(rng, patients=60, skill=0.4, patient_effect=shared)
    result = gain(better, worse)
    assert result.mean == pytest.approx(interval(better).mean - interval(worse).mean)
    assert result.low > 0
    single = interval(better)
    assert result.high - result.low < single.high - single.low


def test_no_difference_is_no_gain_whatever_is_drawn(cohort):
    table = cohort(np.random.default_rng(0)).by_patient()
    result = gain(table, table)
    assert (result.mean, result.low, result.high) == (0, 0, 0)


def test_arms_with_other_seeds_may_be_compared(cohort):
    rng = np.random.default_rng(0)
    result = gain(cohort(rng, seeds=5), cohort(rng, seeds=3))
    assert result.low < result.mean < result.high


def test_only_the_same_patients_in_the_same_folds_are_compared(cohort):
    a = cohort(np.random.default_rng(0))
    with pytest.raises(ValueError, match="patient p-0000"):
        gain(a, a.select(a.patient != "p-0000"))
    moved = a.select(np.arange(len(a)))
    moved.fold[moved.patient == "p-0007"] = 4
    with pytest.raises(ValueError, match="patient p-0007"):
        gain(a, moved)


def test_one_patient_in_a_class_says_nothing(cohort):
    table = cohort(np.random.default_rng(0), patients=20)
    alone = table.select((table.label == 0) | (table.patient == "p-0001"))
    result = interval(alone)
    assert np.isfinite(result.mean)
    assert np.isnan([result.low, result.high]).all()


def test_an_unfinished_sweep_still_has_a_row(cohort):
    """Seed 4 has run fold 0 only, whose patients happen to be of both classes."""
    table = cohort(np.random.default_rng(0))
    unfinished = table.select((table.seed < 4) | (table.fold == 0))
    assert np.isfinite([interval(unfinished).low, interval(unfinished).high]).all()


def test_few_patients_widen_the_interval(cohort):
    widths = []
    for patients in (10, 40, 160):
        result = interval(cohort(np.random.default_rng(0), patients=patients))
        widths.append(result.high - result.low)
    assert widths == sorted(widths, reverse=True)


def test_two_thousand_resamples_of_a_study_take_less_than_a_second(cohort):
    table = cohort(np.random.default_rng(0), patients=100, rows=50)
    start = time.process_time()
    interval(table, resamples=2000)
    gain(table, table, resamples=2000)
    assert time.process_time() - start < 1
