"""The matrix says of every row where it is proven, and the tests that it names are there."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.matrix import ELSEWHERE, NOT_TESTED, ROWS

ROOT = Path(__file__).parents[2]


def test_every_row_has_a_place() -> None:
    assert list(ROWS) == list(range(1, 47))
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for row in ROWS:
        here_too = f"faults({row}, " in here or f": {row}" in here
        tested = row in ELSEWHERE or here_too
        assert tested != (row in NOT_TESTED), f"row {row}"


def test_tests_elsewhere_are_there() -> None:
    for tests in ELSEWHERE.values():
        for test in tests:
            path, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / path).read_text(), test
