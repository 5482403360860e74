"""The frame that all benchmarks share: turns, ratios, targets, and how figures are shown."""

from __future__ import annotations

import json

import pytest

from medaug.bench import BENCHES, Options, find_bench
from medaug.bench.result import Figure, Result, stated
from medaug.bench.table import as_markdown, as_text
from medaug.bench.timing import Spread, Timing, interleaved
from medaug.errors import UserError


def test_subjects_take_turns_in_both_orders() -> None:
    calls: list[str] = []
    subjects = {name: lambda name=name: calls.append(name) for name in "ab"}

    timings = interleaved(subjects, rounds=3, warm_up=1)

    assert "".join(calls) == "ab" + "ba" + "ab" + "ba"
    assert all(len(t.wall_s) == len(t.cpu_s) == 3 for t in timings.values())


def test_a_ratio_pairs_neighbours_in_time() -> None:
    # A machine that becomes ten times as slow half-way: the ratio of neighbours does not see it.
    own, peer = Timing((1.0, 10.0), (2.0, 20.0)), Timing((2.0, 20.0), (2.0, 20.0))

    assert own.speed_cpu(peer) == Spread(2.0, 2.0, 2.0)
    assert own.speed_wall(peer) == Spread(1.0, 1.0, 1.0)


def test_a_spread_is_median_and_quartiles() -> None:
    assert Spread.of([1, 2, 3, 4, 5]) == Spread(3, 2, 4)
    assert Spread.of([3, 1]) == Spread(2, 1, 3)


@pytest.mark.parametrize(
    ("ratio", "target", "better", "met"),
    [(1.0, 0.95, "higher", True), (0.9, 0.95, "higher", False), (1.04, 1.05, "lower", True)],
)
def test_a_target_is_met_or_missed_and_shown_so(ratio, target, better, met) -> None:
    spread = Spread(ratio, ratio, ratio)
    figure = Figure("random", "medaug", 5.0, "rows/s", spread, "np.memmap", target, better)

    result = Result("store", [figure], "quick")

    assert figure.met is met
    assert stated([figure], "quick")[0].met is met
    assert stated([figure], "tiny")[0].met is None, "nothing can be measured there"
    assert json.loads(result.to_json())["figures"][0]["met"] is met
    assert ("MISSED" in as_text(result)) is not met
    assert ("MISSED" in as_markdown(result)) is not met


def test_what_could_not_be_measured_says_why() -> None:
    missing = Figure("random", "LMDB", None, "rows/s", target=1.0, note="not installed")
    result = Result("store", [missing], "tiny")

    assert missing.met is None
    assert "not installed" in as_text(result)
    assert json.loads(result.to_json())["figures"][0]["value"] is None


def test_a_result_names_its_machine() -> None:
    machine = json.loads(Result("store", [], "tiny").to_json())["machine"]

    assert {"cpu", "cores", "ram_gib", "gpus", "versions"} <= set(machine)
    assert {"python", "torch", "numpy", "pyarrow"} <= set(machine["versions"])


def test_an_unknown_benchmark_names_the_others() -> None:
    with pytest.raises(UserError, match=", ".join(BENCHES)):
        find_bench("speed")


def test_parts_are_chosen_by_name() -> None:
    assert Options().wants("write")
    assert not Options(parts=("random",)).wants("write")
