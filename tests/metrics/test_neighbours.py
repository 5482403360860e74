import numpy as np
import pytest
from prdc import compute_prdc
from scipy.spatial.distance import cdist

from medaug.metrics.neighbours import (
    authenticity,
    copy_ratio,
    near_copies,
    nearest,
    neighbour_radius,
    nn_distance_ratio,
    support_scores,
)


def clustered(patients: int, rows: int, d: int = 8, seed: int = 0, within: float = 0.3):
    """Rows of one patient close together, patients far apart."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(patients), rows)
    centres = rng.normal(size=(patients, d))
    return centres[index] + within * rng.normal(size=(len(index), d)), index.astype(str)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_support_scores_equal_prdc(k):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(700, 6)), 0.2 + 0.8 * rng.normal(size=(600, 6))
    assert support_scores(real, fake, k) == pytest.approx(compute_prdc(real, fake, k))


def test_radius_leaves_out_the_patients_own_rows():
    x, patients = clustered(6, 4)
    distance = cdist(x, x)
    distance[patients[:, None] == patients] = np.inf
    for k in (1, 7):
        expected = np.sort(distance, axis=1)[:, k - 1]
        np.testing.assert_allclose(neighbour_radius(x, k, patients), expected)
    with pytest.raises(ValueError, match="fewer than k = 21"):
        neighbour_radius(x, 21, patients)


def test_without_patients_copies_win_and_with_them_unseen_patients_do_well():
    """SCIENCE: duplicates score coverage 1.0, real unseen patients .11, unless neighbours of the
    same patient are left out."""
    train, patients = clustered(40, 20)
    unseen, unseen_patients = clustered(40, 20, seed=1)
    naive = support_scores(train, unseen, k=5)
    assert naive["coverage"] < 0.15
    assert support_scores(train, train.copy(), k=5)["coverage"] == 1
    fair = support_scores(train, unseen, 5, patients, unseen_patients)
    assert fair["coverage"] > 0.6
    assert fair["precision"] > 0.6
    assert fair["recall"] > 0.6


def test_nearest_rows_equal_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(600, 5)), rng.normal(size=(300, 5))
    distance, index = nearest(x, y)
    full = cdist(x, y)
    np.testing.assert_allclose(distance, full.min(axis=1))
    np.testing.assert_array_equal(index, full.argmin(axis=1))


def test_an_exact_copy_is_at_distance_zero_even_far_from_the_origin():
    rng = np.random.default_rng(0)
    y = 1e4 + rng.normal(size=(50, 300))
    distance, index = nearest(y[7:9], y)
    assert distance.tolist() == [0, 0]
    assert index.tolist() == [7, 8]


def test_authenticity_by_hand():
    train = np.array([[0.0], [1.0], [5.0]])  # distances to the nearest other row: 1, 1, 4
    fake = np.array([[0.4], [-1.5], [7.0], [9.5]])  # .4 <= 1, 1.5 > 1, 2 <= 4, 4.5 > 4
    assert authenticity(train, fake) == 0.5
    patients = np.array(["a", "a", "b"])  # now the first two rows look to the third: 5, 4
    assert authenticity(train, fake, patients) == 0.25


def test_copy_ratio_by_hand():
    train = np.array([[0.0], [1.0], [5.0]])
    ratio, source = copy_ratio(train, np.array([[0.2], [3.0], [5.0]]), np.array(["a", "a", "b"]))
    np.testing.assert_allclose(ratio, [0.2 / 4.8, 1, 0])
    assert source.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="second training patient"):
        copy_ratio(train, train, np.array(["a", "a", "a"]))


def test_only_copying_generators_exceed_held_out_patients():
    train, patients = clustered(40, 20, within=0.6)
    heldout, others = clustered(30, 20, seed=1, within=0.6)
    unseen, _ = clustered(60, 10, seed=2, within=0.6)
    rng = np.random.default_rng(3)
    average = train.mean(axis=0) + 0.1 * rng.normal(size=(500, 8))
    jittered = train[rng.permutation(800)[:500]] + 0.02 * rng.normal(size=(500, 8))
    tenth = np.concatenate([unseen[:450], jittered[:50]])
    for fake, copies in ((unseen, False), (average, False), (jittered, True), (tenth, True)):
        audit = near_copies(train, heldout, fake, patients, others)
        assert audit.heldout_rate == pytest.approx(0.05)
        assert audit.exceeds_heldout == copies
    audit = near_copies(train, heldout, jittered, patients, others)
    assert audit.rate == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(audit.source, nearest(jittered, train)[1])
    assert near_copies(train, heldout, tenth, patients, others).is_copy[450:].mean() > 0.9


def test_a_perfect_generator_is_rarely_accused():
    """Nominal 2.5 %, with a threshold from only 20 held-out patients."""
    accused = 0
    for seed in range(0, 300, 5):
        train, patients = clustered(30, 8, seed=seed)
        heldout, others = clustered(20, 8, seed=seed + 1)
        fake, _ = clustered(300, 1, seed=seed + 2)
        audit = near_copies(train, heldout, fake, patients, others, resamples=300)
        accused += audit.exceeds_heldout
        assert audit.low <= audit.rate <= audit.high
    assert accused / 60 <= 0.10


def test_distance_ratio_is_zero_for_copies_and_one_for_unseen_rows():
    rng = np.random.default_rng(0)
    train, heldout, unseen = rng.normal(size=(3, 400, 10))
    assert nn_distance_ratio(train, heldout, train[:50]) == 0
    assert nn_distance_ratio(train, heldout, unseen) == pytest.approx(1, abs=0.05)
