"""Whom to add: how the rows that an arm adds are shared out among the classes."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

Rule = Literal["uniform", "rare_only", "balance"]
"""``uniform``: as many rows of each class. ``rare_only``: all to the class that has the fewest
training rows (several that have equally few share them). ``balance``: each to the class that then
has the fewest, so the rarer ones catch up with the largest, and from there on all get as many."""
UNIFORM: Rule = "uniform"


def _as_per_class(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _as_shares(value)
    if value not in get_args(Rule):
        raise ValueError(
            f"should be {', '.join(get_args(Rule))} or shares by class like {{LGG: 0.8, HGG: 0.2}}"
        )
    return value


def _as_shares(value: Mapping[str, Any]) -> dict[str, float]:
    """By name, so that one allotment is written in one way; classes without a share get none."""
    for name, share in value.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ValueError(f"share of class {name} should be a number from 0 to 1, got {share!r}")
    total = math.fsum(value.values())
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise ValueError(f"shares of the added rows add up to {total:g}: make that 1")
    return {name: float(value[name]) for name in sorted(value) if value[name]}


PerClass = Annotated[Rule | Mapping[str, float], BeforeValidator(_as_per_class)]
"""A rule, or the share of each class in the added rows by its name."""


def per_class_title(per_class: PerClass) -> str:
    """For people: ``rare_only``, or ``HGG=0.2,LGG=0.8``."""
    if isinstance(per_class, str):
        return per_class
    return ",".join(f"{name}={share:g}" for name, share in per_class.items())


def quotas(
    per_class: PerClass, n: int, classes: Sequence[str], have: Sequence[int]
) -> tuple[int, ...]:
    """How many of ``n`` added rows are of each class, where ``have`` are in the training set.

    No class gets fewer of more rows, so what is added for a smaller ``n`` is among what is added
    for a larger one. Shares are apportioned by Webster's method (Sainte-Laguë), the divisor method
    that has this property and favours neither large nor small shares (Balinski & Young 1982).
    """
    if isinstance(per_class, str):
        return _by_rule(per_class, n, tuple(map(int, have)))
    return _webster(n, tuple(per_class.get(name, 0.0) for name in classes))


def rows_to_draw(given: Sequence[int]) -> int:
    """How many rows an arm draws, row i of class i mod K, until it has ``given`` of each class."""
    n_classes = len(given)
    return max((n_classes * (k - 1) + label + 1 for label, k in enumerate(given) if k), default=0)


def most_to_draw(per_class: PerClass, n: int, classes: Sequence[str]) -> int:
    """The same, whatever the training set: where that decides, any class may get them all."""
    if per_class in ("rare_only", "balance"):
        return n * len(classes)
    return rows_to_draw(quotas(per_class, n, classes, [1] * len(classes)))


def _by_rule(rule: str, n: int, have: tuple[int, ...]) -> tuple[int, ...]:
    if rule == "balance":
        return _levelled(n, have)
    rarest = min(have)
    chosen = [label for label, rows in enumerate(have) if rule == UNIFORM or rows == rarest]
    given = [0] * len(have)
    for turn, label in enumerate(chosen):
        given[label] = len(range(turn, n, len(chosen)))
    return tuple(given)


def _levelled(n: int, have: tuple[int, ...]) -> tuple[int, ...]:
    """Water poured into vessels that are ``have`` full already: the lowest rise first."""
    order = sorted(range(len(have)), key=lambda label: (have[label], label))
    levels = [have[label] for label in order]
    filled = next(  # how many classes are reached
        k for k in range(1, len(have) + 1) if k == len(have) or k * levels[k] - sum(levels[:k]) > n
    )
    level, rest = divmod(n + sum(levels[:filled]), filled)
    given = [0] * len(have)
    for turn, label in enumerate(sorted(order[:filled])):
        given[label] = level - have[label] + (turn < rest)
    return tuple(given)


@lru_cache(maxsize=1024)  # many trials, few allotments
def _webster(n: int, shares: tuple[float, ...]) -> tuple[int, ...]:
    given = [0] * len(shares)
    queue = [(-share, label) for label, share in enumerate(shares) if share]
    heapq.heapify(queue)
    for _ in itertools.repeat(None, n):
        label = queue[0][1]
        given[label] += 1
        heapq.heapreplace(queue, (-shares[label] / (2 * given[label] + 1), label))
    return tuple(given)
