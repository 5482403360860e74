"""What the tests of tracking share."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.tracking.played_sweeps import Played
# As in tests/train: helper modules are found by their full names.
sys.path.append(str(Path(__file__).parents[2]))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, to be copied: making one takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def play(tmp_path: Path, empty_database: Path) -> Callable[..., Played]:
    """Starts a sweep whose storage folder has a database."""

    from tests.tracking.made_runs import study
    from tests.tracking.played_sweeps import Played

    def start(**changes: Any) -> Played:
        shutil.copy(empty_database, tmp_path / "mlflow.db")
        return Played(study(tmp_path, **changes))

    return start
