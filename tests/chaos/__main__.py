"""``python -m tests.chaos``: break everything, count what survives, print one table."""

from __future__ import annotations

import os
import sys

import pytest

from tests.chaos.matrix import ELSEWHERE


def main(*arguments: str) -> int:
    """``arguments`` are pytest's: ``-k kill`` runs a part of it."""
    os.environ.setdefault("MEDAUG_NETNS", "1")  # hosts of their own, where this user may make some
    elsewhere = sorted({test for tests in ELSEWHERE.values() for test in tests})
    table = ("--chaos-table", "build/chaos.json")
    return pytest.main(["-m", "", *table, "tests/chaos", *elsewhere, *arguments])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
