"""docs/security.md: every claim has a test, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()
HEADER = "| what holds | shown by |"


def claims() -> list[tuple[str, list[str]]]:
    """(claim, tests that show it) of every row of the tables that show what holds."""
    found = []
    for table in PAGE.split(HEADER)[1:]:
        for row in table.strip().splitlines()[1:]:
            if not row.startswith("|"):
                break
            claim, tests = row.strip("|").rsplit("|", 1)
            found.append((claim.strip(), re.findall(r"`(tests/\S+)`", tests)))
    return found


@pytest.mark.parametrize(("claim", "tests"), claims())
def test_every_claim_has_its_test(claim: str, tests: list[str]) -> None:
    assert claim.endswith(".")
    assert tests, claim


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", PAGE))
    assert len(named) > 40
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not test or test in functions, f"{file}::{test}"
