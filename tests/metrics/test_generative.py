import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.covariance import LedoitWolf
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from medaug.metrics.generative import (
    Projection,
    diversity_ratio,
    frechet_distance,
    frechet_distance_shrunk,
    frechet_from_moments,
    frechet_infinity,
    frechet_null,
    gap_gmp,
    kernel_distance,
    patient_halves,
)


def gaussians(n: int, m: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated, shifted and differently scaled rows."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) / np.sqrt(d)
    return rng.normal(size=(n, d)) @ mix, 0.3 + 1.4 * rng.normal(size=(m, d)) @ mix.T


def by_sqrtm(x: np.ndarray, y: np.ndarray) -> float:
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    shift = x.mean(axis=0) - y.mean(axis=0)
    return shift @ shift + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)


@pytest.mark.parametrize(("n", "m", "d"), [(400, 300, 12), (60, 500, 40), (1000, 1000, 30)])
def test_frechet_distance_equals_torchmetrics_and_sqrtm(n, m, d):
    x, y = gaussians(n, m, d)
    ours = frechet_distance(x, y)
    assert ours == pytest.approx(by_sqrtm(x, y), rel=1e-6)
    moments = [torch.tensor(f(z)) for z in (x, y) for f in (lambda z: z.mean(axis=0), _cov)]
    assert ours == pytest.approx(_compute_fid(*moments).item(), rel=1e-6)


def _cov(z: np.ndarray) -> np.ndarray:
    return np.cov(z, rowvar=False)


@pytest.mark.parametrize(("n", "m", "d"), [(20, 15, 50), (10, 200, 60), (200, 10, 60)])
def test_frechet_distance_is_exact_for_fewer_rows_than_dimensions(n, m, d):
    """sqrtm fails on singular covariances; a tiny ridge on it comes close."""
    x, y = gaussians(n, m, d)
    ridge = 1e-10 * np.eye(d)
    s1, s2 = _cov(x) + ridge, _cov(y) + ridge
    shift = x.mean(axis=0) - y.mean(axis=0)
    cross = np.sqrt(np.linalg.eigvals(s1 @ s2).real.clip(min=0)).sum()
    expected = shift @ shift + np.trace(s1 + s2) - 2 * cross
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-3)


def test_frechet_distance_of_two_gaussians_has_a_closed_form():
    """Commuting covariances: |m1 - m2|^2 + sum (sd1 - sd2)^2."""
    m1, m2 = np.array([0.0, 1, 2]), np.array([1.0, 1, 0])
    sd1, sd2 = np.array([1.0, 2, 3]), np.array([2.0, 2, 1])
    expected = ((m1 - m2) ** 2).sum() + ((sd1 - sd2) ** 2).sum()
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    covariances = [turn @ np.diag(sd**2) @ turn.T for sd in (sd1, sd2)]
    got = frechet_from_moments(turn @ m1, covariances[0], turn @ m2, covariances[1])
    assert got == pytest.approx(expected)
    rng = np.random.default_rng(1)
    x, y = (m + sd * rng.normal(size=(200_000, 3)) for m, sd in ((m1, sd1), (m2, sd2)))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=0.02)


def test_frechet_distance_of_rows_to_themselves_is_zero():
    x, _ = gaussians(50, 50, 80)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("ratio", "low", "high"), [(1, 0.49, 0.53), (4, 0.11, 0.13), (18, 0.02, 0.035)]
)
def test_identical_gaussians_lie_apart_by_sciences_reference_points(ratio, low, high):
    d = 200
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, ratio * d, d))
    assert low <= frechet_distance(x, y) / d <= high


def test_shrunk_frechet_distance_uses_scikit_learns_covariances():
    x, y = gaussians(40, 60, 20)
    s1, s2 = LedoitWolf().fit(x).covariance_, LedoitWolf().fit(y).covariance_
    shift = x.mean(axis=0) - y.mean(axis=0)
    expected = shift @ shift + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    assert frechet_distance_shrunk(x, y) == pytest.approx(expected)
    rng = np.random.default_rng(0)
    same = rng.normal(size=(2, 40, 20))
    assert frechet_distance_shrunk(*same) < frechet_distance(*same) / 2


def test_extrapolation_removes_the_bias_of_few_rows():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 400, 40))
    assert abs(frechet_infinity(x, y)) < frechet_distance(x, y) / 4
    assert frechet_infinity(x, y + 1) == pytest.approx(40, rel=0.05)
    assert np.isnan(frechet_infinity(x[:70], y))


def test_kernel_distance_equals_torchmetrics_and_is_unbiased():
    x, y = gaussians(80, 80, 15)
    kernel = {
        name: (torch.tensor(a @ b.T) / 15 + 1) ** 3
        for name, (a, b) in {"xx": (x, x), "xy": (x, y), "yy": (y, y)}.items()
    }
    from torchmetrics.image.kid import maximum_mean_discrepancy

    expected = maximum_mean_discrepancy(kernel["xx"], kernel["xy"], kernel["yy"])
    assert kernel_distance(x, y, block=32) == pytest.approx(expected.item())
    assert kernel_distance(x, y) == pytest.approx(poly_mmd(torch.tensor(x), torch.tensor(y)).item())
    rng = np.random.default_rng(0)
    same = [kernel_distance(*rng.normal(size=(2, 30, 5))) for _ in range(300)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(300)


def test_gap_gmp_pools_tensors_of_any_precision():
    x = np.random.default_rng(0).random((3, 4, 5, 6)).astype(np.float16)
    pooled = gap_gmp(torch.from_numpy(x))
    assert (pooled.shape, pooled.dtype) == ((3, 8), np.float32)
    np.testing.assert_allclose(pooled[:, :4], x.astype(float).mean(axis=(2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(pooled[:, 4:], x.max(axis=(2, 3)))
    np.testing.assert_array_equal(gap_gmp(x), pooled)


def test_projection_is_fitted_on_real_rows_and_keeps_distances():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(50, 6)) * [1, 10, 100, 1, 1, 0] + 5
    whole = Projection(real)
    np.testing.assert_allclose(whole(real).std(axis=0), [1, 1, 1, 1, 1, 0], atol=1e-12)
    assert np.isfinite(whole(real + 1)).all()
    all_of_them = Projection(real, k=6)
    distances = [np.linalg.norm(z(real)[0] - z(real)[1]) for z in (whole, all_of_them)]
    assert distances[0] == pytest.approx(distances[1])
    assert Projection(real, k=2)(rng.normal(size=(7, 6))).shape == (7, 2)
    x = rng.normal(size=(7, 6))
    with_rest = Projection(real, k=2, rest=True)(x)
    assert with_rest.shape == (7, 8)
    np.testing.assert_allclose(with_rest[:, :2], Projection(real, k=2)(x))
    np.testing.assert_allclose(with_rest @ with_rest.T, whole(x) @ whole(x).T, atol=1e-12)


def test_diversity_is_the_ratio_of_spreads():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(500, 8))
    assert diversity_ratio(real, 0.3 * real + 7) == pytest.approx(0.3)
    assert diversity_ratio(real, np.zeros((5, 8))) == 0


def test_halves_share_no_patient():
    patients = np.repeat(list("abcdefg"), 3)
    splits = list(patient_halves(patients, repeats=6))
    for a, b in splits:
        assert not set(patients[a]) & set(patients[b])
        assert sorted([*a, *b]) == list(range(21))
    assert len({tuple(a) for a, _ in splits}) > 1
    assert all(
        np.array_equal(a, again)
        for (a, _), (again, _) in zip(splits, patient_halves(patients, 6), strict=True)
    )
    others = np.repeat(list("gbfaced"), 3)  # what they are called decides nothing
    assert [list(a) for a, _ in patient_halves(others, 6)] == [list(a) for a, _ in splits]
    with pytest.raises(ValueError, match="two patients"):
        next(patient_halves(np.array(["a", "a"]), 1))


def test_the_null_grows_with_differences_between_patients():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 20)
    rows = rng.normal(size=(400, 5))
    alike, spread = frechet_null(rows, patients)
    clustered, _ = frechet_null(rows + rng.normal(size=(20, 5))[patients], patients)
    assert 0 < spread < alike < clustered / 3


def test_features_without_two_rows_are_refused():
    with pytest.raises(ValueError, match="two rows"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
