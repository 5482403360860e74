"""Every shipped study loads, resolves and plans; the published ones hold what they were copied for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medaug.errors import UserError
from medaug.plan.trials import Plan, plan_study
from medaug.results.published import REPRODUCED, ROWS, PublishedRow
from medaug.spec import StudySpec, build_study, load_study
from medaug.spec.arms import ARM_CONFIGS

JOBS = Path(__file__).parents[1] / "jobs"
SPECS = sorted(JOBS.glob("*.yaml"))
PUBLISHED = {
    "A": "glioma_as_published",
    "B": "head_ct_as_published",
    "C": "brain_ct_as_published",
    "D": "chest_xray_as_published",
}


def load(name: str, *overrides: str) -> StudySpec:
    return load_study(JOBS / f"{name}.yaml", ARM_CONFIGS, overrides)


def plan_of(study: StudySpec) -> Plan:
    return plan_study(study, "slices-0123456789ab", "slices-ba9876543210")


def keys(plan: Plan) -> list[str]:
    return [trial.key for _, trials in plan.waves() for trial in trials]


@pytest.mark.parametrize("name", [path.stem for path in SPECS])
def test_job_plans_trials_that_a_resume_finds_again(name: str) -> None:
    study = load(name)
    assert study.name == name
    planned = keys(plan_of(study))
    assert len(planned) == len(set(planned)) > 0
    stored = json.loads(json.dumps(study.canonical()))  # what study.json holds
    assert keys(plan_of(build_study(stored, ARM_CONFIGS))) == planned


@pytest.mark.parametrize("name", [path.stem for path in SPECS])
def test_a_shipped_job_uses_the_gpus_that_are_there_under_the_same_names(name: str) -> None:
    study = load(name)
    assert study.resources.gpus_per_rank == "auto"
    for gpus in ("0", "1"):
        assert keys(plan_of(load(name, f"resources.gpus_per_rank={gpus}"))) == keys(plan_of(study))


def test_keys_are_the_same_in_another_process() -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from medaug.spec.arms import ARM_CONFIGS; from medaug.plan.trials import plan_study;"
        "from medaug.spec import load_study;"
        "study = load_study(Path(sys.argv[1]), ARM_CONFIGS);"
        "plan = plan_study(study, 'slices-0123456789ab', 'slices-ba9876543210');"
        "print(*(t.key for _, trials in plan.waves() for t in trials))"
    )
    command = [sys.executable, "-c", code, str(JOBS / "head_ct.yaml")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.split() == keys(plan_of(load("head_ct")))


def test_every_paper_has_both_protocols_on_the_same_data() -> None:
    studies = [load(path.stem) for path in SPECS if path.stem != "demo"]
    for paper, name in PUBLISHED.items():
        published = load(name)
        assert (published.paper, published.protocol) == (paper, "as_published")
        (honest,) = (s for s in studies if s.paper == paper and s.protocol == "honest")
        assert published.data == honest.data
        assert published.classifier.kind == honest.classifier.kind
        controls = {arm.kind for arm in honest.arms.values()}
        assert {"none", "duplicate", "classical"} <= controls
        assert len(honest.sweep.seeds) >= 3


@pytest.mark.parametrize("paper", PUBLISHED)
def test_published_jobs_bring_their_papers_flaws_back(paper: str) -> None:
    resolved = load(PUBLISHED[paper]).canonical()
    settings = {k: v for flaw in REPRODUCED[paper].values() for k, v in flaw.items()}
    assert settings
    assert {key: at(resolved, key) for key in settings} == settings


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.paper} {row.title}")
def test_published_rows_have_their_arms_in_both_jobs(row: PublishedRow) -> None:
    for name in (PUBLISHED[row.paper], PUBLISHED[row.paper].removesuffix("_as_published")):
        assert load(name).arms[row.arm].kind == row.kind


def at(resolved: Any, dotted: str) -> Any:
    """The value of a dotted key; None where there is none."""
    for key in dotted.split("."):
        resolved = (resolved or {}).get(key)
    return resolved


def test_synthetic_only_shares_the_generators_of_both() -> None:
    plan = plan_of(load("head_ct"))
    inputs = {
        arm: {t.rows for t in plan.classify if t.arm == arm} for arm in ("dcgan", "synthetic_only")
    }
    assert inputs["dcgan"] == inputs["synthetic_only"]
    alone = [t.arm for t in plan.classify if not t.real_rows]
    assert set(alone) == {"synthetic_only"}
    assert {t.arm for t in plan.generate} == {"classical", "smote", "gaussian", "flow", "dcgan"}


def test_only_study_d_as_published_lets_its_gan_see_more() -> None:
    for path in SPECS:
        for trial in plan_of(load(path.stem)).generate:
            more = trial.generator_rows
            if path.stem == PUBLISHED["D"] and trial.arm == "dcgan":
                assert more == "publisher_train"
            else:
                assert more == "train"


def test_data_are_asked_for_when_they_are_read(tmp_path: Path) -> None:
    from medaug.study import run_study

    with pytest.raises(UserError, match="layout brats reads a folder; give --data DIR"):
        run_study(load("glioma", f"storage={json.dumps(str(tmp_path))}"))
    with pytest.raises(UserError, match="is no folder"):
        run_study(load("glioma", "data.root=/nowhere", f"storage={json.dumps(str(tmp_path))}"))
    assert not list(tmp_path.iterdir())
