"""Whom to add: how many rows of each class, in closed form."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from medaug.errors import UserError
from medaug.spec import SweepSpec, build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.spec.per_class import most_to_draw, per_class_title, quotas, rows_to_draw

THREE = ("a", "b", "c")


@pytest.mark.parametrize(
    ("per_class", "n", "have", "expected"),
    [
        ("uniform", 7, (5, 90, 1), (3, 2, 2)),
        ("rare_only", 7, (5, 90, 1), (0, 0, 7)),
        ("rare_only", 7, (5, 90, 5), (4, 0, 3)),  # two are equally rare
        ("rare_only", 7, (5, 5, 5), (3, 2, 2)),
        ("balance", 3, (5, 10, 2), (0, 0, 3)),  # the rarest catches up with the next
        ("balance", 7, (5, 10, 2), (2, 0, 5)),  # then both together
        ("balance", 13, (5, 10, 2), (5, 0, 8)),  # all are as many as the largest
        ("balance", 17, (5, 10, 2), (7, 1, 9)),  # the rest evenly
        ("balance", 0, (5, 10, 2), (0, 0, 0)),
        ({"a": 0.2, "b": 0.5, "c": 0.3}, 10, (1, 1, 1), (2, 5, 3)),
        ({"a": 0.8, "c": 0.2}, 10, (1, 1, 1), (8, 0, 2)),
        ({"b": 1.0}, 4, (1, 1, 1), (0, 4, 0)),
    ],
)
def test_closed_forms(
    per_class: Any, n: int, have: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert quotas(per_class, n, THREE, have) == expected
    assert sum(expected) == n


WAYS: list[Any] = ["uniform", "rare_only", "balance", {"a": 0.7, "b": 0.2, "c": 0.1}]


@pytest.mark.parametrize("per_class", WAYS, ids=per_class_title)
def test_more_rows_hold_those_of_fewer(per_class: Any) -> None:
    for have in itertools.product((0, 1, 4, 9), repeat=3):
        before = (0, 0, 0)
        for n in range(1, 40):
            now = quotas(per_class, n, THREE, have)
            assert sum(now) == n
            assert all(more >= few for more, few in zip(now, before, strict=True))
            assert rows_to_draw(now) <= most_to_draw(per_class, n, THREE)
            before = now


def test_balance_is_one_row_after_the_other_to_whoever_has_fewest() -> None:
    for have in itertools.product((0, 1, 4, 9), repeat=3):
        total = list(have)
        for n in range(1, 40):
            total[total.index(min(total))] += 1
            found = quotas("balance", n, THREE, have)
            assert tuple(t - h for t, h in zip(total, have, strict=True)) == found


def test_shares_stay_close_to_what_they_say() -> None:
    shares = {"a": 0.55, "b": 0.35, "c": 0.1}
    for n in range(1, 500):
        for found, share in zip(quotas(shares, n, THREE, (1,) * 3), shares.values(), strict=True):
            assert abs(found - n * share) < 1


def test_rows_to_draw_is_the_last_row_that_is_wanted() -> None:
    assert rows_to_draw((0, 0, 0)) == 0
    assert rows_to_draw((0, 0, 2)) == 6  # classes in turn: a b c a b c
    assert rows_to_draw((2, 0, 1)) == 4
    assert [rows_to_draw(quotas("uniform", n, THREE, (1,) * 3)) for n in range(9)] == [*range(9)]
    assert most_to_draw({"a": 0.5, "c": 0.5}, 4, THREE) == 6
    assert most_to_draw("rare_only", 4, THREE) == most_to_draw("balance", 4, THREE) == 12


BODY: dict[str, Any] = {"name": "s", "arms": {"smote": {}}}


def sweep(*per_class: Any) -> SweepSpec:
    return build_study(BODY | {"sweep": {"per_class": [*per_class]}}, ARM_CONFIGS).sweep


def test_shares_are_written_in_one_way() -> None:
    assert sweep({"LGG": 0.8, "HGG": 0.2}, {"HGG": 0.2, "LGG": 0.8}, "balance").per_class == (
        {"HGG": 0.2, "LGG": 0.8},
        "balance",
    )
    assert sweep({"LGG": 1, "HGG": 0}).per_class == ({"LGG": 1.0},)
    assert per_class_title({"HGG": 0.25, "LGG": 0.75}) == "HGG=0.25,LGG=0.75"


@pytest.mark.parametrize(
    ("per_class", "said"),
    [
        (["even"], "sweep.per_class.0: should be uniform, rare_only, balance or shares by class"),
        ([{"LGG": 0.8, "HGG": 0.4}], "sweep.per_class.0: shares of the added rows add up to 1.2"),
        ([{"LGG": 80, "HGG": 20}], "sweep.per_class.0: share of class LGG should be a number"),
        ([{"LGG": 0.8, "GBM": 0.2}], "gives a share to GBM, which is no class of data.classes"),
        ([], "sweep.per_class: is empty: 0 trials"),
        ("rare_only", "sweep.per_class: should be a list"),
    ],
)
def test_mistakes_are_one_line(per_class: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        build_study(BODY | {"sweep": {"per_class": per_class}}, ARM_CONFIGS)
    assert "\n" not in str(caught.value)
