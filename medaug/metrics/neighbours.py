"""Nearest-neighbour measures: support, diversity and copying.

All compare distances with the distance of real rows to *other patients'* real rows. Neighbouring
slices of one patient are near-copies of each other; counted as neighbours they shrink every radius
until only copies of the training rows score well (measured on prototypes: duplicates reach
coverage 1.0, real rows of unseen patients .11).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medaug.metrics.uncertainty import expanded_levels
from medaug.seeding import numpy_generator

Array = np.ndarray
BLOCK = 512
"""Rows of a distance matrix held at a time."""
ROUNDING = 1e-11
"""Share of |x|^2 + |y|^2 below which a squared distance in float64 is rounding error."""


def owner_index(x: Array, patients: Array | None = None) -> Array:
    """The patient of each row as a number from 0, int64 (n,); every row its own without names."""
    return np.arange(len(x)) if patients is None else np.unique(patients, return_inverse=True)[1]


def most_neighbours(x: Array, patients: Array | None = None) -> int:
    """How many neighbours every row has among the rows of other patients."""
    return len(x) - int(np.bincount(owner_index(x, patients)).max(initial=0))


def neighbour_radius(x: Array, k: int, patients: Array | None = None) -> Array:
    """Distance of each row to its k-th nearest row of another patient, float64 (n,).

    Without ``patients`` only the row itself is left out. Raises ValueError where a patient has
    fewer than k rows of others.
    """
    owner = owner_index(x, patients)
    if most_neighbours(x, patients) < k:
        raise ValueError(
            f"{len(x)} rows: some have only {most_neighbours(x, patients)} rows of other patients, "
            f"fewer than k = {k}"
        )
    radius = np.empty(len(x))
    for rows, distance in _distance_blocks(x, x):
        distance[owner[rows, None] == owner] = np.inf
        radius[rows] = np.partition(distance, k - 1, axis=1)[:, k - 1]
    return radius


def nearest(x: Array, to: Array) -> tuple[Array, Array]:
    """Of each row of ``x``: distance to its nearest row of ``to``, and that row's index."""
    distance, index = np.empty(len(x)), np.empty(len(x), dtype=np.int64)
    for rows, block in _distance_blocks(x, to):
        index[rows] = block.argmin(axis=1)
        distance[rows] = np.take_along_axis(block, index[rows, None], axis=1)[:, 0]
    return distance, index


def support_scores(
    real: Array,
    fake: Array,
    k: int = 5,
    patients: Array | None = None,
    fake_patients: Array | None = None,
) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    precision: share of fakes inside some real row's k-ball; recall: share of real rows inside some
    fake's k-ball; density: real balls over a fake, divided by k; coverage: share of real balls
    that hold a fake. Balls of real rows reach to the k-th row of another patient, and so do those
    of the other side when ``fake_patients`` says that it is real too (the null value).
    """
    real_radius = neighbour_radius(real, k, patients)
    fake_radius = neighbour_radius(fake, k, fake_patients)
    balls_over_fake = np.zeros(len(fake))
    recalled, covered = np.zeros((2, len(real)), dtype=bool)
    for rows, distance in _distance_blocks(real, fake):
        inside_real = distance < real_radius[rows, None]
        balls_over_fake += inside_real.sum(axis=0)
        covered[rows] = inside_real.any(axis=1)
        recalled[rows] = (distance < fake_radius).any(axis=1)
    return {
        "precision": float(np.mean(balls_over_fake > 0)),
        "recall": float(np.mean(recalled)),
        "density": float(np.mean(balls_over_fake) / k),
        "coverage": float(np.mean(covered)),
    }


def authenticity(train: Array, fake: Array, patients: Array | None = None) -> float:
    """Share of fakes farther from their nearest training row than that row is from its nearest
    other patient (Alaa et al. 2022, section 4; there, other row)."""
    distance, source = nearest(fake, train)
    return float(np.mean(distance > neighbour_radius(train, 1, patients)[source]))


def copy_ratio(train: Array, rows: Array, patients: Array | None = None) -> tuple[Array, Array]:
    """Distance to the nearest training row over the distance to the nearest row of any *other*
    training patient, float64 (n,), and the nearest row's index.

    0 is a copy of one patient; near 1, no patient in particular is meant. The ratio does not
    mistake for copies what is merely average: a point in the middle of the data is near to many
    patients alike. ``patients`` are those of ``train``, at least two.
    """
    owner = owner_index(train, patients)
    if owner.max(initial=0) < 1:
        raise ValueError("a copy is told by comparing with a second training patient: only one")
    ratio, source = np.zeros(len(rows)), np.empty(len(rows), dtype=np.int64)
    for part, distance in _distance_blocks(rows, train):
        source[part] = distance.argmin(axis=1)
        first = distance.min(axis=1)
        distance[owner[source[part], None] == owner] = np.inf
        np.divide(first, distance.min(axis=1), out=ratio[part], where=first > 0)
    return ratio, source


def nn_distance_ratio(train: Array, heldout: Array, fake: Array) -> float:
    """Median distance to the nearest training row, fakes over held-out real rows: 0 copies, about
    1 as new as unseen patients."""
    return float(np.median(nearest(fake, train)[0]) / np.median(nearest(heldout, train)[0]))


@dataclass(frozen=True, eq=False)
class NearCopies:
    """Which synthetic rows are near-copies of training rows."""

    is_copy: Array
    """Bool (m,), of the fakes."""
    source: Array
    """Index (m,) of each fake's nearest training row."""
    threshold: float
    """Copy ratio at or below which a row is a near-copy."""
    heldout_rate: float
    """Share of held-out real rows at or below the threshold (the quantile, more with ties)."""
    low: float
    high: float
    """95 % interval of :attr:`rate`; holds the luck in who was held out and in what was drawn."""

    @property
    def rate(self) -> float:
        return float(np.mean(self.is_copy))

    @property
    def exceeds_heldout(self) -> bool:
        """The generator resembles single training patients more than unseen patients do."""
        return self.low > self.heldout_rate


def near_copies(
    train: Array,
    heldout: Array,
    fake: Array,
    patients: Array | None = None,
    heldout_patients: Array | None = None,
    *,
    quantile: float = 0.05,
    resamples: int = 1000,
    seed: int = 0,
) -> NearCopies:
    """Near-copy audit of synthetic rows against the training rows.

    A row is a near-copy when its :func:`copy_ratio` does not exceed the ``quantile`` of held-out
    real rows' ratios: it singles out a training patient as only 5 % of the real rows of unseen
    patients happen to do. A few held-out patients fix that threshold badly, so the interval of
    the rate comes from resampling them (whole) and the fakes. ``heldout_patients`` must be others
    than ``patients``, which are those of ``train``.
    """
    ratio, source = copy_ratio(train, fake, patients)
    heldout_ratio, _ = copy_ratio(train, heldout, patients)
    threshold = float(np.quantile(heldout_ratio, quantile, method="inverted_cdf"))
    rng = numpy_generator("near-copies", seed)
    owner = owner_index(heldout, heldout_patients)
    n_owners = owner.max() + 1
    draws = rng.multinomial(n_owners, np.full(n_owners, 1 / n_owners), size=resamples)
    order = np.argsort(heldout_ratio)
    mass = np.cumsum(draws[:, owner[order]], axis=1)
    at = (mass >= quantile * mass[:, -1:]).argmax(axis=1)
    rates = np.searchsorted(np.sort(ratio), heldout_ratio[order][at], side="right") / len(ratio)
    levels = expanded_levels(n_owners) if n_owners > 1 else (0.0, 1.0)
    low, high = np.quantile(rng.binomial(len(ratio), rates) / len(ratio), levels)
    return NearCopies(
        is_copy=ratio <= threshold,
        source=source,
        threshold=threshold,
        heldout_rate=float(np.mean(heldout_ratio <= threshold)),
        low=float(low),
        high=float(high),
    )


def _distance_blocks(x: Array, y: Array) -> Iterator[tuple[slice, Array]]:
    """Euclidean distances, (slice of x's rows, float64 (rows, len(y))) at a time.

    By |x|^2 + |y|^2 - 2 x.y, as one matrix product; what is rounding error of it counts as 0, so
    that an exact copy is at distance 0.
    """
    centre = np.mean(y, axis=0, dtype=float)
    x, y = np.asarray(x, dtype=float) - centre, np.asarray(y, dtype=float) - centre
    x_square, y_square = (x**2).sum(axis=1), (y**2).sum(axis=1)
    for start in range(0, len(x), BLOCK):
        rows = slice(start, min(start + BLOCK, len(x)))
        size = x_square[rows, None] + y_square
        square = size - 2 * (x[rows] @ y.T)
        yield rows, np.sqrt(np.where(square > ROUNDING * size, square, 0))
