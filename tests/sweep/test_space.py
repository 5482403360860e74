"""Points of a search: what they are, and that they are the same ones again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from medaug.errors import UserError
from medaug.sweep.tune.space import Point, draw, search

SPACE = {
    "acgan.lr": {"loguniform": [1e-5, 1e-2]},
    "acgan.ngf": {"choice": [64, 256, 512]},
    "acgan.rank": {"randint": [1, 3]},
    "acgan.beta": {"uniform": [0.0, 0.9]},
}


def test_drawn_points_lie_in_the_space() -> None:
    points = draw(SPACE, 200, seed=1)
    assert len(points) == 200
    assert {point["acgan.ngf"] for point in points} == {64, 256, 512}
    assert {point["acgan.rank"] for point in points} == {1, 2, 3}
    assert all(0 <= point["acgan.beta"] <= 0.9 for point in points)
    logs = [math.log10(point["acgan.lr"]) for point in points]
    assert -5 <= min(logs) < -4.8
    assert -2.2 < max(logs) <= -2
    assert abs(sum(logs) / len(logs) + 3.5) < 0.2
    assert all(type(value) in (int, float) for point in points for value in point.values())


def test_more_samples_add_to_the_former() -> None:
    assert draw(SPACE, 8, seed=1) == draw(SPACE, 20, seed=1)[:8]
    assert draw(SPACE, 8, seed=1) != draw(SPACE, 8, seed=2)


def test_equal_points_are_drawn_once() -> None:
    assert len(draw({"acgan.ngf": {"choice": [64, 256]}}, 50)) == 2


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        ({}, "has 0 keys"),
        ({"choice": []}, "no such domain"),
        ({"normal": [0, 1]}, "no such domain as 'normal'"),
        ({"uniform": [1, 1]}, "is empty"),
        ({"uniform": 3}, "is not"),
        ({"loguniform": [0, 1]}, "0 < a < b"),
        ({"randint": [1, 2, 3]}, "is not"),
    ],
)
def test_a_bad_domain_is_named(form: dict[str, object], complaint: str) -> None:
    with pytest.raises(UserError, match=f"sweep.space.acgan.lr.*{complaint}"):
        draw({"acgan.lr": form}, 1)


def bowl(points: Sequence[Point]) -> list[float | None]:
    """Smallest, 0, at beta = 0.3; a tenth of the space fails."""
    return [
        None if point["acgan.beta"] > 0.8 else (point["acgan.beta"] - 0.3) ** 2 for point in points
    ]


def test_optuna_finds_the_bottom_and_a_replay_asks_the_same() -> None:
    asked: list[list[Point]] = [[], []]

    def remember(points: Sequence[Point], into: list[Point]) -> list[float | None]:
        into.extend(points)
        return bowl(points)

    runs = [
        search(
            SPACE, lambda points, into=into: remember(points, into), samples=30, mode="min", seed=4
        )
        for into in asked
    ]
    assert runs[0] == runs[1]
    assert asked[0] == asked[1]
    best, objective = runs[0][0]
    assert objective is not None
    assert objective < 0.01
    assert abs(best["acgan.beta"] - 0.3) < 0.1
    objectives = [objective for _, objective in runs[0]]
    assert objectives == sorted(objectives, key=lambda value: (value is None, value or 0.0))


def test_optuna_can_maximise() -> None:
    (_, objective), *_ = search(
        SPACE, lambda points: [point["acgan.beta"] for point in points], samples=20, mode="max"
    )
    assert objective is not None
    assert objective > 0.7
