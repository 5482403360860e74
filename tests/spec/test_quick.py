"""A study made small is a study, with all of its arms and stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from medaug.cli import main
from medaug.cli.options import load
from medaug.plan.trials import plan_study
from medaug.spec import StudySpec, build_study, load_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.spec.quick import quick

JOBS = sorted((Path(__file__).parents[2] / "jobs").glob("*.yaml"))


def planned(study: StudySpec) -> list[str]:
    plan = plan_study(study, "slices-0123456789ab", "slices-ba9876543210")
    assert {trial.arm for trial in plan.classify if not trial.control} == set(study.arms)
    return [title for title, _ in plan.waves()]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_study_can_be_made_small(path: Path) -> None:
    study = load_study(path, ARM_CONFIGS)
    small = quick(study)
    assert build_study(small.canonical(), ARM_CONFIGS) == small
    assert planned(small) == planned(study)
    assert small.name == f"{study.name}-quick"
    assert (len(small.sweep.seeds), len(small.sweep.n_synthetic)) == (1, 1)
    assert max(getattr(arm, "epochs", 0) for arm in small.arms.values()) <= 4
    assert (small.data.max_patients or 99) <= 24
    assert quick(small) == small.model_copy(update={"name": f"{study.name}-quick-quick"})


def test_a_name_that_is_given_stays(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: mine\ndata: {layout: brats, root: nowhere}\narms: {none: {}}\n")
    for options, name in ((["--quick"], "mine-quick"), (["--quick", "--name", "x"], "x")):
        run = main.commands["run"].make_context("run", [str(path), *options])
        given = {key: run.params[key] for key in ("spec", "data", "overrides", "storage", "name")}
        assert load(**given, quick=run.params["quick"]).name == name
    ended = CliRunner().invoke(main, ["plan", str(path), "--quick"])
    assert ended.exit_code == 2
    assert "data.root" in ended.output
