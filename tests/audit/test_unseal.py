"""The sealed test set: nothing reads it before, and one opening is the one that counts."""

from __future__ import annotations

import getpass
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from medaug.audit.sealed import FILE, openings_of, unsealed_of
from medaug.cli import main
from medaug.errors import UserError
from medaug.experiment.trained import load_classifier, sealed_rows
from medaug.results.leaderboard import leaderboard_of
from medaug.results.records import TrialRecord, read_trials
from medaug.results.report.evidence import Evidence
from medaug.results.report.facts import test_set as said_of_the_test_set
from medaug.spec import LinearSpec
from medaug.storage.artifacts import Artifacts
from medaug.store import Store
from medaug.train.world import World
from medaug.unseal import unseal
from tests.audit.small_runs import EACH, SLICES, of_features, run, study

CPU = World.single()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(study(tmp_path_factory.mktemp("images")))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(of_features(tmp_path_factory.mktemp("features")))


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    probe = {"kind": "probe", "weighting": "logit_adjust"}
    return run(study(tmp_path_factory.mktemp("solved"), classifier=probe))


@pytest.fixture(params=["images", "features", "solved"])
def finished(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run to open, which no other test sees."""
    folder: Path = request.getfixturevalue(request.param)
    shutil.copytree(folder.parent, tmp_path / "runs")
    return tmp_path / "runs" / folder.name


def classifiers(folder: Path) -> list[TrialRecord]:
    return [trial for trial in read_trials(folder) if trial.config.stage == "classify"]


def sealed(folder: Path) -> Store:
    return Artifacts(folder.parent).open_store(SLICES).split("test")


@pytest.mark.parametrize("kind", ["images", "features"])
def test_nothing_depends_on_the_sealed_patients(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(kind)
    other = run((study if kind == "images" else of_features)(tmp_path), sealed_glow=5000.0)
    assert sealed(folder).read().x.mean() + 4000 < sealed(other).read().x.mean()
    results = [
        {trial.config.key: trial.result for trial in read_trials(place)}
        for place in (folder, other)
    ]
    assert results[0] == results[1]


def test_a_classifier_comes_back_as_it_predicted(finished: Path) -> None:
    for trial in classifiers(finished)[:6]:
        store = Artifacts(finished.parent).open_store(trial.classify.features)
        classifier = load_classifier(trial, CPU)
        again = classifier.predict(store.split("eval", trial.config.fold), CPU)
        assert trial.result is not None
        assert np.array_equal(again, trial.classified.predictions.probability.array())
        assert classifier.best_epoch == trial.classified.best_epoch


def test_sealed_features_are_those_of_the_folds_unet_and_do_not_stay(features: Path) -> None:
    trial = next(t for t in classifiers(features) if t.config.fold == 1)
    known = Artifacts(features.parent).open_store(trial.classify.features)
    assert not len(known.split("test"))
    before = sorted(features.parent.rglob("*"))
    with sealed_rows(trial, CPU) as rows:
        assert rows.schema == known.schema
        assert np.array_equal(rows.units, sealed(features).units)
        assert rows.splits == known.splits
    assert sorted(features.parent.rglob("*")) == before


def test_the_scores_are_those_of_the_folds_votes(finished: Path) -> None:
    record = unseal(finished)
    board = leaderboard_of(finished)
    best = board.rows[0]
    row = record["rows"][0]
    assert row["configuration"] == best.title
    trials = [trial for trial in classifiers(finished) if trial.config.key in best.trials]
    seeds = sorted({trial.config.seed for trial in trials})
    assert len(trials) == 2 * len(seeds) == best.expected
    label, patients = sealed(finished).labels, sealed(finished).patients
    accuracies, areas, whole = [], [], []
    for seed in seeds:
        own = [trial for trial in trials if trial.config.seed == seed]
        votes = []
        for trial in own:
            with sealed_rows(trial, CPU) as rows:
                votes.append(load_classifier(trial, CPU).predict(rows, CPU)[:, 1])
        threshold = np.mean([t.classified.threshold for t in own])
        accuracies.append(balanced_accuracy_score(label, np.mean(votes, 0) >= threshold))
        areas.append(roc_auc_score(label, np.mean(votes, 0)))
        means = [np.mean(votes, 0)[patients == name].mean() for name in np.unique(patients)]
        true = [label[patients == name][0] for name in np.unique(patients)]
        whole.append(balanced_accuracy_score(true, np.array(means) >= threshold))
    scores = row["scores"]
    assert scores["balanced_accuracy"]["mean"] == pytest.approx(np.mean(whole))
    assert scores["slice_balanced_accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert scores["slice_auroc"]["mean"] == pytest.approx(np.mean(areas))
    assert scores["balanced_accuracy"]["low"] <= scores["balanced_accuracy"]["mean"]

    assert record["who"] == getpass.getuser()
    assert record["configurations_tried"] == board.tried
    assert record["split"] == sealed(finished).manifest["splits"]["hash"]
    assert sum(record["patients"].values()) * EACH == record["slices"] == len(label)
    titles = [row["configuration"] for row in record["rows"]]
    synthetic = [row.title for row in board.rows if row.synthetic]
    assert {best.title, best.reference, "none", *synthetic[:1]} == set(titles)
    assert row["roles"][0] == "best-ranked"
    said = said_of_the_test_set(Evidence.of(finished), 6)
    assert f"after {board.tried} configurations" in said
    assert f"{best.title}: balanced accuracy 0." in said
    for row in record["rows"]:
        assert (row["gain"] is None) == (row["configuration"] == best.reference)


def test_a_second_opening_tells_the_first_and_is_written_down(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unsealed_of(finished) is None
    monkeypatch.setenv("LOGNAME", "ada")
    first = unseal(finished)
    assert (finished / FILE).stat().st_mode & 0o777 == 0o600
    shutil.rmtree(finished.parent / "stores")  # what the first saw stands, whatever is gone since
    monkeypatch.setenv("LOGNAME", "bob")
    done = CliRunner().invoke(main, ["unseal", "small", "--storage", str(finished.parent)])
    assert done.exit_code == 0, done.output
    assert "opened by ada" in done.output
    assert "opened 2 times in all, last by bob" in done.output
    assert unsealed_of(finished) == first
    assert [line["who"] for line in openings_of(finished)] == ["ada", "bob"]
    said = CliRunner().invoke(
        main, ["unseal", "small", "--storage", str(finished.parent), "--json"]
    )
    assert json.loads(said.stdout) == first


def test_it_stays_sealed_while_trials_are_unfinished(finished: Path) -> None:
    (classifiers(finished)[0].folder / "result.json").unlink()
    done = CliRunner().invoke(main, ["unseal", "small", "--storage", str(finished.parent)])
    assert done.exit_code == 2
    assert "1 trials are unfinished" in done.stderr
    for trial in classifiers(finished):
        shutil.rmtree(trial.folder)
    with pytest.raises(UserError, match="all trials are unfinished"):
        unseal(finished)
    assert unsealed_of(finished) is None
    assert openings_of(finished) == []


def test_without_a_sealed_set_or_a_rankable_row_there_is_nothing_to_open(
    images: Path, tmp_path: Path
) -> None:
    open_ = run(study(tmp_path / "a", split={"folds": 2}, arms={"none": {}}))
    with pytest.raises(UserError, match="no test set was sealed"):
        unseal(open_)
    few = run(study(tmp_path / "b", arms={"none": {}}, sweep={"n_synthetic": [24], "seeds": [0]}))
    with pytest.raises(UserError, match="1 seed, fewer than 3, so no configuration is rankable"):
        unseal(few)
    assert openings_of(few) == []
    with pytest.raises(UserError, match="no such run"):
        unseal(images.parent / "large")


def test_a_classifier_whose_checkpoints_are_gone_is_named(finished: Path) -> None:
    trial = classifiers(finished)[0]
    for checkpoint in trial.folder.glob("ep_*"):
        shutil.rmtree(checkpoint)
    if isinstance(trial.classify.classifier, LinearSpec):  # it is solved again
        assert load_classifier(trial, CPU).threshold == trial.classified.threshold
        return
    with pytest.raises(UserError, match="were not kept; --retrain"):
        load_classifier(trial, CPU)
