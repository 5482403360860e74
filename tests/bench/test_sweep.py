"""The sweep's benchmark with tiny sizes, and the arithmetic of its figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from medaug.bench import Options, find_bench
from medaug.bench.sweep import _SIZES, _controller_figures, _packed_figures, start_times


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_real_processes_are_measured(tmp_path: Path) -> None:
    result = find_bench("sweep")(Options("tiny", ("start",), tmp_path))

    trials = result.details["packed"]["trials"]
    assert len(trials) == 4
    assert all(trial["begun"] <= trial["ended"] for trial in trials)
    assert result.figures[0].subject == "first trial of a sweep"
    assert result.figures[0].value > 0
    assert not list(tmp_path.iterdir()), "experiments are gone afterwards"


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_controller_is_measured_in_slots(tmp_path: Path) -> None:
    result = find_bench("sweep")(Options("tiny", ("controller",), tmp_path))

    assert [told["trials"] for told in result.details["simulated"]] == [8]
    found = {figure.subject: figure for figure in result.figures}
    assert found["driver CPU per trial"].value > 0
    assert "stubs" in result.notes[0]


def test_a_start_is_the_pause_of_a_process_between_two_trials() -> None:
    trials = [
        {"pid": 1, "begun": 10.0, "ended": 12.0},
        {"pid": 2, "begun": 10.5, "ended": 20.0},
        {"pid": 1, "begun": 12.5, "ended": 15.0},
        {"pid": 2, "begun": 21.0, "ended": 22.0},
    ]

    assert start_times(trials[::-1]) == [0.5, 1.0]


def test_overhead_is_slot_seconds_over_training_seconds() -> None:
    # Two processes of four slots train 60 s each, one of them begins 10 s late: 4 x 70 / 120.
    trials = [
        {"pid": 1, "begun": 0.0, "ended": 60.0},
        {"pid": 2, "begun": 10.0, "ended": 70.0},
    ]

    figures = _packed_figures({"trials": trials, "asked": -3.0}, _SIZES["full"])

    found = {figure.subject: figure for figure in figures}
    assert found["first trial of a sweep"].value == 3.0
    assert found["wall x slots / training"].value == pytest.approx(4 * 70 / 120)
    assert found["wall x slots / training"].met is False
    assert found["trial after the first"].value is None


def test_growth_compares_the_largest_sweep_with_the_smallest() -> None:
    small = {"trials": 100, "cpu_s": 1.0, "wall_s": 2.0, "before_bytes": 1 << 29}
    large = {"trials": 200, "cpu_s": 4.0, "wall_s": 5.0, "before_bytes": 1 << 29}
    told = [{**small, "grown_bytes": 1 << 20}, {**large, "grown_bytes": 100 << 20}]

    figures = _controller_figures(told, _SIZES["quick"])

    cpu = [figure.met for figure in figures if figure.subject == "driver CPU per trial"]
    assert cpu[:2] == [True, False]
    memory = [figure for figure in figures if figure.subject == "driver memory"]
    assert [figure.value for figure in memory] == [513, 612]
    assert [figure.met for figure in memory] == [True, False]
    *_, growth, per_trial = figures
    assert growth.value == pytest.approx(2.0)
    assert per_trial.value == pytest.approx(99 * 1024 / 100)
