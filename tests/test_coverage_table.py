"""The table that ``make coverage`` prints."""

from __future__ import annotations

from tests.coverage_table import table


def test_rooms_are_summed_and_what_hardly_runs_is_named() -> None:
    counts = {
        "medaug/units.py": (10, 10),
        "medaug/data/a.py": (5, 10),
        "medaug/data/importers/b.py": (30, 30),
        "medaug/data/__init__.py": (0, 0),
    }
    files = {
        name: {"summary": {"covered_lines": ran, "num_statements": n}}
        for name, (ran, n) in counts.items()
    }
    assert table({"files": files}) == [
        "medaug       100.0% of     10",
        "medaug/data   87.5% of     40",
        "all           90.0% of     50",
        "below 70%: medaug/data/a.py 50.0%",
    ]
