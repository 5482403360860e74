"""``medaug plan`` on a real cluster: a study in miniature, and nothing left of it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from medaug.errors import EnvironmentFault
from medaug.estimate.forecast import forecast, render
from medaug.experiment import ARM_CONFIGS
from medaug.spec import StudySpec, build_study
from medaug.sweep.cluster import Cluster
from medaug.sweep.display import Display

pytestmark = pytest.mark.ray


def tiny(storage: Path, **changes: object) -> StudySpec:
    body = {
        "name": "tiny",
        "data": {"image_size": 32, "phantom": {"patients": 12, "slices": [4, 6]}},
        "split": {"folds": 2},
        "arms": {"none": {}, "classical": {}},
        "classifier": {"kind": "linear", "epochs": 30},
        "sweep": {"n_synthetic": [16, 32], "seeds": [0, 1, 2]},
        "storage": str(storage),
    }
    return build_study({**body, **changes}, ARM_CONFIGS)


@pytest.fixture
def display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Display:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDAUG_SITE_KEY_FILE", str(tmp_path / "site.key"))
    return Display(Console(file=io.StringIO(), width=200))


def test_a_study_is_rehearsed_and_told(
    ray_cluster: Cluster, display: Display, tmp_path: Path
) -> None:
    found = forecast(tiny(tmp_path / "runs"), display)
    cost = found.cost
    assert [(stage.stage, stage.trials) for stage in cost.stages] == [
        ("generate", 2 * 3),
        ("classify", 2 * 3 * 3),
    ]
    assert (cost.slots, cost.ranks) == (2, 1)
    assert sum(n for _, n in found.found.slices_of) == cost.rows > 12
    assert all(stage.rank_s > 0 and stage.wall_s > 0 for stage in cost.stages)
    assert cost.ram_bytes > 100e6  # torch alone takes as much
    assert cost.disk_bytes > cost.rows * 32 * 32 * 4
    text = render(found)
    assert "classify" in text
    assert "2 trials of 1 rank at once" in text
    assert not (tmp_path / "runs").exists()


def test_ranks_that_the_cluster_has_not_are_refused(
    ray_cluster: Cluster, display: Display, tmp_path: Path
) -> None:
    greedy = tiny(tmp_path / "runs", resources={"ranks": 64})
    with pytest.raises(EnvironmentFault, match=r"a trial wants 64 ranks .* lower resources\.ranks"):
        forecast(greedy, display)
