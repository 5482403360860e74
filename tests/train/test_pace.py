"""Who is waited for: own time of a step, without the time that other ranks take."""

from __future__ import annotations

import time

import pytest

from medaug.train.pace import Laggard, Pace


def test_own_time_is_what_others_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    pace = Pace()
    pace.stepped()
    for _ in range(3):
        now[0] += 2  # rows and forward pass
        with pace.waiting():
            now[0] += 7  # batch norm over all ranks
        pace.forwarded()
        now[0] += 5  # backward: the gradients meet
        pace.stepped()
        now[0] += 0.5
        pace.stepped()  # a second optimiser, without a forward pass of its own
    assert pace.take() == (3, 3 * 2)
    now[0] += 100  # between two epochs
    pace.forwarded()
    pace.stepped()
    assert pace.take() == (0, 0.0)


def test_a_straggler_is_told_once_and_after_enough_steps() -> None:
    laggard = Laggard(3)
    slow = [(15, 15 * 0.02), (15, 15 * 0.2), (15, 15 * 0.03)]
    assert laggard.look(slow) is None
    said = laggard.look(slow)
    assert said is not None
    assert said.startswith("rank 1 takes 0.200 s for its part of a step, the others 0.025 s")
    assert laggard.look(slow) is None
    assert laggard.look(slow) is None


@pytest.mark.parametrize(
    "step_s",
    [(0.1, 0.3), (0.0001, 0.004), (0.5,)],
    ids=["a little slower", "too short to tell", "alone"],
)
def test_others_are_no_stragglers(step_s: tuple[float, ...]) -> None:
    assert Laggard(len(step_s)).look([(50, 50 * s) for s in step_s]) is None
