"""Logistic regression along a grid of penalties, and what every linear fit comes to."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medaug.train.space import span

log = logging.getLogger(__name__)

MOST_NEWTON = 1200
"""Above so many coefficients, the Hessian costs more than L-BFGS's many steps."""
BETTER = 1e-9
"""By so much a loss has to be lower for a weaker penalty to be taken."""

Judge = Callable[[np.ndarray], float]
"""Logits (n, K) of the validation rows -> their loss."""


@dataclass(frozen=True)
class LinearFit:
    """``logits(codes (n, k))``: codes @ weight + bias; of codes of length 1 where a ``centre`` is
    given, seen from which they are."""

    weight: np.ndarray
    """(k, K) float64."""
    bias: np.ndarray
    """(K,) float64."""
    chosen: dict[str, float]
    """What the validation rows chose, by name."""
    centre: np.ndarray | None = None
    """(k,) float64."""

    def logits(self, codes: np.ndarray) -> np.ndarray:
        if self.centre is not None:
            codes = unit(codes - self.centre)
        return codes @ self.weight + self.bias


def unit(codes: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one."""
    length = np.linalg.norm(codes, axis=1, keepdims=True)
    return codes / np.maximum(length, np.finfo(float).tiny)


def fit_probe(
    codes: np.ndarray,
    label: np.ndarray,
    row_weight: np.ndarray | None,
    c_grid: Sequence[float],
    val_codes: np.ndarray,
    judge: Judge,
) -> LinearFit:
    """L2-penalised multinomial logistic regression for each C, and the one that ``judge`` prefers.

    Each fit starts from the one before (stronger penalty). A fit to n rows of k > n numbers lies
    in the rows' span (Kimeldorf & Wahba 1970), so it is done there, in n dimensions: the same
    solution, since the penalty does not change under rotation. Of equal losses the stronger
    penalty wins.

    Args:
        codes: (n, k) float64.
        label: (n,) of 0..K-1, each class among them.
        row_weight: (n,) or None for ones.
        c_grid: rising, in scikit-learn's sense: the penalty is |w|^2 / 2C beside a sum over rows.
    """
    axes = None
    if codes.shape[1] > len(codes):
        axes, codes = span(codes)
        val_codes = val_codes @ axes
    best: tuple[float, float, np.ndarray, np.ndarray] | None = None
    for c, weight, bias in _path(codes, label, row_weight, c_grid):
        loss = judge(val_codes @ weight + bias)
        if best is None or loss < best[0] - BETTER:
            best = (loss, c, weight, bias)
    assert best is not None
    _, c, weight, bias = best
    return LinearFit(weight if axes is None else axes @ weight, bias, {"log10_c": math.log10(c)})


def _path(
    codes: np.ndarray, label: np.ndarray, row_weight: np.ndarray | None, c_grid: Sequence[float]
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """(C, weight (k, K), bias (K,)) for each C."""
    import sklearn
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    n_classes = int(label.max()) + 1
    newton = codes.shape[1] * (1 if n_classes == 2 else n_classes) <= MOST_NEWTON
    model = LogisticRegression(
        solver="newton-cholesky" if newton else "lbfgs",
        tol=1e-6 if newton else 1e-5,
        max_iter=1000,
        warm_start=True,
    )
    # Rows are finite: the store says so of each.
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        for c in c_grid:
            model.C = c
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model.fit(codes, label, row_weight)
            if any(issubclass(each.category, ConvergenceWarning) for each in caught):
                log.warning("probe: C = %g has not converged in %d steps", c, model.max_iter)
            weight, bias = model.coef_.T, model.intercept_
            if n_classes == 2:  # a single logit l is (0, l)
                weight, bias = np.pad(weight, ((0, 0), (1, 0))), np.pad(bias, (1, 0))
            yield c, weight, bias
