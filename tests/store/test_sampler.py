"""The order of rows is a pure function of (seed, epoch), whatever reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain

import numpy as np
import pytest

from medaug.errors import UserError
from medaug.store import Store, balanced_weights
from medaug.store.sampler import epoch_batches, permutation
from tests.store.small import ALONE, rank_of


def test_a_permutation_never_changes() -> None:
    """Philox words are fixed by NEP 19; these values keep old runs reproducible."""
    assert permutation(10, 0, "order", 0).tolist() == [9, 0, 5, 8, 7, 1, 4, 3, 2, 6]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("n", "batch_size"), [(64, 16), (65, 16), (100, 7), (9, 9)])
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_the_same_global_batches(n, batch_size, size, drop_last) -> None:
    plan = epoch_batches(n, batch_size, seed=1, epoch=2, drop_last=drop_last)
    dealt = [
        np.concatenate([rows[rank_of(size, rank).share(len(rows))] for rank in range(size)])
        for rows in plan
    ]
    assert [rows.tolist() for rows in dealt] == [rows.tolist() for rows in plan]
    times = Counter(np.concatenate(plan).tolist())
    assert set(times.values()) == {1}
    assert len(times) == (n - n % batch_size if drop_last else n)
    assert [len(rows) for rows in plan[:-1]] == [batch_size] * (len(plan) - 1)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(np.concatenate(epoch_batches(32, 4, seed=seed, epoch=epoch)))
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25
    again = epoch_batches(32, 4, seed=3, epoch=3)
    assert tuple(np.concatenate(again)) in orders


def test_first_places_are_uniform() -> None:
    """Each row comes first equally often: chi-square over 2,000 epochs, 19 degrees of freedom."""
    first = [epoch_batches(20, 20, seed=0, epoch=epoch)[0][0] for epoch in range(2000)]
    counts = np.bincount(first, minlength=20)
    assert ((counts - 100) ** 2 / 100).sum() < 43.8  # the 0.999 quantile


def test_steps_go_on_through_permutations() -> None:
    plan = epoch_batches(10, 4, seed=0, epoch=0, steps=7)
    assert [len(rows) for rows in plan] == [4] * 7
    order = np.concatenate(plan)
    for start in (0, 10):
        assert sorted(order[start : start + 10].tolist()) == list(range(10))
    assert order[:10].tolist() != order[10:20].tolist()
    assert len(set(order[20:].tolist())) == 8


def test_in_order_every_row_comes_once() -> None:
    plan = epoch_batches(10, 4, seed=0, epoch=0, shuffle=False, drop_last=False)
    assert [rows.tolist() for rows in plan] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_balanced_weights_draw_classes_equally_often() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    plan = epoch_batches(100, 50, seed=0, epoch=0, steps=200, weights=balanced_weights(labels))
    share = labels[np.concatenate(plan)].mean()
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(10_000)


def test_rows_without_weight_are_never_drawn() -> None:
    weights = np.array([0.0, 1e-300, 3.0, 0.0, 1.0, 0.0])
    rows = np.concatenate(epoch_batches(6, 10, seed=0, epoch=0, steps=2000, weights=weights))
    counts = np.bincount(rows, minlength=6)
    assert counts[[0, 1, 3, 5]].sum() == 0
    assert abs(counts[2] / 20_000 - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 20_000)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, np.nan], [1.0, -1.0], [np.inf, 1.0]])
def test_impossible_weights_are_refused(weights) -> None:
    with pytest.raises(UserError, match="weights"):
        epoch_batches(2, 1, seed=0, epoch=0, weights=np.array(weights))


@pytest.mark.parametrize(
    ("n", "batch_size", "options"),
    [(3, 4, {}), (0, 4, {}), (0, 4, {"steps": 2}), (5, 0, {}), (5, 2, {"weights": np.ones(4)})],
)
def test_impossible_batches_are_refused(n, batch_size, options) -> None:
    with pytest.raises(UserError, match=r"batch_size|weights"):
        epoch_batches(n, batch_size, seed=0, epoch=0, **options)


def test_quotas_are_exact_in_every_batch() -> None:
    source = np.array([0] * 50 + [1] * 20 + [2] * 5)
    options = {"seed": 4, "source": source, "quotas": (10, 6, 0)}
    plan = epoch_batches(75, 16, epoch=0, **options)
    assert len(plan) == 5
    for rows in plan:
        assert np.bincount(source[rows], minlength=3).tolist() == [10, 6, 0]
    drawn = np.concatenate(plan)
    assert Counter(drawn[source[drawn] == 0].tolist()) == Counter(range(50))
    first_of_ranks = [
        np.mean([source[rows[:8]].sum() for rows in epoch_batches(75, 16, epoch=epoch, **options)])
        for epoch in range(40)
    ]
    assert np.mean(first_of_ranks) == pytest.approx(3, abs=0.4)  # both ranks see both sources


@pytest.mark.parametrize("quotas", [(10, 5), (8, 4, 4)])
def test_impossible_quotas_are_refused(quotas) -> None:
    with pytest.raises(UserError, match="quotas"):
        epoch_batches(20, 16, seed=0, epoch=0, source=np.array([0] * 10 + [1] * 10), quotas=quotas)


def test_resume_is_exact_after_two_one_two_ranks(make_store: Callable[..., Store]) -> None:
    """Interrupted twice, with another number of ranks each time: the same rows, batch by batch."""
    store = make_store(100)
    order = {"seed": 7, "epoch": 3}
    whole = [batch.row.tolist() for batch in store.batches(ALONE, 8, **order)]

    def read(size: int, start: int, stop: int) -> list[list[int]]:
        ranks = [
            [
                batch.row.tolist()
                for batch in store.batches(rank_of(size, r), 8, start=start, **order)
            ]
            for r in range(size)
        ]
        return [list(chain(*shares)) for shares in zip(*ranks, strict=True)][: stop - start]

    assert read(2, 0, 4) + read(1, 4, 5) + read(2, 5, 12) == whole
    assert len(whole) == 12
