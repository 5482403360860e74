"""What a run that has begun may go on with: other resources, another MLflow, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from medaug.cli import main
from medaug.errors import UserError
from medaug.ownership.identity import claim_folder, free_folder
from medaug.ownership.seals import RunSeals, check_run
from medaug.spec import ArmSpec, StudySpec, build_study, resumed_study
from medaug.storage.run_folder import study_data

ARMS = {"none": ArmSpec, "duplicate": ArmSpec}


@pytest.fixture
def study(tmp_path: Path) -> StudySpec:
    return build_study(
        {"name": "x", "storage": str(tmp_path), "arms": {"none": {}}, "resources": {"ranks": 2}},
        ARMS,
    )


def test_resources_and_tracking_may_be_others(study: StudySpec) -> None:
    folder = claim_folder(study)
    RunSeals(folder).flush()
    options = ["resources.cpus_per_rank=2", "resources.ranks=1", "tracking.uri=http://mlflow:5000"]
    resumed = resumed_study(study_data(folder), ARMS, options)
    assert resumed.resources.cpus_per_rank == 2.0
    assert resumed.resources.ranks == 1
    assert resumed.tracking.uri == "http://mlflow:5000"
    changed = {"resources": study.resources, "tracking": study.tracking}
    assert resumed.model_copy(update=changed) == study

    assert free_folder(resumed) == folder  # the same study
    claim_folder(resumed)
    RunSeals(folder).flush()
    assert check_run(folder).remarks("x") == []
    again = resumed_study(study_data(folder), ARMS)  # and the next resume goes on with them
    assert again.resources == resumed.resources


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("classifier.lr=0.1", "--set classifier.lr: of a run that has begun, only resources.* and"),
        ("name=y", "--set name: of a run that has begun"),
        ("resourcs.ranks=1", "--set resourcs.ranks: of a run that has begun"),
        ("=3", "--set : of a run that has begun"),
        ("storage=/other", "--set storage: give it to `medaug resume` as --storage"),
    ],
)
def test_what_decides_results_is_refused(option: str, said: str, tmp_path: Path) -> None:
    """Before anything is looked at: there is no such run."""
    words = ["resume", "x", "--storage", str(tmp_path), "--set", option]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert said in result.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("resources.cpu_per_rank=2", "resources.cpu_per_rank: unknown key; did you mean 'cpus_per_rank'?"),
        ("resources.ranks=0", "--set resources.ranks: should be greater than or equal to 1"),
        ("resources.ranks", "write --set section.key=value"),
        ("resources=3", "resources: should be a section"),
        ("tracking.uri=http://me:secret@host", "tracking.uri: holds a password"),
        ("tracking.uri=${NOBODY_SET_THIS}", "${NOBODY_SET_THIS} is not set"),
        ("resources.gpus_per_rank=0.5", "NCCL refuses two ranks on one GPU"),
    ],
)  # fmt: skip
def test_mistakes_are_named(study: StudySpec, option: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        resumed_study(study_data(claim_folder(study)), ARMS, [option])
    assert said in str(caught.value)
