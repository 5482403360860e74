"""Distances between real and synthetic feature distributions.

All take pooled or projected features phi, (n, d) with d far below the 230,400 numbers of a conv5
map: identical Gaussians already lie .51 per dimension apart in Fréchet distance at n = d, .12 at
n = 4 d and .03 at n = 18 d. Read no value without its real-versus-real value beside it
(:mod:`medaug.metrics.quality`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from medaug.seeding import numbered, numpy_generator

Array = np.ndarray


def gap_gmp(x_NCHW: torch.Tensor | Array) -> Array:
    """Global average and global maximum of each channel, float32 (N, 2 C).

    Runs on the tensor's device and in float32 whatever the dtype, so a half-precision store can
    be pooled batch by batch.
    """
    x = torch.as_tensor(x_NCHW).float().flatten(2)
    return torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1).cpu().numpy()


class Projection:
    """Standardised principal components of real training rows.

    Channels are scaled to unit variance first (a constant channel is only centred), so distances
    have no unit and compare across feature taps. Keeps ``k`` components, at most min(n - 1, d).
    ``rest``: what lies outside of these follows, d more columns, so that distances and products are
    those of all channels. Components of few rows hold all that these vary in, but not all that
    other rows do.
    """

    def __init__(self, real: Array, k: int | None = None, *, rest: bool = False) -> None:
        real = _rows(real)
        self.rest = rest
        self.mean = real.mean(axis=0)
        spread = real.std(axis=0)
        self.scale = np.where(spread > 1e-9 * max(spread.max(), 1e-300), spread, 1.0)
        self.axes: Array | None = None
        if k is not None:
            from sklearn.decomposition import PCA

            pca = PCA(n_components=min(k, len(real) - 1, real.shape[1]), random_state=0)
            self.axes = pca.fit((real - self.mean) / self.scale).components_

    @property
    def n_axes(self) -> int:
        """Components kept."""
        return len(self.mean) if self.axes is None else len(self.axes)

    def __call__(self, x: Array) -> Array:
        """(n, d) -> float64 (n, k), (n, k + d) with the rest, or (n, d) without components."""
        z = (np.asarray(x, dtype=float) - self.mean) / self.scale
        if self.axes is None:
            return z
        scores = z @ self.axes.T
        return np.hstack([scores, z - scores @ self.axes]) if self.rest else scores


def frechet_distance(x: Array, y: Array) -> float:
    """|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2) of the rows' Gaussians (Heusel et al. 2017).

    With centred rows X, Y scaled by 1/sqrt(n - 1), the last trace is the nuclear norm of X Y^T:
    exact for any n >= 2 and d, with no matrix square root and no imaginary part to drop.
    """
    x, y = _rows(x), _rows(y)
    x_factor, y_factor = _covariance_factor(x), _covariance_factor(y)
    shift = x.mean(axis=0) - y.mean(axis=0)
    cross = np.linalg.svdvals(x_factor @ y_factor.T).sum()
    distance = shift @ shift + (x_factor**2).sum() + (y_factor**2).sum() - 2 * cross
    return max(0.0, float(distance))


def frechet_distance_shrunk(x: Array, y: Array) -> float:
    """Fréchet distance with Ledoit-Wolf covariances (2004), for n not far above d."""
    from sklearn.covariance import ledoit_wolf

    x, y = _rows(x), _rows(y)
    s1, s2 = ledoit_wolf(x)[0], ledoit_wolf(y)[0]
    return frechet_from_moments(x.mean(axis=0), s1, y.mean(axis=0), s2)


def frechet_from_moments(m1: Array, s1: Array, m2: Array, s2: Array) -> float:
    """Fréchet (2-Wasserstein) distance, squared, of two Gaussians given by mean and covariance."""
    shift = np.asarray(m1) - np.asarray(m2)
    cross = np.linalg.svdvals(_square_root(s1) @ _square_root(s2)).sum()
    return max(0.0, float(shift @ shift + np.trace(s1) + np.trace(s2) - 2 * cross))


def frechet_infinity(x: Array, y: Array, *, points: int = 15, seed: int = 0) -> float:
    """Fréchet distance extrapolated to infinitely many rows (Chong & Forsyth 2020).

    A line in 1/n through the distances of random shares 1/2 .. 1 of the rows. The paper draws
    from the synthetic rows only; here real rows are as few, so both are drawn in the same share.
    NaN when half the rows of either side are not more than d: the line does not hold there.
    """
    x, y = _rows(x), _rows(y)
    if min(len(x), len(y)) // 2 <= x.shape[1]:
        return float("nan")
    shares = np.linspace(0.5, 1, points)
    distances = []
    for i, share in enumerate(shares):
        rng = numpy_generator("frechet-infinity", seed, i)
        parts = [z[rng.permutation(len(z))[: round(share * len(z))]] for z in (x, y)]
        distances.append(frechet_distance(*parts))
    slope_and_intercept = np.polyfit(1 / shares, distances, 1)
    return float(slope_and_intercept[1])


def kernel_distance(x: Array, y: Array, *, block: int = 1024) -> float:
    """Unbiased squared MMD with the cubic kernel (x.y / d + 1)^3: KID (Binkowski et al. 2018).

    Taken over all rows at once, which is what the paper's average over subsets estimates. May be
    negative, as unbiased estimates of 0 are.
    """
    x, y = _rows(x), _rows(y)
    n, m = len(x), len(y)
    within_x = _kernel_sum(x, x, block) - (_kernel(x, x)).sum()
    within_y = _kernel_sum(y, y, block) - (_kernel(y, y)).sum()
    across = _kernel_sum(x, y, block)
    return float(within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m))


def diversity_ratio(real: Array, fake: Array) -> float:
    """Root mean square distance to the mean, fake over real: 1 as diverse, 0 collapsed.

    Meant within one class; between classes it would count their separation as diversity.
    """
    return float(
        np.sqrt(_rows(fake).var(axis=0, ddof=1).sum() / _rows(real).var(axis=0, ddof=1).sum())
    )


def patient_halves(patients: Array, repeats: int, seed: int = 0) -> Iterator[tuple[Array, Array]]:
    """Seeded random splits of the patients in two: row indices of either half.

    Raises ValueError for fewer than two patients.
    """
    n, index = numbered(np.asarray(patients, dtype=str))
    if n < 2:
        raise ValueError("a patient-disjoint comparison needs at least two patients")
    for repeat in range(repeats):
        order = numpy_generator("patient-halves", seed, repeat).permutation(n)
        first = np.isin(index, order[: n // 2])
        yield np.flatnonzero(first), np.flatnonzero(~first)


def frechet_null(
    x: Array, patients: Array, *, repeats: int = 10, seed: int = 0
) -> tuple[float, float]:
    """Fréchet distance between halves of the real patients: (mean, standard deviation).

    What a perfect generator would score against patients that it has not seen, at half the rows.
    """
    x = _rows(x)
    values = [frechet_distance(x[a], x[b]) for a, b in patient_halves(patients, repeats, seed)]
    return float(np.mean(values)), float(np.std(values, ddof=1))


def _rows(x: Array) -> Array:
    x = np.asarray(x, dtype=float)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"features of shape {x.shape}: want at least two rows of (n, d)")
    return x


def _covariance_factor(x: Array) -> Array:
    """F with F^T F = covariance, (min(n, d), d): R of the centred rows' QR when n > d."""
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    n, d = centred.shape
    return np.asarray(np.linalg.qr(centred, mode="r")) if n > d else centred


def _square_root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def _kernel(x: Array, y: Array) -> Array:
    """Cubic kernel of matching rows."""
    return (np.einsum("nd,nd->n", x, y) / x.shape[1] + 1) ** 3


def _kernel_sum(x: Array, y: Array, block: int) -> float:
    """Sum of the cubic kernel over all pairs, a block of rows at a time."""
    starts = range(0, len(x), block)
    return float(sum(((x[i : i + block] @ y.T / x.shape[1] + 1) ** 3).sum() for i in starts))
