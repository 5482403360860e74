"""Classical views under a frozen encoder: encoded once, and of training patients only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medaug.encoders import encoder_of, unsealed
from medaug.experiment import run_bundle, run_trial
from medaug.experiment.rows import added_rows, arm_context, arm_of, training_rows
from medaug.plan.trials import Plan, plan_study
from medaug.spec import ClassifyTrial, StudySpec
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import ClassifyResult
from medaug.store import Store
from medaug.train.world import World
from tests.audit.small_runs import SLICES, study, write_slices

CPU = World.single()
VIEWS = 2


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudySpec, Plan]:
    """A study of lite0 features with a classical arm, all but its classifiers made."""
    spec = study(
        tmp_path_factory.mktemp("views"),
        arms={"classical": {"views": VIEWS}},
        encoder={"kind": "efficientnet_lite0", "image_size": 32},
        classifier={"kind": "probe"},
        controls="none",
        sweep={"n_synthetic": [40], "train_rows": [6, "all"], "draws": 2, "seeds": [0, 1]},
    )
    write_slices(spec)
    plan = plan_study(spec, SLICES)
    for trial in plan.extract:
        *_, last = run_trial(trial, CPU, spec.storage)
        assert last.result is not None
        assert last.result.status == "done"
    return spec, plan


def classical(plan: Plan) -> list[ClassifyTrial]:
    return [trial for trial in plan.classify if trial.arm == "classical"]


def test_no_generator_is_planned_and_each_view_once(encoded: tuple[StudySpec, Plan]) -> None:
    _, plan = encoded
    assert not plan.generate
    assert [trial.view for trial in plan.extract if trial.maker] == [*range(VIEWS)]
    assert {trial.views for trial in classical(plan)} == {classical(plan)[0].views}
    assert set(classical(plan)[0].views) < set(classical(plan)[0].inputs)


def test_added_rows_are_training_rows_transformed(encoded: tuple[StudySpec, Plan]) -> None:
    spec, plan = encoded
    artifacts = Artifacts(spec.storage)
    slices = unsealed(artifacts.open_store(SLICES))
    for trial in (classical(plan)[0], next(t for t in classical(plan) if t.train_rows is None)):
        features = artifacts.open_store(trial.features)
        context = arm_context(trial, features, CPU, artifacts)
        added = added_rows(trial, features, context, artifacts)
        assert added is not None
        own = training_rows(trial, features)
        arm = arm_of(trial.maker)
        chosen, rounds = arm.choose(context, trial.n_synthetic)
        assert added.patients.tolist() == own.patients[chosen].tolist()
        assert added.labels.tolist() == own.labels[chosen].tolist()
        encoder = encoder_of(spec.image_encoder).open(slices, CPU)
        for i in (0, 1, len(chosen) - 1):
            row = position(slices, own, chosen[i])
            image = slices.read(np.array([row])).x.float()
            view = arm.view(image, np.array([row]), int(rounds[i]) % VIEWS)
            assert not torch.equal(view, image)
            found = added.read(np.array([i])).x.flatten()
            assert torch.allclose(found, encoder.encode(view).flatten(), atol=1e-5)


def position(slices: Store, rows: Store, row: int) -> int:
    same = (slices.patients == rows.patients[row]) & (slices.slice_index == rows.slice_index[row])
    return int(np.flatnonzero(same & (slices.volumes == rows.volumes[row]))[0])


def test_solved_and_trained_classifiers_are_given_the_same(
    encoded: tuple[StudySpec, Plan],
) -> None:
    """Many at once choose the rows that one by itself is given."""
    from medaug.experiment.solve import _Desk

    spec, plan = encoded
    artifacts = Artifacts(spec.storage)
    desk = _Desk(artifacts, CPU)
    for trial in classical(plan):
        features = artifacts.open_store(trial.features)
        alone = added_rows(trial, features, arm_context(trial, features, CPU, artifacts), artifacts)
        assert alone is not None
        together = desk._added(trial, *desk._rows_for(trial))
        assert together is not None
        x = alone.read(np.arange(len(alone))).x.flatten(1)
        assert np.allclose(together.x, x.numpy(), atol=1e-5)
        assert together.patient.tolist() == alone.patients.tolist()
    for _, result in run_bundle(classical(plan), CPU, spec.storage):
        assert isinstance(result, ClassifyResult)
        assert result.lineage == "proven"
