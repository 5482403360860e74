"""Which rows make up which batch: a pure function of (seed, epoch).

Ranks, resuming and the number of rows read so far do not enter. A rank takes its share of each
global batch, so 1, 2, 4 or 8 ranks see the same batches, and (epoch, batch number) is all that a
resume needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, Protocol, TypedDict

import numpy as np

from medaug.errors import UserError
from medaug.seeding import seed_of


class Ranks(Protocol):
    """The part of ``medaug.train.world.World`` that reading needs."""

    def share(self, n: int) -> slice:
        """This rank's contiguous part of ``n`` rows."""
        ...


class Order(TypedDict):
    """What decides the batches of an epoch; :func:`epoch_batches` says what each does."""

    seed: int
    epoch: int
    shuffle: NotRequired[bool]
    drop_last: NotRequired[bool]
    weights: NotRequired[np.ndarray | None]
    steps: NotRequired[int | None]
    quotas: NotRequired[Sequence[int] | None]


def permutation(n: int, *parts: int | str) -> np.ndarray:
    """A permutation of ``n`` rows, int64, decided by ``parts``.

    Sorts raw Philox words: unlike ``Generator.permutation``, whose algorithm may change between
    NumPy versions, the words of a bit generator are fixed (NEP 19).
    """
    return np.argsort(_words(n, *parts), kind="stable")


def weighted_rows(weights: np.ndarray, n: int, *parts: int | str) -> np.ndarray:
    """``n`` rows drawn with replacement, each with probability proportional to its weight."""
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise UserError("weights: need finite values of 0 or more, not all 0")
    cumulative = np.cumsum(weights, dtype=np.float64)
    uniform = (_words(n, *parts) >> np.uint64(11)) * 2.0**-53
    rows = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    return np.minimum(rows, np.flatnonzero(weights)[-1])  # the product may round up to the sum


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """Weights under which every class is drawn equally often, float64."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def epoch_batches(
    n: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    drop_last: bool = True,
    weights: np.ndarray | None = None,
    steps: int | None = None,
    source: np.ndarray | None = None,
    quotas: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """The global batches of one epoch over ``n`` rows: row numbers, int64.

    Without ``steps`` every row comes once; ``drop_last`` leaves out a last batch that is not full.
    With ``steps`` there are exactly that many full batches, going through further permutations
    (or rounds in order) as needed. With ``weights`` rows are drawn with replacement.

    With ``quotas`` every batch has exactly ``quotas[k]`` rows of those whose ``source`` is k, each
    source in an order of its own; without ``steps`` source 0 is gone through once.
    """
    if batch_size < 1:
        raise UserError(f"batch_size: {batch_size}; use 1 or more")
    if weights is not None and len(weights) != n:
        raise UserError(f"weights: {len(weights)} for {n} rows; give one per row")
    if quotas is not None:
        assert source is not None
        if sum(quotas) != batch_size:
            raise UserError(f"quotas: {list(quotas)} do not add up to batch_size {batch_size}")
        return _mixed(source, quotas, seed, epoch, shuffle, weights, steps)
    if n < (1 if steps is not None else batch_size if drop_last else 0):
        raise UserError(f"batch_size: {batch_size}, but there are {n} rows; lower batch_size")
    draws = n if steps is None else steps * batch_size
    order = _draw(n, draws, shuffle, weights, seed, epoch)
    end = draws - draws % batch_size if drop_last else draws
    return [order[at : at + batch_size] for at in range(0, end, batch_size)]


def _mixed(
    source: np.ndarray,
    quotas: Sequence[int],
    seed: int,
    epoch: int,
    shuffle: bool,
    weights: np.ndarray | None,
    steps: int | None,
) -> list[np.ndarray]:
    members = [np.flatnonzero(source == k) for k in range(len(quotas))]
    if short := [k for k, quota in enumerate(quotas) if quota and not len(members[k])]:
        raise UserError(f"quotas: source {short[0]} has no rows; give it a quota of 0")
    if steps is None:
        steps = len(members[0]) // max(1, quotas[0])
    columns = []
    for k, (rows, quota) in enumerate(zip(members, quotas, strict=True)):
        own = None if weights is None else weights[rows]
        order = _draw(len(rows), steps * quota, shuffle, own, seed, epoch, "source", k)
        columns.append(rows[order].reshape(steps, quota))
    batches = np.concatenate(columns, axis=1)
    # Mixed within each batch, so that every rank's share has rows of all sources.
    places = np.argsort(_words(batches.size, seed, "places", epoch).reshape(batches.shape), axis=1)
    return list(np.take_along_axis(batches, places, axis=1))


def _draw(
    n: int,
    draws: int,
    shuffle: bool,
    weights: np.ndarray | None,
    seed: int,
    epoch: int,
    *parts: int | str,
) -> np.ndarray:
    """``draws`` of ``n`` rows, int64: with replacement by ``weights``, else round after round."""
    if draws == 0:
        return np.zeros(0, np.int64)
    if weights is not None:
        return weighted_rows(weights, draws, seed, "weighted", epoch, *parts)
    if not shuffle:
        return np.arange(draws) % n
    rounds = range(-(-draws // n))
    orders = [permutation(n, seed, "order", epoch, *parts, i) for i in rounds]
    return np.concatenate(orders)[:draws]


def _words(n: int, *parts: int | str) -> np.ndarray:
    """``n`` 64-bit words of the counter-based Philox generator."""
    return np.random.Philox(seed_of(*parts)).random_raw(n)
