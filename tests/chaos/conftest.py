"""The board that faults are counted on, and places to break."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.board import NAME, Board, Fault

TOYS = Path(__file__).parents[1] / "sweep"
sys.path.insert(0, str(TOYS))  # workers import toy_trials by name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-table", type=Path, help="Print the table and write it here (JSON).")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--chaos-table", None)
    partial = bool(config.option.keyword) or "tests/chaos" not in config.args
    config.pluginmanager.register(Board(path, partial=partial), NAME)


@pytest.fixture
def faults(pytestconfig: pytest.Config) -> Callable[[int, str], Fault]:
    """``faults(row, name)``: the line of the table for one way to break a row of the matrix."""
    board = pytestconfig.pluginmanager.get_plugin(NAME)
    assert isinstance(board, Board)
    return board.fault


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Short, because the paths of Unix sockets are."""
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as path:
        yield Path(path)
