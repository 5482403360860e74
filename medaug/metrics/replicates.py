"""How much chance there is in a configuration's seeds and draws, told from few of them.

Three seeds say little about the variance between seeds: of ten equal rows some will by chance have
three alike, and would be trusted most. The variances of the rows of one board are therefore
shrunk towards each other by as much as they resemble each other (moderated variances; Smyth 2004,
"Linear models and empirical Bayes methods", Stat. Appl. Genet. Mol. Biol. 3, sections 4 and 6.2),
which also gives them the degrees of freedom that they gain by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma

FEWEST_TO_POOL = 4
"""Rows from which their resemblance can be told at all."""
MOST_DF = 1e4


@dataclass(frozen=True)
class ReplicateVariance:
    """Variance between the replicates of one row along one axis (seeds or draws)."""

    own: float
    """Of the row's score."""
    apart: float
    """Of the row's score less what all rows of the board share under that seed or draw."""
    own_df: float
    apart_df: float


def replicate_variances(
    scores: Mapping[str, tuple[tuple[int, ...], np.ndarray]],
) -> dict[str, ReplicateVariance]:
    """Variances between replicates of all rows that have more than one.

    ``scores``: by title, the names of the row's replicates and its score under each. Rows with
    the same replicates share what these have in common.
    """
    groups: dict[tuple[int, ...], list[str]] = {}
    for title, (names, _) in scores.items():
        if len(names) > 1:
            groups.setdefault(names, []).append(title)
    found = {}
    for names, titles in groups.items():
        table = np.stack([scores[title][1] for title in titles])
        df, rows = len(names) - 1, len(titles)
        own, own_df = moderated(table.var(axis=1, ddof=1), df)
        apart, apart_df = own, own_df
        if rows > 1:
            left = table - table.mean(axis=0)
            apart, apart_df = moderated(left.var(axis=1, ddof=1) * rows / (rows - 1), df)
        for title, alone, beside in zip(titles, own.tolist(), apart.tolist(), strict=True):
            found[title] = ReplicateVariance(alone, beside, own_df, apart_df)
    return found


def moderated(variances: np.ndarray, df: float) -> tuple[np.ndarray, float]:
    """Variances (R,) with ``df`` degrees of freedom each, shrunk; and what they then have.

    Unchanged where there are fewer than four, or where they differ by more than chance so much
    that nothing can be learnt from one about another.
    """
    positive = variances[variances > 0]
    if len(positive) < FEWEST_TO_POOL:
        return variances, df
    logs = np.log(positive) - digamma(df / 2) + np.log(df / 2)
    beyond_chance = logs.var(ddof=1) - polygamma(1, df / 2)
    prior_df = MOST_DF if beyond_chance <= 0 else 2 * inverse_trigamma(float(beyond_chance))
    prior_df = min(prior_df, MOST_DF)
    prior = np.exp(logs.mean() + digamma(prior_df / 2) - np.log(prior_df / 2))
    # The prior comes from these rows: they cannot gain more than all of them together have.
    total = min(prior_df + df, len(positive) * df)
    return (prior_df * prior + df * variances) / (prior_df + df), float(total)


def inverse_trigamma(value: float) -> float:
    """Where trigamma is ``value`` > 0, by Newton's method on 1 / trigamma, which is convex: from
    this start it can only come nearer (Smyth 2004, appendix). SciPy's solvers take a third of a
    second to import, and whoever reads a leaderboard would wait for it.
    """
    x, step = 0.5 + 1 / value, np.inf
    while step > 1e-12 * x:
        trigamma = float(polygamma(1, x))
        step = trigamma * (trigamma / value - 1) / float(polygamma(2, x))
        x, step = x - step, abs(step)
    return x
