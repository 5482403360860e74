"""Scans without a class: what a probe calls them, who learns from them, and who must not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medaug.errors import UserError
from medaug.experiment import generator_name, run_trial
from medaug.experiment.generate import _Work
from medaug.experiment.pool import joined
from medaug.experiment.rows import arm_context, arm_of
from medaug.intake import bring_pool
from medaug.plan.encoded import check_pool
from medaug.plan.trials import Plan, plan_study
from medaug.spec import GenerateTrial, StudySpec
from medaug.storage.artifacts import Artifacts
from medaug.store import Provenance, Store, StoreSchema, StoreWriter
from medaug.sweep.display import Silent
from medaug.train.world import World
from tests.audit.small_runs import SIZE, SLICES, study
from tests.experiment.test_given import CLASSES, pictures, write_real

POOL = "slices-0000000000ff"
ARMS = {
    "none": {},
    "duplicate": {},
    "classical": {},
    "gaussian": {},
    "pooled": {"kind": "gaussian", "fit_on": "pool"},
}


def write_pool(storage: Path, n: int = 30, side: int = SIZE, first: int = 100) -> Store:
    """``n`` patients of one slice each; every second one is bright, and nobody says so."""
    people = [f"p-{number:012x}" for number in range(first, first + n)]
    with StoreWriter(
        Artifacts(storage).store_path(POOL),
        StoreSchema((1, side, side), "float32"),
        provenance=Provenance("slices", "1" * 12, (), (), synthetic=False),
        classes=CLASSES,
    ) as writer:
        x = pictures(n, 3, side)[:, None]
        writer.write(x, label=np.full(n, -1), patient=people, volume=people, slice_index=0)
    return Artifacts(storage).open_store(POOL)


@pytest.fixture
def spec(tmp_path: Path) -> StudySpec:
    write_real(tmp_path)
    write_pool(tmp_path)
    return study(tmp_path, arms=ARMS, classifier={"kind": "probe"}, controls="auto")


def trial_of(plan: Plan, arm: str) -> GenerateTrial:
    return next(trial for trial in plan.generate if trial.arm == arm)


def test_a_probe_calls_the_pool_the_surest_first(spec: StudySpec) -> None:
    trial = trial_of(plan_study(spec, SLICES, pool=POOL), "pseudo_labels")
    artifacts = Artifacts(spec.storage)
    features = artifacts.open_store(trial.features)
    context = arm_context(trial, features, World.single(), artifacts)
    assert context.pool is not None
    truth = np.array([int(name[2:], 16) % 2 for name in context.pool.patients])
    right = context.pool.labels == truth
    assert right.mean() > 0.6
    assert right[:10].mean() >= right[-10:].mean()
    assert sorted(context.pool.patients) == sorted(artifacts.open_store(POOL).patients)

    *_, last = run_trial(trial, World.single(), spec.storage)
    assert last.result is not None
    rows = artifacts.open_store(last.result.output)  # type: ignore[attr-defined]
    assert rows.labels.tolist() == [i % 2 for i in range(len(rows))]
    surest = context.pool.select(np.flatnonzero(context.pool.labels == 0))
    np.testing.assert_array_equal(rows.read().x[0], surest.read().x[0])
    assert not rows.provenance.synthetic, "real rows are no synthetic ones"


def test_a_class_with_few_rows_repeats_them_and_one_without_any_ends_all(spec: StudySpec) -> None:
    trial = trial_of(plan_study(spec, SLICES, pool=POOL), "pseudo_labels")
    artifacts = Artifacts(spec.storage)
    context = arm_context(trial, artifacts.open_store(trial.features), World.single(), artifacts)
    assert context.pool is not None
    few = replace(context, pool=context.pool.labelled(np.arange(30) // 28))
    chunks = [*arm_of(trial.maker).sample(few, 8)]
    x, label = (np.concatenate(each) for each in zip(*chunks, strict=True))
    assert label.tolist() == [0, 1] * 4
    whole = context.pool.read().x.numpy()
    np.testing.assert_array_equal(x, whole[[0, 28, 1, 29, 2, 28, 3, 29]])
    none = replace(context, pool=context.pool.labelled(np.zeros(30, np.int64)))
    assert not [*arm_of(trial.maker).sample(none, 8)]


def test_a_generator_learns_from_the_pool_and_says_so(spec: StudySpec) -> None:
    plan = plan_study(spec, SLICES, pool=POOL)
    own, pooled = trial_of(plan, "gaussian"), trial_of(plan, "pooled")
    assert (own.pool, pooled.pool) == (None, POOL)
    assert POOL in pooled.inputs
    assert generator_name(own) != generator_name(pooled)

    artifacts = Artifacts(spec.storage)
    work = _Work.of(pooled, World.single(), artifacts)
    assert len(work.own.train) == len(work.context.train) + 30
    assert set(work.own.train.labels.tolist()) == {0, 1}
    assert not work.makes_images
    pool = set(artifacts.open_store(POOL).units.tolist())
    assert set(work.fitted_on) == set(work.context.train.units.tolist()) | pool

    made = []
    for trial in (own, pooled):
        *_, last = run_trial(trial, World.single(), spec.storage)
        assert last.result is not None
        made.append(artifacts.open_store(last.result.output))  # type: ignore[attr-defined]
    assert pool < set(made[1].provenance.fitted_on)
    assert not pool & set(made[0].provenance.fitted_on)
    assert not np.array_equal(made[0].read().x, made[1].read().x)


def test_the_control_comes_by_itself_and_needs_no_synthetic_row(spec: StudySpec) -> None:
    plan = plan_study(spec, SLICES, pool=POOL)
    control = [t for t in plan.classify if t.kind == "pseudo_labels"]
    assert control
    assert all(t.control and not t.synthetic for t in control)
    alone = spec.model_copy(update={"arms": {k: v for k, v in spec.arms.items() if k != "pooled"}})
    assert not [t for t in plan_study(alone, SLICES).classify if t.kind == "pseudo_labels"]


def test_an_arm_may_read_the_pool_at_some_points_of_its_grid(spec: StudySpec) -> None:
    grid = {"arms": {"none": {}, "gaussian": {}}, "controls": "auto"}
    sweep = {"n_synthetic": [24], "seeds": [0], "grid": {"gaussian.fit_on": ["train", "pool"]}}
    both = study(spec.storage, **grid, sweep=sweep)
    plan = plan_study(both, SLICES, pool=POOL)
    made = {(t.point.get("fit_on"), t.pool) for t in plan.generate if t.arm == "gaussian"}
    assert made == {("train", None), ("pool", POOL)}
    assert [t for t in plan.classify if t.kind == "pseudo_labels"]
    with pytest.raises(UserError, match="fit_on: pool wants scans of the part pool"):
        bring_pool(both, SLICES, spec.storage, Silent())
    drawn = {"n_synthetic": [24], "seeds": [0], "search": "random", "samples": 2}
    searched = study(
        spec.storage,
        **grid,
        sweep=drawn | {"space": {"gaussian.fit_on": {"choice": ["train", "pool"]}}},
    )
    with pytest.raises(UserError, match=r"sweep\.space: gaussian\.fit_on decides what is read"):
        check_pool(searched)


def test_features_of_the_pool_are_made_by_a_frozen_encoder_only(tmp_path: Path) -> None:
    frozen = study(tmp_path, arms=ARMS, encoder={"kind": "efficientnet_lite0", "image_size": 32})
    plan = plan_study(frozen, SLICES, pool=POOL)
    (made,) = [trial for trial in plan.extract if trial.slices == POOL]
    assert trial_of(plan, "pooled").pool == f"features-{made.key}"
    fitted = study(tmp_path, arms=ARMS, encoder={"kind": "pixels_pca"})
    with pytest.raises(UserError, match="pixels_pca is fitted to each fold's patients"):
        plan_study(fitted, SLICES, pool=POOL)


def test_images_are_joined_row_by_row(spec: StudySpec) -> None:
    artifacts = Artifacts(spec.storage)
    trial = trial_of(plan_study(spec, SLICES, pool=POOL), "pooled")
    context = arm_context(trial, artifacts.open_store(SLICES), World.single(), artifacts)
    assert context.pool is not None
    both = joined(replace(context, images=context.train, pool_images=context.pool))
    assert both.images is not None
    np.testing.assert_array_equal(both.images.read().x, both.train.read().x)
    np.testing.assert_array_equal(both.images.labels, both.train.labels)


def test_rows_of_another_size_are_refused(tmp_path: Path) -> None:
    write_real(tmp_path)
    write_pool(tmp_path, side=2 * SIZE)
    spec = study(tmp_path, arms=ARMS, classifier={"kind": "probe"})
    trial = trial_of(plan_study(spec, SLICES, pool=POOL), "pooled")
    with pytest.raises(UserError, match="bring scans of the same kind"):
        list(run_trial(trial, World.single(), spec.storage))


def test_phantoms_have_no_pool(tmp_path: Path) -> None:
    spec = study(tmp_path, arms=ARMS, data={"layout": "phantom"})
    with pytest.raises(UserError, match="fit_on: pool wants scans of the part pool"):
        bring_pool(spec, SLICES, tmp_path, Silent())
