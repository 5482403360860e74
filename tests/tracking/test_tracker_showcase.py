"""What a finished run leaves in MLflow: a leaderboard, files, and a generator that works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient, pyfunc
from mlflow.entities import Run

import medaug
from medaug.arms import FittedArm, load_arm
from medaug.arms.acgan import AcganArm
from medaug.experiment import generator_name, output_name
from medaug.plan.trials import plan_study
from medaug.results.leaderboard import leaderboard_of
from medaug.results.numbers import with_interval
from medaug.results.report.answer import answer
from medaug.results.report.document import REPORT
from medaug.results.rows import Leaderboard
from medaug.spec import StudySpec, TrialConfig
from medaug.spec.arms import AcganSpec
from medaug.storage.artifacts import Artifacts
from medaug.tracking.tracker import Tracker, sync
from medaug.train.gan import Gan
from medaug.train.scaling import FeatureScale
from tests.storage.sealed_runs import sealed_run, site_key, small_study
from tests.tracking.made_runs import SLICES, made_scores, study, write_trial
from tests.tracking.played_sweeps import QUICK, all_runs, client_of, run_of

SHAPE = (3, 4, 4)


@dataclass(frozen=True)
class Finished:
    """A run that is at its end: scored, with a generator, a report and figures."""

    study: StudySpec
    folder: Path
    board: Leaderboard
    maker: TrialConfig

    def show(self) -> None:
        with Tracker(self.study, self.folder, **QUICK) as tracker:
            tracker.finish(self.board, self.folder / REPORT)

    @property
    def client(self) -> MlflowClient:
        return client_of(self.study)

    def sweep(self) -> Run:
        (sweep,) = (run for run in all_runs(self.client) if run.data.tags["stage"] == "sweep")
        return sweep

    def files(self, run: Run, folder: str | None = None) -> set[str]:
        return {file.path for file in self.client.list_artifacts(run.info.run_id, folder)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Finished:
    """Shown once; the tests look at it, and may show it again."""
    tmp_path = tmp_path_factory.mktemp("finished")
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    arms: Mapping[str, Any] = {kind: {} for kind in ("none", "duplicate", "classical")}
    spec = study(
        tmp_path,
        arms={**arms, "acgan": {"ngf": 4, "ndf": 4, "filter": "none"}},
        sweep={"n_synthetic": [300], "seeds": [0, 1, 2]},
        split={"folds": 2},
    )
    folder = made_scores(spec, lambda labels, seed: 2.0 * (labels["arm"] == "acgan"))
    maker = next(
        trial
        for trial in plan_study(spec, SLICES).generate
        if (trial.arm, trial.fold, trial.seed) == ("acgan", 0, 0)
    )
    made = {"output": output_name(maker), "generator": generator_name(maker), "n": 300}
    write_trial(folder, maker, {**made, "scores": {"fd": 3.0}})
    publish_generator(spec, maker)
    (folder / REPORT).write_text("<html>the report</html>")
    best = f"rows/{leaderboard_of(folder).rows[0].key}"
    for figure in ("ratio.png", f"{maker.key}/curves.png", f"{best}/classifier.png"):
        path = folder / "figures" / figure
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x89PNG")
    finished = Finished(spec, folder, leaderboard_of(folder), maker)
    finished.show()
    return finished


def publish_generator(spec: StudySpec, maker: TrialConfig) -> None:
    """An untrained ACGAN where a trial would have left a trained one."""
    arm = AcganArm(AcganSpec.model_validate(maker.maker.canonical()))
    arm.n_classes, arm.shape = 2, SHAPE
    torch.manual_seed(0)
    arm.gan = Gan(*arm.networks(), FeatureScale(torch.zeros(3), torch.ones(3), 0.0))

    def write(folder: Path) -> None:
        arm.save(folder)
        about = {"classes": ["LGG", "HGG"], "shape": list(SHAPE)}
        (folder / "about.json").write_text(json.dumps(about))

    Artifacts(spec.storage).publish_model(generator_name(maker), write)


def test_the_ui_shows_a_leaderboard(finished: Finished) -> None:
    rows = [run for run in all_runs(finished.client) if run.data.tags["stage"] == "leaderboard"]
    shown = {run.info.run_name: run for run in rows}
    assert shown.keys() == {row.title for row in finished.board.rows}
    for row in finished.board.rows:
        run = shown[row.title]
        assert run.data.tags["mlflow.parentRunId"] == finished.sweep().info.run_id
        assert run.data.tags["flags"] == "; ".join(row.flags)
        assert run.info.status == "FINISHED"
        wanted = {
            "balanced_accuracy": row.mean,
            "low": row.low,
            "high": row.high,
            "gain": row.gain,
            "gain_low": row.gain_low,
            "gain_high": row.gain_high,
            "n_synthetic": row.n_synthetic,
            "replicates": row.replicates,
            "rank": row.rank,
        }
        assert {name: run.data.metrics[name] for name in wanted} == pytest.approx(wanted, abs=5e-5)
        assert run.data.params["arm"] == row.arm
    assert shown["acgan +300"].data.metrics["rank"] == 1
    newest = max(rows, key=lambda run: run.info.start_time)
    assert newest.info.run_name == "acgan +300"
    note = finished.sweep().data.tags["mlflow.note.content"]
    assert "| 1 | acgan +300 |" in note
    assert "/runs?workflowType=machine_learning&viewStateShareKey=leaderboard)" in note
    assert f"{finished.sweep().info.run_id}/artifacts/figures/ratio.png" in note
    for row in finished.board.rows:
        interval = with_interval(row.gain, row.gain_low, row.gain_high, signed=True)
        wanted = "reference" if "reference" in row.flags else interval
        assert shown[row.title].data.tags["gain"] == wanted
        assert str(round(row.mean, 3)) in shown[row.title].data.tags["balanced accuracy"]
    experiment = finished.client.get_experiment_by_name("medaug/made")
    view = json.loads(experiment.tags["mlflow.sharedViewState.leaderboard"])
    for column in view["selectedColumns"]:
        kind, name = column.split(".", 1)
        assert name.strip("`") in getattr(shown["acgan +300"].data, kind)
    assert set(view["selectedColumns"]) <= set(view["columnOrder"])
    assert experiment.tags["mlflow.note.content"] == answer(finished.board).headline


def test_report_and_figures_are_artifacts(finished: Finished) -> None:
    assert finished.files(finished.sweep()) == {"leaderboard.json", REPORT, "figures"}
    assert finished.files(finished.sweep(), "figures") == {"figures/ratio.png"}
    maker = run_of(finished.client, finished.maker)
    assert finished.files(maker, "figures") == {"figures/curves.png"}
    assert "artifacts/figures/curves.png" in maker.data.tags["mlflow.note.content"]
    best, *_ = (r for r in all_runs(finished.client) if r.info.run_name == "acgan +300")
    assert finished.files(best, "figures") == {"figures/classifier.png"}
    assert "artifacts/figures/classifier.png" in best.data.tags["mlflow.note.content"]
    path = finished.client.download_artifacts(finished.sweep().info.run_id, "leaderboard.json")
    assert json.loads(Path(path).read_text()) == finished.board.to_json()
    for where in (finished.study.storage / "mlartifacts").rglob("*"):
        assert where.is_relative_to(finished.study.storage)


def test_showing_it_again_adds_nothing(finished: Finished) -> None:
    before = {run.info.run_id for run in all_runs(finished.client)}
    finished.show()
    sync(finished.folder)
    client = finished.client
    runs = all_runs(client)
    assert {run.info.run_id for run in runs} == before
    for run in runs:
        for metric in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, metric)
            assert len({point.step for point in history}) == len(history)
    assert len(client.search_model_versions("name = 'made-generator'")) == 1


def test_the_best_generator_is_registered_and_makes_its_rows(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{finished.study.storage}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = pyfunc.load_model("models:/made-generator@best")
    assert model.metadata.metadata == {"classes": ["LGG", "HGG"]}
    signature = model.metadata.signature
    assert signature.inputs.input_names() == ["label", "n", "seed"]
    assert signature.inputs.required_input_names() == ["label"]
    assert signature.outputs.to_dict()[0]["tensor-spec"]["shape"] == (-1, *SHAPE)

    rows = model.predict(pd.DataFrame({"label": [1, 0], "n": [2, 3], "seed": [5, 5]}))
    arm = load_arm(Artifacts(finished.study.storage).model_path(generator_name(finished.maker)))
    assert isinstance(arm, FittedArm)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.concatenate([arm.draw(2, 1, 5), arm.draw(3, 0, 5)]))
    assert model.predict(pd.DataFrame({"label": [0, 1]})).shape == (2, *SHAPE)

    (version,) = finished.client.search_model_versions("name = 'made-generator'")
    assert version.tags["generator"] == generator_name(finished.maker)
    assert version.run_id == run_of(finished.client, finished.maker).info.run_id
    assert "acgan +300, fitted on the training patients of fold 0" in version.description
    stored = {path.name for path in (finished.study.storage / "mlartifacts").rglob("*")}
    assert "weights.safetensors" in stored
    assert not {name for name in stored if name.endswith((".pkl", ".pickle", ".pt", ".bin"))}
    assert (
        str(finished.study.storage)
        not in next(
            path for path in (finished.study.storage / "mlartifacts").rglob("MLmodel")
        ).read_text()
    )


def test_the_best_generator_of_a_bundle_is_a_file_of_the_sweep(
    tmp_path: Path, empty_database: Path
) -> None:
    spec = small_study(tmp_path)
    with site_key(tmp_path / "site.key"):
        folder = sealed_run(spec)
        shutil.copy(empty_database, tmp_path / "mlflow.db")
        with Tracker(spec, folder, **QUICK) as tracker:
            tracker.finish(leaderboard_of(folder), folder / REPORT)
        assert medaug.load_generator("small", tmp_path).sample(3, "HGG").shape[0] == 3
    client = client_of(spec)
    (version,) = client.search_model_versions("name = 'small-generator'")
    (sweep,) = (r for r in all_runs(client, "small") if r.data.tags["stage"] == "sweep")
    assert version.run_id == sweep.info.run_id
    assert version.source.endswith(f"/generator/{version.tags['generator']}")
    assert list((tmp_path / "mlartifacts").rglob("weights.safetensors"))


def test_a_run_without_a_portable_generator_registers_none(
    tmp_path: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    spec = study(
        tmp_path, arms={"none": {}}, sweep={"n_synthetic": [300], "seeds": [0]}, split={"folds": 2}
    )
    folder = made_scores(spec)
    with Tracker(spec, folder, **QUICK) as tracker:
        tracker.finish(leaderboard_of(folder), folder / REPORT)
    assert not client_of(spec).search_registered_models()
    (row,) = (r for r in all_runs(client_of(spec)) if r.data.tags["stage"] == "leaderboard")
    assert "rank" not in row.data.metrics
    assert row.data.tags["rank"] == "not rankable"
    assert row.info.run_name == "none"
