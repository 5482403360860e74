"""Rows as linear classifiers see them: flat, standardised, on a few principal components.

Mean, deviation and components are those of the real training rows; where these are too few for the
components that are wanted, added rows bring the rest (:meth:`FeatureSpace.extended`). Everything
here is float64 and one thread: the same numbers on every machine that rounds alike, and quick for
the few hundred rows that studies have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

COLUMNS = 8192
"""So many numbers of each row are held in float64 at a time."""
EXACT_ROWS = 1500
"""Above this, a few components are found by randomised iteration."""
MOST_ADDED = 500
"""Added rows in which further directions are looked for."""
RANK = 1e-10
"""Directions with less than this share of the largest variance are rounding."""


@dataclass(frozen=True)
class FeatureSpace:
    """``encode``: ((x - mean) / spread) @ axes, or without axes where none are cut off."""

    mean: np.ndarray
    """(d,) float64."""
    spread: np.ndarray
    """(d,) float64, infinite where all training rows have one value."""
    axes: np.ndarray | None
    """(d, k) float64, orthonormal, by falling variance."""

    @staticmethod
    def fit(x: np.ndarray, components: int | None) -> tuple[FeatureSpace, np.ndarray]:
        """The space of ``x`` (n, d) of any float type, and its codes (n, k).

        A number that is the same in all rows says nothing: it is encoded as 0 whatever a later row
        has there. With fewer rows than numbers the components come from the n x n products, which
        costs n^2 d instead of n d^2.
        """
        mean, spread = _moments(x)
        space = FeatureSpace(mean, spread, None)
        n, d = x.shape
        if components is None or (components >= d and d <= n):
            return space, space.encode(x)
        k = max(1, min(components, n - 1, d))
        large = min(n, d) > EXACT_ROWS and k < min(n, d) // 4
        if n < d and not large:
            axes, codes = _from_products(space, x, k)
        else:
            z = space.encode(x)
            axes = _randomised(z, k) if large else _leading(z.T @ z, k)[1]
            codes = z @ axes
        return FeatureSpace(mean, spread, axes), codes

    def extended(self, x: np.ndarray, components: int | None) -> FeatureSpace | None:
        """The further directions of rows ``x`` (m, d), up to ``components`` in all, as a space of
        their own with the same mean and deviation; None where there are none to find.

        A few real rows span few directions: without these, whatever an added row knows besides
        would be cut off, and real rows that are held back would seem to be worth little. The real
        rows are 0 in all of them.
        """
        wanted = 0 if self.axes is None or components is None else components - self.axes.shape[1]
        if wanted <= 0 or not len(x):
            return None
        assert self.axes is not None
        z = FeatureSpace(self.mean, self.spread, None).encode(x[:MOST_ADDED])
        rest = z - (z @ self.axes) @ self.axes.T
        values, vectors = _leading(rest @ rest.T, min(wanted, len(rest)))
        kept = values > RANK * np.square(z).sum()
        if not kept.any():
            return None
        axes = rest.T @ (vectors[:, kept] / np.sqrt(values[kept]))
        return FeatureSpace(self.mean, self.spread, axes)

    def joined(self, other: FeatureSpace) -> FeatureSpace:
        """With the axes of both."""
        assert self.axes is not None
        assert other.axes is not None
        return FeatureSpace(self.mean, self.spread, np.hstack([self.axes, other.axes]))

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Codes (m, k) float64 of rows (m, d)."""
        if self.axes is None:
            return np.concatenate([part for _, part in self._standardised(x)], axis=1)
        codes = np.zeros((len(x), self.axes.shape[1]))
        for columns, part in self._standardised(x):
            codes += part @ self.axes[columns]
        return codes

    def seen_from(self, code: np.ndarray) -> FeatureSpace:
        """The space whose codes are this one's minus ``code`` (k,)."""
        shift = code if self.axes is None else self.axes @ code
        finite = np.where(np.isfinite(self.spread), self.spread, 0)
        return FeatureSpace(self.mean + finite * shift, self.spread, self.axes)

    def affine(self, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(d, K) and (K,): what codes @ weight (k, K) + bias (K,) is on rows as they are."""
        on_rows = (weight if self.axes is None else self.axes @ weight) / self.spread[:, None]
        return on_rows, bias - self.mean @ on_rows

    def tensors(self) -> dict[str, np.ndarray]:
        axes = {} if self.axes is None else {"axes": self.axes}
        return {"mean": self.mean, "spread": self.spread} | axes

    @staticmethod
    def of(tensors: Mapping[str, np.ndarray]) -> FeatureSpace:
        """From what :meth:`tensors` gave."""
        return FeatureSpace(tensors["mean"], tensors["spread"], tensors.get("axes"))

    def _standardised(self, x: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, x.shape[1], COLUMNS):
            columns = slice(start, start + COLUMNS)
            part = x[:, columns].astype(np.float64)
            part -= self.mean[columns]
            part /= self.spread[columns]
            yield columns, part


def span(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The directions (k, r) that ``codes`` (n, k), k > n, take, and their codes there (n, r);
    float64, r <= n."""
    values, vectors = _leading(codes @ codes.T, len(codes))
    root = np.sqrt(np.maximum(values, np.finfo(float).tiny))
    return codes.T @ (vectors / root), vectors * root


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column; the deviation of a constant column is infinite, so that
    whatever is divided by it is 0."""
    mean, spread = np.empty(x.shape[1]), np.empty(x.shape[1])
    for start in range(0, x.shape[1], COLUMNS):
        columns = slice(start, start + COLUMNS)
        part = x[:, columns].astype(np.float64)
        mean[columns] = part.mean(0)
        spread[columns] = np.where(part.max(0) > part.min(0), part.std(0), np.inf)
    return mean, spread


def _leading(products: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` largest eigenvalues of a symmetric matrix and their vectors (n, k), those that are
    rounding left out."""
    n = len(products)
    from scipy.linalg import eigh

    values, vectors = eigh(products, subset_by_index=[n - k, n - 1], overwrite_a=True)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > RANK * max(values[0], 0)
    kept[0] = True  # of rows that are all alike, one direction in which nothing happens
    return values[kept], vectors[:, kept]


def _from_products(space: FeatureSpace, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal axes (d, k) and codes (n, k) from the rows' products with each other."""
    products, blocks = np.zeros((len(x), len(x))), list(space._standardised(x))
    for _, part in blocks:
        products += part @ part.T
    values, vectors = _leading(products, k)
    root = np.sqrt(np.maximum(values, np.finfo(float).tiny))
    axes = np.empty((x.shape[1], len(values)))
    for columns, part in blocks:
        axes[columns] = part.T @ (vectors / root)
    return axes, vectors * root


def _randomised(z: np.ndarray, k: int) -> np.ndarray:
    from sklearn.utils.extmath import randomized_svd

    _, values, axes = randomized_svd(z, k, n_iter=7, random_state=0)
    return axes[values**2 > RANK * values[0] ** 2].T
