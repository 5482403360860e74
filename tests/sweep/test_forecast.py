"""``medaug plan`` on a real cluster: a study in miniature, and nothing left of it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from medaug.cli import main
from medaug.cli.display import TerminalDisplay
from medaug.errors import EnvironmentFault
from medaug.plan.forecast.forecast import forecast, render
from medaug.spec import StudySpec, build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.sweep.cluster.start import Cluster

pytestmark = pytest.mark.ray


LINEAR = 2 * 2
"""Two linear models on two folds."""


def tiny(storage: Path, **changes: object) -> StudySpec:
    body = {
        "name": "tiny",
        "data": {"image_size": 32, "phantom": {"patients": 12, "slices": [4, 6]}},
        "split": {"folds": 2},
        "arms": {"none": {}, "classical": {}},
        "controls": "none",
        "classifier": {"kind": "linear", "epochs": 30},
        "sweep": {"n_synthetic": [16, 32], "seeds": [0, 1, 2]},
        "storage": str(storage),
    }
    return build_study({**body, **changes}, ARM_CONFIGS)


@pytest.fixture
def display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TerminalDisplay:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDAUG_SITE_KEY_FILE", str(tmp_path / "site.key"))
    return TerminalDisplay(Console(file=io.StringIO(), width=200))


def test_a_study_is_rehearsed_and_told(
    ray_cluster: Cluster, display: TerminalDisplay, tmp_path: Path
) -> None:
    found = forecast(tiny(tmp_path / "runs"), display)
    cost = found.cost
    assert [(stage.stage, stage.trials) for stage in cost.stages] == [
        ("extract", 2 + 1),  # pixels' components are each fold's, the network is every fold's
        ("generate", 2 * 3),
        ("classify", 2 * 3 * 3 + LINEAR),
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
    ray_cluster: Cluster, display: TerminalDisplay, tmp_path: Path
) -> None:
    greedy = tiny(tmp_path / "runs", resources={"ranks": 64})
    with pytest.raises(EnvironmentFault, match=r"a trial wants 64 ranks .* lower resources\.ranks"):
        forecast(greedy, display)


SPEC = """\
name: tiny
data: {image_size: 32, phantom: {patients: 12, slices: [4, 6]}}
split: {folds: 2}
arms: {none: {}, classical: {}}
controls: none
classifier: {kind: linear, epochs: 30}
sweep: {n_synthetic: [16, 32], seeds: [0, 1, 2]}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDAUG_SITE_KEY_FILE", str(tmp_path / "site.key"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://nobody.invalid:1")  # not for rehearsals
    (tmp_path / "tiny.yaml").write_text(SPEC)
    return tmp_path / "tiny.yaml"


def plan(spec: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["plan", str(spec), *options])


def test_the_command_prints_a_table_and_leaves_nothing(ray_cluster: Cluster, spec: Path) -> None:
    said = plan(spec)
    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    assert lines[0].startswith("tiny: ")
    assert "slices" in lines[0]
    header = next(line.split() for line in lines if line.startswith("stage"))
    assert header == ["stage", "trials", "wall-clock", "rank", "time", "RAM/rank", "VRAM", "disk"]
    trials = {line.split()[0]: line.split()[1] for line in lines[3:] if line}
    assert (trials["generate"], trials["classify"], trials["all"]) == ("6", "22", "31")
    assert any("CPU-rank hours" in line and "2 trials of 1 rank at once" in line for line in lines)
    assert sorted(path.name for path in spec.parent.iterdir()) == ["cache", "tiny.yaml"]


def test_the_command_tells_a_program(ray_cluster: Cluster, spec: Path) -> None:
    said = plan(spec, "--json", "--quick")
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    assert told["study"] == "tiny-quick"
    assert (
        told["trials"] == sum(stage["trials"] for stage in told["stages"]) == 3 + 2 + 2 * 2 + LINEAR
    )
    assert told["wall_s"] > told["outside_s"] > 0
    assert told["device_hours"] > 0 < told["cpu_s"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("resources.ranks=64", r"a trial wants 64 ranks .* lower resources\.ranks"),
        ("sweep.n_synthetic=[2000000000]", r"generate takes [\d.]+ \w+: shorten sweep\.n_synthetic"),
    ],
)  # fmt: skip
def test_a_job_that_cannot_fit_is_refused_with_what_would(
    ray_cluster: Cluster, spec: Path, option: str, said: str
) -> None:
    ended = plan(spec, "--set", option)
    assert ended.exit_code == 3
    assert re.search(f"error: .*{said}", ended.output)
    assert not (spec.parent / "runs").exists()
