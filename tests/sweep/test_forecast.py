"""``medaug plan`` on a real cluster: a study in miniature, and nothing left of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from medaug.cli import main
from medaug.cli.options import load
from medaug.plan.forecast import forecast
from medaug.plan.forecast.forecast import Forecast
from medaug.sweep.cluster.start import Cluster
from tests.arms.test_monai_bundle import write_bundle
from tests.extras import needs_monai

pytestmark = [pytest.mark.ray, needs_monai]


LINEAR = 2 * 2
"""Two linear models on two folds."""

SPEC = """\
name: tiny
data: {image_size: 32, phantom: {patients: 12, slices: [4, 6]}}
split: {folds: 2}
arms: {none: {}, classical: {}, theirs: {kind: monai_bundle, path: bundle, steps: 5}}
controls: none
classifier: {kind: linear, epochs: 30}
sweep: {n_synthetic: [16, 32], seeds: [0, 1, 2]}
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with the study in it, of a user with nothing set up."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "tiny.yaml").write_text(SPEC)
    write_bundle(folder / "bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("MEDAUG_SITE_KEY_FILE", str(folder / "site.key"))
        patch.setenv("MLFLOW_TRACKING_URI", "http://nobody.invalid:1")  # not for rehearsals
        yield folder


def plan(*options: str) -> Result:
    return CliRunner().invoke(main, ["plan", "tiny.yaml", *options])


@pytest.fixture(scope="module")
def rehearsed(ray_cluster: Cluster, desk: Path) -> tuple[Result, Forecast]:
    """What the command told a program, and what it had found."""
    found: list[Forecast] = []
    made = forecast.forecast

    def kept(*args: Any, **keys: Any) -> Forecast:
        found.append(made(*args, **keys))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast, "forecast", kept)
        said = plan("--json")
    assert said.exit_code == 0, said.output
    return said, found[0]


def test_a_study_is_rehearsed_and_told(rehearsed: tuple[Result, Forecast]) -> None:
    _, found = rehearsed
    cost = found.cost
    assert [(stage.stage, stage.trials) for stage in cost.stages] == [
        ("draw", 1),  # serves all folds and seeds
        ("extract", 2 + 1),  # pixels' components are each fold's, the network is every fold's
        ("generate", 2 * 2 * 3),
        ("classify", 2 * 3 * 5 + LINEAR),
    ]
    assert (cost.slots, cost.ranks) == (2, 1)
    assert sum(n for _, n in found.found.slices_of) == cost.rows > 12
    assert all(stage.rank_s > 0 and stage.wall_s > 0 for stage in cost.stages)
    assert cost.ram_bytes > 100e6  # torch alone takes as much
    assert cost.disk_bytes > cost.rows * 32 * 32 * 4


def test_people_get_a_table_and_nothing_is_left(
    rehearsed: tuple[Result, Forecast], desk: Path
) -> None:
    _, found = rehearsed
    lines = forecast.render(found).splitlines()
    assert lines[0].startswith("tiny: ")
    assert "slices" in lines[0]
    header = next(line.split() for line in lines if line.startswith("stage"))
    assert header == ["stage", "trials", "wall-clock", "rank", "time", "RAM/rank", "VRAM", "disk"]
    trials = {line.split()[0]: line.split()[1] for line in lines[3:] if line}
    assert (trials["draw"], trials["generate"], trials["classify"]) == ("1", "12", "34")
    assert trials["all"] == "50"
    assert any("CPU-rank hours" in line and "2 trials of 1 rank at once" in line for line in lines)
    assert sorted(path.name for path in desk.iterdir()) == ["bundle", "cache", "tiny.yaml"]


def test_programs_get_json(rehearsed: tuple[Result, Forecast]) -> None:
    said, found = rehearsed
    told = json.loads(said.stdout)
    assert told["study"] == "tiny"
    assert told["trials"] == sum(stage["trials"] for stage in told["stages"]) == 50
    assert told["wall_s"] > told["outside_s"] > 0
    assert told["device_hours"] > 0 < told["cpu_s"]
    assert told["notes"] == list(found.notes)


def test_a_quick_study_has_one_seed(desk: Path) -> None:
    study = load(desk / "tiny.yaml", None, (), None, None, quick=True)
    assert study.name == "tiny-quick"
    _, planned = forecast.whole_plan(study)
    assert len(list(planned.trials())) == 3 + 2 * 2 + 2 * 3 + LINEAR


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("resources.ranks=64", r"a trial wants 64 ranks .* lower resources\.ranks"),
        ("sweep.n_synthetic=[2000000000]", r"generate takes [\d.]+ \w+: shorten sweep\.n_synthetic"),
    ],
)  # fmt: skip
def test_a_job_that_cannot_fit_is_refused_with_what_would(
    ray_cluster: Cluster, desk: Path, option: str, said: str
) -> None:
    ended = plan("--set", option)
    assert ended.exit_code == 3
    assert re.search(f"error: .*{said}", ended.output)
    assert not (desk / "runs").exists()
