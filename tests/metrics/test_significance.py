import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test
from scipy.stats import t as student

from medaug.metrics.significance import (
    effective_rows,
    holm,
    mcnemar,
    nadeau_bengio,
    published_balanced_accuracy,
    sign_flip_test,
    wilson_interval,
)
from medaug.metrics.uncertainty import gain


def patient_shares(a, b):
    """Each patient's part of the gain, by hand: all patients here have equally many rows."""
    shares = []
    for name in a.patients:
        right = [np.mean((t.predicted == t.label)[t.patient == name]) for t in (a, b)]
        n_class = np.sum(a.strata == a.strata[a.patients == name])
        shares.append((right[0] - right[1]) / n_class / 2)
    return np.array(shares)


def test_sign_flips_equal_scipys_permutation_test(cohort):
    rng = np.random.default_rng(0)
    a, b = cohort(rng, patients=10, skill=1.5), cohort(rng, patients=10, skill=0.2)
    shares = patient_shares(a, b)
    assert shares.sum() == pytest.approx(gain(a, b).mean)
    exact = permutation_test(
        (shares,), np.sum, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip_test(a, b) == pytest.approx(exact)
    a, b = cohort(rng, patients=40, skill=1.0), cohort(rng, patients=40, skill=0.5)
    sampled = permutation_test(
        (patient_shares(a, b),), np.sum, permutation_type="samples", n_resamples=20_000, rng=0
    ).pvalue
    assert sign_flip_test(a, b) == pytest.approx(sampled, abs=0.015)


def test_sign_flips_of_equal_tables_prove_nothing(cohort):
    table = cohort(np.random.default_rng(0))
    assert sign_flip_test(table, table) == 1


def test_mcnemar_is_the_binomial_test_of_the_disagreements():
    label = np.ones(20, dtype=int)
    a = np.r_[np.ones(15), np.zeros(5)]
    b = np.r_[np.zeros(9), np.ones(6), np.ones(1), np.zeros(4)]
    assert mcnemar(label, a, b) == pytest.approx(binomtest(9, 10).pvalue)
    assert mcnemar(label, a, a) == 1


def test_nadeau_bengio_is_a_t_test_with_a_wider_error():
    d = np.array([0.05, 0.02, 0.04, -0.01, 0.03, 0.06, 0.01, 0.02, 0.03, 0.05])
    p, low, high = nadeau_bengio(d, test_to_train=0.25)
    error = d.std(ddof=1) * np.sqrt(1 / 10 + 0.25)
    assert p == pytest.approx(2 * student.sf(d.mean() / error, 9))
    assert (low + high) / 2 == pytest.approx(d.mean())
    assert high - low == pytest.approx(2 * student.ppf(0.975, 9) * error)
    assert nadeau_bengio([0, 0, 0], 0.25)[0] == 1
    with pytest.raises(ValueError, match="two runs"):
        nadeau_bengio([0.1], 0.25)


def test_holm_steps_down_in_the_order_given():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])


@pytest.mark.parametrize(("k", "n"), [(0, 12), (7, 11), (30, 30)])
def test_wilson_equals_scipy(k, n):
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson_interval(k / n, n) == pytest.approx((expected.low, expected.high))


def test_study_a_says_little_about_its_eleven_patients():
    """SCIENCE: with 11 patients the 95 % range of that accuracy is .44-.77."""
    rows = effective_rows(570, 11, correlation=0.3)
    assert rows == pytest.approx(35, abs=0.5)
    low, high = wilson_interval(0.61, rows)
    assert low == pytest.approx(0.44, abs=0.02)
    assert high == pytest.approx(0.77, abs=0.02)


def test_study_a_as_published_is_not_better_than_chance():
    for recalls in ((0.05, 0.95), (0.384, 0.569)):
        mean, low, high = published_balanced_accuracy(recalls, rows=(208, 362), patients=(4, 7))
        assert mean == pytest.approx(np.mean(recalls))
        assert 0 < low < 0.5 < high < 1
    mean, low, _ = published_balanced_accuracy((0.95, 0.93), rows=(317, 855), patients=(317, 855))
    assert low > 0.9
