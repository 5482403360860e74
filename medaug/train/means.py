"""Nearest class means, which know nothing of how many rows a class has.

On few or badly labelled rows they are hard to beat, and they cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medaug.train.probe import LinearFit, unit

Logits = Callable[[np.ndarray], np.ndarray]

LOWEST, HIGHEST = 1e-3, 1e3
"""Of the temperature, against the logits' own deviation."""


def fit_means(
    kind: str, codes: np.ndarray, label: np.ndarray, choose: Callable[[Logits], float]
) -> LinearFit:
    """``class_mean`` or ``cosine_mean`` with probabilities.

    ``class_mean``: logits -|z - m_k|^2 / 2T, a linear discriminant whose covariance is shrunk all
    the way to a multiple of the identity, without the classes' shares; |z|^2 is the same for all
    classes and left out, which makes it linear. ``cosine_mean``: logits cos(z - m, m_k - m) / T,
    m the mean of the class means.

    Args:
        codes: (n, k) float64; label (n,) of 0..K-1, each class among them.
        choose: T from a function from codes to logits at T = 1.
    """
    means = np.stack([codes[label == k].mean(0) for k in range(int(label.max()) + 1)])
    centre = means.mean(0)
    directions = means - centre
    if kind == "cosine_mean":
        directions = unit(directions)
        at_one = LinearFit(directions.T, np.zeros(len(means)), {}, centre)
    else:
        # Seen from the centre, so that the squares are small numbers.
        bias = -0.5 * (directions**2).sum(1) - directions @ centre
        at_one = LinearFit(directions.T, bias, {})
    t = choose(at_one.logits)
    chosen = {"log10_temperature": float(np.log10(t))}
    return LinearFit(at_one.weight / t, at_one.bias / t, chosen, at_one.centre)


def temperature(logits: np.ndarray, label: np.ndarray, weight: np.ndarray) -> float:
    """What logits (n, K) are to be divided by: the T of the lowest weighted log loss; ``weight``
    (n,) is of equal sum for each patient.

    Classes weigh alike, since class means know no shares. Targets are smoothed as by Platt (1999),
    with the patients' number in the place of the rows', or a handful of patients that happen to be
    told apart would send T to 0 and every probability to 0 or 1.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    from medaug.train.weighting import equal_classes

    n_classes = logits.shape[1]
    patients = np.bincount(label, weight, minlength=n_classes)
    sure = (patients + 1) / (patients + n_classes)
    target = np.repeat(((1 - sure) / (n_classes - 1))[:, None], n_classes, axis=1)
    np.fill_diagonal(target, sure)
    share = equal_classes(label, weight, n_classes)

    own = max(float((logits - logits.mean(1, keepdims=True)).std()), 1e-300)

    def loss(log_t: float) -> float:
        log_p = log_softmax(logits / (own * np.exp(log_t)), axis=1)
        return -float((share[:, None] * target[label] * log_p).sum())

    bounds = np.log([LOWEST, HIGHEST])
    return own * float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
