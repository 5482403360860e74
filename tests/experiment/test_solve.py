"""Classifiers that are solved: many at once are what each is by itself."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from medaug.experiment import bundle_by, is_solved, run_bundle, run_trial
from medaug.experiment.rows import held_back_rows, training_rows
from medaug.plan.trials import Plan, plan_study
from medaug.spec import ClassifyTrial, StudySpec, WrittenArm
from medaug.spec.trial import TrainingSet
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import ClassifyResult, DivergedResult
from medaug.train.world import World
from tests.audit.small_runs import SLICES, study, write_slices

CPU = World.single()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudySpec, Plan]:
    """Everything but the classifiers of a study with draws, weights, means and an encoder."""
    spec = study(
        tmp_path_factory.mktemp("solve"),
        arms={"gaussian": {"components": 4}, "alone": {"kind": "duplicate", "real_rows": False}},
        encoder={"kind": "pixels_pca", "size": 8, "components": 10},
        classifier={"kind": "probe"},
        controls=["none", "duplicate", "class_weights", "cosine_mean", "more_real"],
        sweep={"n_synthetic": [4, 8], "train_rows": [12], "draws": 2, "seeds": [0, 1]},
    )
    write_slices(spec)
    plan = plan_study(spec, SLICES)
    for trials in (plan.extract, plan.generate):
        for trial in trials:
            *_, last = run_trial(trial, CPU, spec.storage)
            assert last.result is not None
            assert last.result.status == "done"
    return spec, plan


def test_each_of_many_is_what_it_is_alone(made: tuple[StudySpec, Plan]) -> None:
    spec, plan = made
    configs = list(plan.classify)
    assert all(map(is_solved, configs))
    assert {t.kind for t in configs} >= {"gaussian", "duplicate", "class_weights", "more_real"}
    together = {config.key: result for config, result in run_bundle(configs, CPU, spec.storage)}
    assert [*together] == [config.key for config in configs]
    for config in configs[:: max(1, len(configs) // 25)]:
        *_, last = run_trial(config, CPU, spec.storage)
        assert last.result == together[config.key], config.title
    # A bundle that goes on after a kill has the rest of the same.
    rest = configs[len(configs) // 2 :]
    for config, result in run_bundle(rest, CPU, spec.storage):
        assert result == together[config.key]


def test_what_is_stored_is_what_was_scored(made: tuple[StudySpec, Plan]) -> None:
    spec, plan = made
    trial = next(t for t in plan.classify if t.kind == "gaussian" and t.fold == 1)
    ((_, result),) = run_bundle([trial], CPU, spec.storage)
    assert isinstance(result, ClassifyResult)
    held_out = Artifacts(spec.storage).open_store(trial.features).split("eval", 1)
    rows = result.predictions
    assert rows.patient_names().tolist() == held_out.patients.tolist()
    assert rows.label.array().tolist() == held_out.labels.tolist()
    probability = rows.probability.array()
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-6)
    called = probability[:, 1] >= result.threshold
    assert result.scores["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(held_out.labels, called)
    )
    assert (result.steps, result.lineage) == (0, "proven")


def test_small_training_sets_differ_between_draws_and_leave_the_rest(
    made: tuple[StudySpec, Plan],
) -> None:
    spec, plan = made
    more = [t for t in plan.classify if t.kind == "more_real" and t.n_synthetic == 8]
    patients = set()
    for trial in more:
        features = Artifacts(spec.storage).open_store(trial.features)
        own = training_rows(trial, features)
        whole = features.split("train", trial.fold)
        added = whole.select(held_back_rows(whole, TrainingSet(12, trial.fold, trial.draw))[:8])
        assert not set(own.units.tolist()) & set(added.units.tolist())
        assert len(own) >= 12
        patients.add((trial.fold, tuple(np.unique(own.patients))))
    assert len(patients) == 4  # two folds, two draws


def test_too_few_real_rows_are_a_result_of_that_trial_alone(made: tuple[StudySpec, Plan]) -> None:
    spec, plan = made
    fits = next(t for t in plan.classify if t.kind == "more_real")
    wanted = fits.model_copy(update={"n_synthetic": 999, "recorded_key": "another"})
    found = [result for _, result in run_bundle([wanted, fits], CPU, spec.storage)]
    assert isinstance(found[0], DivergedResult)
    assert "999 more real rows wanted" in found[0].why
    assert isinstance(found[1], ClassifyResult)


def test_trials_that_share_rows_are_put_together(made: tuple[StudySpec, Plan]) -> None:
    _, plan = made
    groups = [bundle_by(trial) for trial in plan.classify]
    changes = sum(a != b for a, b in itertools.pairwise(groups))
    assert changes < 12  # two folds of the study's own features, and the linear models'
    instant = plan.generate[0]
    trained = instant.model_copy(update={"maker": WrittenArm(kind="flow")})
    assert bundle_by(instant) is not None
    assert bundle_by(trained) is None


def test_images_that_are_generated_are_encoded(tmp_path: Path) -> None:
    """In a study with an encoder a GAN of images is trained on images."""
    spec = study(
        tmp_path,
        arms={"dcgan": {"networks": "dcgan32", "width": 4, "nz": 8, "epochs": 1}, "classical": {}},
        encoder={"kind": "pixels_pca", "size": 8, "components": 10},
        classifier={"kind": "probe"},
        controls="none",
        sweep={"n_synthetic": [8], "seeds": [0]},
    )
    write_slices(spec)
    plan = plan_study(spec, SLICES)
    artifacts = Artifacts(spec.storage)
    for trial in [*plan.extract, *(t for t in plan.generate if t.fold == 0)]:
        *_, _ = run_trial(trial, CPU, spec.storage)
    for trial in (t for t in plan.generate if t.fold == 0):
        rows = artifacts.open_store(f"rows-{trial.key}")
        features = artifacts.open_store(trial.features)
        assert rows.schema == features.schema
        assert rows.schema.shape == (10, 1, 1)
        assert rows.provenance.encoder == features.provenance.encoder
        assert np.isfinite(rows.read().x.numpy()).all()
    assert all(isinstance(trial, ClassifyTrial) for trial in plan.classify)
