"""The whole chain on Ray, from simulated scans to leaderboard, through the command line."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest
from click.testing import CliRunner

from medaug.cli import main
from medaug.store import Store
from tests.integration.small_study import Finished, medaug

pytestmark = pytest.mark.ray


def trials(small: Finished) -> list[dict]:
    """result.json of every trial, with the configuration beside it."""
    return [
        json.loads(path.read_text())
        | {"config": json.loads((path.parent / "config.json").read_text())}
        for path in sorted((small.folder / "trials").glob("*/result.json"))
    ]


def test_every_trial_is_done_and_each_stage_leaves_its_artefact(small: Finished) -> None:
    by_stage = {
        stage: [t for t in trials(small) if t["config"]["stage"] == stage]
        for stage in ("segment", "extract", "generate", "classify")
    }
    # 1 pre-training + 2 folds; 2 folds; 2 generated arms and 4 arms, each 2 folds x 3 seeds. Beside
    # them the encoders of the linear models, whose own trials ran in a bundle.
    by_stage["extract"] = [t for t in by_stage["extract"] if t["config"]["encoder"] is None]
    assert {stage: len(found) for stage, found in by_stage.items()} == {
        "segment": 3, "extract": 2, "generate": 12, "classify": 24,
    }  # fmt: skip
    assert list((small.folder / "bundles").glob("*/part-*.jsonl"))
    assert {t["status"] for t in trials(small)} == {"done"}
    assert all((small.storage / "models" / t["output"]).is_dir() for t in by_stage["segment"])
    assert all((small.storage / "stores" / t["output"]).is_dir() for t in by_stage["generate"])


def test_leaderboard_is_printed_and_readable_by_machines(small: Finished) -> None:
    assert "small (protocol honest)" in small.output
    words = ["leaderboard", "small", "--storage", str(small.storage), "--json"]
    board = json.loads(CliRunner().invoke(main, words).stdout)
    own = [row for row in board["rows"] if not row["linear"]]
    assert {row["title"] for row in own} == {
        "none", "duplicate +24", "classical +24", "acgan +24",
    }  # fmt: skip
    linear = {row["title"] for row in board["rows"] if row["linear"]}
    assert "none by pixels-probe" in linear
    for row in board["rows"]:
        assert row["replicates"] == row["expected"] == (2 if row["linear"] else 6)
        assert row["low"] <= row["mean"] <= row["high"]
        assert row["rank"] is not None, row["flags"]
    assert sum("reference" in row["flags"] for row in board["rows"]) == 1


def test_no_patient_has_two_roles_in_any_store(small: Finished) -> None:
    stores = [Store.open(path) for path in (small.storage / "stores").glob("*-*") if path.is_dir()]
    assert len(stores) >= 5
    for store in stores:
        for fold in range(len(store.splits.folds)):
            roles = [set(store.splits.patients(role, fold)) for role in ("train", "val", "eval")]
            for one, other in itertools.combinations([*roles, set(store.splits.test)], 2):
                assert not one & other
            rows = sum(len(store.split(role, fold)) for role in ("train", "val", "eval"))
            assert rows == (0 if store.provenance.stage == "generate" else len(store))


def test_generated_rows_come_from_training_patients_alone(small: Finished) -> None:
    for trial in (t for t in trials(small) if t["config"]["stage"] == "generate"):
        rows = Store.open(small.storage / "stores" / trial["output"])
        fold = trial["config"]["fold"]
        assert set(rows.provenance.fitted_on) == set(rows.splits.patients("train", fold))


def test_running_again_runs_no_trial_again(small: Finished) -> None:
    before = {p: p.stat().st_mtime_ns for p in small.folder.glob("trials/*/result.json")}
    done = medaug("run", small.spec, "--storage", small.storage)
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in small.folder.glob("trials/*/result.json")} == before


def test_resume_goes_on_where_trials_are_missing_and_agrees_to_the_bit(
    small: Finished, tmp_path
) -> None:
    storage = tmp_path / "runs"
    shutil.copytree(small.storage, storage)
    lost = [
        path.parent
        for path in (storage / "small" / "trials").glob("*/result.json")
        if json.loads((path.parent / "config.json").read_text())["stage"] == "classify"
    ][:3]
    for number, folder in enumerate(lost):  # one as if never begun, the others as if cut off
        if number == 0:
            shutil.rmtree(folder)
        else:
            (folder / "result.json").unlink()
    done = medaug("resume", "small", "--storage", storage)
    assert done.returncode == 0, done.stderr
    for folder in lost:
        again = json.loads((folder / "result.json").read_text())
        first = json.loads((small.folder / "trials" / folder.name / "result.json").read_text())
        assert again["scores"] == first["scores"]
        assert again["predictions"] == first["predictions"]


def test_a_changed_study_under_the_same_name_is_refused(small: Finished) -> None:
    done = medaug("run", small.spec, "--storage", small.storage, "--set", "classifier.lr=0.5")
    assert done.returncode == 2
    assert "classifier.lr: 0.001 -> 0.5" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_report_stands_alone(small: Finished) -> None:
    page = (small.folder / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "acgan +24" in page


def test_mlflow_has_one_run_for_each_trial(small: Finished) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{small.storage}/mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
    runs = client.search_runs(experiments, max_results=1000)
    keys = [run.data.tags["medaug.key"] for run in runs if run.data.tags.get("stage") in (
        "segment", "extract", "generate", "classify")]  # fmt: skip
    linear = 2  # pixels and lite0: their trials run in bundles, and have a run a configuration
    assert len(keys) == len(set(keys)) == len(trials(small)) + linear
    assert all(run.info.status == "FINISHED" for run in runs)
