"""From one trial of each kind to the whole study: sums that can be done by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medaug.data.survey import Survey
from medaug.errors import EnvironmentFault
from medaug.plan.forecast.costs import (
    Estimate,
    StageCost,
    estimate,
    slices_bytes,
    stores_bytes,
    trial_seconds,
)
from medaug.plan.forecast.fit import check_fit, check_stores
from medaug.plan.forecast.forecast import Forecast, render, whole_plan
from medaug.plan.forecast.kinds import Kind, kind_of, mean_of, measure
from medaug.plan.forecast.rehearsal import (
    PRETRAIN,
    SLICES,
    Miniature,
    _few,
    _stood_in_for,
    miniature,
    shrunk,
)
from medaug.plan.forecast.schedule import schedule
from medaug.plan.forecast.standin import fewer, rows_of, write_stand_in
from medaug.plan.trials import Plan, plan_study
from medaug.plan.variants import expand_arms
from medaug.spec import StudySpec, build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import Artifacts
from medaug.store import Store

BODY: dict[str, Any] = {
    "name": "x",
    "data": {"image_size": 64},
    "split": {"folds": 4},
    "segmenter": {"base": 8, "epochs": 10, "pretrain": None},
    "features": {"tap": "conv5"},
    "arms": {"none": {}, "classical": {}, "acgan": {"epochs": 20}},
    "classifier": {"epochs": 8},
    "sweep": {"n_synthetic": [100, 300], "seeds": [0, 1, 2], "grid": {"acgan.ngf": [16, 32]}},
    "resources": {"checkpoint_every_s": 0},
    "controls": "none",
}
KIND = Kind(
    epochs=1, first_s=2.0, epoch_s=1.0, judge_s=0.0, last_s=3.0, save_s=0.5, cpu_share=0.5,
    ram_bytes=10**9, vram_bytes=0, folder_bytes=1000, output_bytes=500,
)  # fmt: skip
WAVES = ("segment", "extract", "generate", "classify")
ROW = 128 * 4 * 4 * 2
"""Bytes of conv5 of a U-Net with base 8 on 64 x 64 pixels, float16."""


def study(**changes: Any) -> StudySpec:
    return build_study(BODY | changes, ARM_CONFIGS)


def plan_of(study: StudySpec, *stores: Any) -> Plan:
    """The plan without the linear models that every study has."""
    plan = plan_study(study, *stores)
    extract = tuple(trial for trial in plan.extract if trial.encoder is None)
    return replace(plan, extract=extract, classify=tuple(t for t in plan.classify if not t.linear))


def small_of(study: StudySpec, rows: int = 100, slots: int = 2, kind: Kind = KIND) -> Miniature:
    plan = plan_of(study, SLICES, PRETRAIN)
    return Miniature(
        study=study, rows=rows, n_synthetic=150, trial_s=0.5, slots=slots, vram_there=0, gpus="",
        kinds={kind_of(trial): kind for _, trials in plan.waves() for trial in trials},
        wave_s={title: 4.0 for title, _ in plan.waves()},
        warming_s={title: 0.0 for title, _ in plan.waves()}, start_s=0.0, start_cpu_s=0.0,
        nodes=(10**10,), scan_s=0.0, figures_s=0.0, finish_s=0.0,
    )  # fmt: skip


def cost_of(study: StudySpec, rows: int, small: Miniature) -> Estimate:
    return estimate(plan_of(study, SLICES, PRETRAIN), small, study, rows, True, 7.0)


@pytest.mark.parametrize(
    ("seconds", "slots", "end"),
    [([3, 3, 3], 1, 9), ([3, 3, 3], 2, 6), ([3, 3, 3], 9, 3), ([5, 1, 1, 1], 2, 5), ([], 2, 0)],
)
def test_trials_start_in_order_on_the_first_free_slot(
    seconds: list[float], slots: int, end: float
) -> None:
    assert schedule(seconds, slots) == end


def test_seconds_grow_with_rows_epochs_and_what_is_generated() -> None:
    whole = study()
    small = small_of(whole)
    plan = plan_of(whole, SLICES, PRETRAIN)
    assert trial_seconds(plan.segment[0], KIND, small, whole, 200) == 2 + 10 * (2 + 0.5) + 3
    acgan = next(t for t in plan.generate if t.arm == "acgan")
    assert trial_seconds(acgan, KIND, small, whole, 200) == 2 + 20 * (2 + 0.5) + 3 * 300 / 150
    classical = next(t for t in plan.generate if t.arm == "classical")
    assert trial_seconds(classical, KIND, small, whole, 200) == 2 + 1 * (2 + 0.5) + 3 * 300 / 150
    assert trial_seconds(plan.classify[0], KIND, small, whole, 200) == 2 + 8 * (2 + 0.5) + 3 * 2
    fixed = study(arms={"none": {}, "acgan": {"epochs": 20, "steps_per_epoch": 5}})
    (acgan, *_) = plan_of(fixed, SLICES, PRETRAIN).generate
    assert trial_seconds(acgan, KIND, small, fixed, 200) == 2 + 20 * (1 + 0.5) + 3 * 300 / 150


def test_what_a_slot_needs_once_is_counted_once_for_each_slot() -> None:
    whole = study()
    small = replace(
        small_of(whole), start_s=5.0, start_cpu_s=3.0, warming_s=dict.fromkeys(WAVES, 2.0)
    )
    classify = cost_of(whole, 100, small).stages[-1]
    each = 2 + 8 * 1.5 + 3
    assert classify.rank_s == pytest.approx(84 * (each + 0.5) + 2 * (5 + 2))
    assert classify.cpu_s == pytest.approx(84 * each / 2 + 2 * (3 + 2 / 2))
    assert classify.wall_s == pytest.approx(4 + 2 + 42 * (each + 0.5))
    one = replace(small, slots=100)
    assert cost_of(whole, 100, one).stages[0].rank_s == pytest.approx(
        4 * (2 + 10 * 1.5 + 3 + 0.5 + 5 + 2)
    )


def test_generators_are_measured_now_and_then() -> None:
    """Every fifth of 12 epochs, and the last."""
    whole = study(arms={"none": {}, "acgan": {"epochs": 12, "eval_every": 5}})
    small = small_of(whole)
    (trial, *_) = plan_of(whole, SLICES, PRETRAIN).generate
    usual = trial_seconds(trial, KIND, small, whole, 100)
    judged = trial_seconds(trial, replace(KIND, judge_s=7.0), small, whole, 100)
    assert judged == pytest.approx(usual + 3 * 7)


def test_arms_for_which_the_same_stands_in_are_rehearsed_once() -> None:
    """Rows that are brought are rehearsed as transformed ones, which may be an arm, too."""
    brought = {"kind": "folder", "path": "x"}
    own = {"none": {}, "a": brought, "classical": {}, "b": {**brought, "path": "y"}}
    whole = study(arms=own, sweep={"n_synthetic": [100], "seeds": [0, 1, 2]})
    arms = expand_arms(whole)
    small = miniature(whole, [(0, 10)] * 8)
    chosen = _few(plan_of(small, SLICES, PRETRAIN, shrunk(arms)).generate)
    kinds = {kind_of(trial): KIND for trial in chosen}
    assert [*kinds] == [("generate", "a")]
    wanted = {kind_of(trial) for trial in plan_of(whole, SLICES, PRETRAIN).generate}
    assert wanted == {("generate", arm) for arm in ("a", "b", "classical")}
    assert _stood_in_for(arms, kinds).keys() == wanted


def test_trials_are_rehearsed_until_one_comes_to_a_slot_that_is_warm() -> None:
    whole = study(arms={"none": {}, "classical": {}, "acgan": {}})
    small = miniature(whole, [(0, 10)] * 8)
    plan = plan_of(small, SLICES, PRETRAIN, shrunk(expand_arms(whole)))
    generate = [(t.title, t.seed) for t in _few(plan.generate)]
    assert generate == [
        ("classical", 0), ("acgan ngf=16", 0), ("acgan ngf=32", 0),
        ("classical", 1), ("acgan ngf=16", 1), ("acgan ngf=32", 1),
        ("classical", 2),
    ]  # fmt: skip
    classify = _few(plan.classify)
    assert len(classify) == 6
    assert all(trial.n_synthetic for trial in classify)


def test_a_trial_is_taken_apart(tmp_path: Path) -> None:
    """Four epochs, of which the first warms up and two are judged, and the rows."""
    (trial, *_) = plan_of(study(), SLICES, PRETRAIN).generate
    rows = {"plan/ram": 5.0, "plan/cpu_s": 1.0}
    lines = [
        {"seconds": seconds, "save_seconds": 0.25 * judged, "metrics": rows | fd}
        for seconds, judged, fd in (
            (3.0, 0, {}), (4.0, 1, {"val/fd": 9.0}), (1.0, 0, {}), (4.0, 1, {"val/fd": 9.0}),
            (8.0, 0, {}),
        )
    ]  # fmt: skip
    kind = measure(trial, lines, tmp_path, Artifacts(tmp_path))
    assert (kind.epochs, kind.first_s, kind.epoch_s, kind.judge_s) == (4, 2.0, 1.0, 3.0)
    assert (kind.last_s, kind.save_s, kind.cpu_share) == (8.0, 0.25, 5 / 20.5)
    other = replace(kind, epoch_s=3.0, ram_bytes=9)
    assert mean_of([kind, other], [kind, other]).epoch_s == 2.0
    assert mean_of([kind], [kind, other]).ram_bytes == 9


def test_only_the_epochs_that_are_saved_take_time_to_save() -> None:
    now_and_then = study(resources={"checkpoint_every_s": 5})
    segment = plan_of(now_and_then, SLICES, PRETRAIN).segment[0]
    taken = trial_seconds(segment, KIND, small_of(now_and_then), now_and_then, 200)
    assert taken == 2 + 10 * 2 + (1 + 10 * 2 / 5) * 0.5 + 3


def test_a_part_of_the_training_rows_takes_a_part_of_the_time() -> None:
    half = study(sweep={**BODY["sweep"], "train_rows": [60]})
    trial = plan_of(half, SLICES, PRETRAIN).classify[0]
    training_rows = 200 * (1 - 1 / 4) * (1 - 0.2)
    assert training_rows == 120
    taken = trial_seconds(trial, KIND, small_of(half), half, 200)
    assert taken == pytest.approx(2 + 8 * (2 * 60 / 120 + 0.5) + 3 * 2)


def test_an_arm_with_more_rows_takes_more_steps_only_as_published() -> None:
    published = study(protocol="as_published", split={"scheme": "published", "val_fraction": 0.2})
    trials = plan_of(published, SLICES, PRETRAIN).classify
    small = small_of(published)
    taken = {t.n_synthetic: trial_seconds(t, KIND, small, published, 100) for t in trials}
    training = 100 * 0.8 * 0.8
    assert taken[0] == pytest.approx(2 + 8 * (training / (training + 150) + 0.5) + 3)
    share = (training + 300) / (training + 150)
    assert taken[300] == pytest.approx(2 + 8 * (share + 0.5) + 3)


def test_the_whole_is_the_sum_of_its_waves() -> None:
    whole = study()
    cost = cost_of(whole, 100, small_of(whole))
    assert [(stage.stage, stage.trials) for stage in cost.stages] == [
        ("segment", 4), ("extract", 4), ("generate", 4 * 3 * 3), ("classify", 4 * 3 * 7),
    ]  # fmt: skip
    classify = cost.stages[-1]
    each = 2 + 8 * 1.5 + 3
    assert classify.rank_s == pytest.approx(84 * (each + 0.5))
    assert classify.cpu_s == pytest.approx(84 * each / 2)
    assert classify.wall_s == pytest.approx(4 + 42 * (each + 0.5))
    assert cost.wall_s == pytest.approx(7 + sum(stage.wall_s for stage in cost.stages))
    assert cost.device_hours == pytest.approx(sum(s.rank_s for s in cost.stages) / 3600)
    two = whole.model_copy(
        update={"resources": whole.resources.model_copy(update={"ranks": 2, "gpus_per_rank": 1})}
    )
    assert cost_of(two, 100, small_of(two)).device_hours == pytest.approx(2 * cost.device_hours)


def test_disk_is_counted_by_store() -> None:
    whole = study()
    plan = plan_of(whole, SLICES, PRETRAIN)
    stores = stores_bytes(whole, plan, 100, True)
    assert stores == {
        "slices": 100 * 64 * 64 * 5,
        "draw": 0,
        "extract": 4 * 100 * ROW,
        "generate": 4 * 3 * 3 * 300 * ROW,
    }
    assert slices_bytes(whole, 10, False) == 10 * 64 * 64 * 4
    cost = cost_of(whole, 200, small_of(whole))
    extract = next(stage for stage in cost.stages if stage.stage == "extract")
    assert extract.disk_bytes == 4 * (1000 + 500 * 2)
    generate = next(stage for stage in cost.stages if stage.stage == "generate")
    assert generate.disk_bytes == 36 * (1000 + 300 * ROW)


def test_what_cannot_fit_is_refused_with_what_would(tmp_path: Path) -> None:
    large = study(features={"tap": "uconv1"})
    stores = stores_bytes(large, plan_of(large, SLICES, PRETRAIN), 10**9, True)
    with pytest.raises(
        EnvironmentFault, match=r"extract takes .*: lower data\.image_size"
    ) as caught:
        check_stores(large, stores, tmp_path)
    assert caught.value.exit_code == 3
    check_stores(large, {"slices": 1}, tmp_path / "not" / "yet")

    whole = study()
    cost = cost_of(whole, 100, small_of(whole, slots=8))
    check_fit(whole, cost, [10**10], 0, tmp_path)
    with pytest.raises(
        EnvironmentFault,
        match=r"8 ranks share a node with 5\.0 GB; set resources\.max_concurrent=5",
    ):
        check_fit(whole, cost, [5 * 10**9], 0, tmp_path)
    with pytest.raises(EnvironmentFault, match=r"lower segmenter\.batch_size or resources\.ranks"):
        check_fit(whole, cost, [10**8], 0, tmp_path)


def test_a_smaller_block_is_proposed_where_it_helps(tmp_path: Path) -> None:
    import shutil

    large = study(features={"tap": "uconv1"})
    plan = plan_of(large, SLICES, PRETRAIN)
    one = (
        sum(stores_bytes(large, plan, 1, True).values())
        - stores_bytes(large, plan, 0, True)["generate"]
    )
    rows = 2 * shutil.disk_usage(tmp_path).free // one
    stores = {**stores_bytes(large, plan, rows, True), "generate": 0}
    with pytest.raises(EnvironmentFault, match=r"extract takes .*: features\.tap=conv\d takes"):
        check_stores(large, stores, tmp_path)


def test_the_miniature_is_the_study_with_less_of_it() -> None:
    whole = study()
    small = miniature(whole, [(0, 10)] * 8)
    assert small.segmenter is not None
    assert (small.segmenter.base, small.segmenter.epochs) == (8, 3)
    assert (small.classifier.epochs, small.sweep.seeds) == (6, (0, 1, 2))
    arms = shrunk(expand_arms(whole))
    assert [getattr(arm.spec, "epochs", None) for arm in arms] == [None, None, 6, 6]
    kinds = {kind_of(t) for _, trials in plan_of(whole, SLICES, PRETRAIN).waves() for t in trials}
    assert kinds == {
        kind_of(t) for _, trials in plan_of(small, SLICES, PRETRAIN, arms).waves() for t in trials
    }


@pytest.mark.parametrize(
    ("split", "protocol"),
    [
        ({"folds": 4}, "honest"),
        ({"folds": 2, "test_fraction": 0.25}, "honest"),
        ({"scheme": "published", "unit": "image", "val_fraction": 0.2}, "as_published"),
    ],
)
def test_stand_ins_are_split_like_the_cohort(
    tmp_path: Path, split: dict[str, Any], protocol: str
) -> None:
    whole = study(split=split, protocol=protocol)
    patients = [(number % 3 == 0, 20) for number in range(60)]
    shown = fewer([(int(label), n) for label, n in patients], 100, whole)
    assert 60 <= rows_of(shown) <= 200
    assert fewer(shown, 1000, whole) == shown
    write_stand_in(whole, shown, True, tmp_path / "slices-x")
    store = Store.open(tmp_path / "slices-x")
    assert len(store) == rows_of(shown)
    assert store.splits is not None
    assert len(store.splits.folds) == whole.split.folds
    for fold in range(whole.split.folds):
        assert set(store.split("train", fold).labels.tolist()) == {0, 1}
        assert set(store.split("eval", fold).labels.tolist()) == {0, 1}
    assert set(store.manifest["extra"]["moments"]) == set(store.units.tolist())


@pytest.mark.parametrize(
    ("search", "generated"),
    [("grid", 3 * 4 * 2), ("random", 3 * 4 * (1 + 5)), ("optuna", 5 + 3 * 4 * (1 + 2) - 2)],
)
def test_what_a_search_tries_is_counted(search: str, generated: int) -> None:
    """Five points: Optuna tries each on one fold and seed, and keeps two for all of them."""
    axes = {"n_synthetic": [10], "seeds": [0, 1, 2], "search": search, "samples": 5, "keep": 2}
    space = {"acgan.lr_g": {"loguniform": [1e-4, 1e-2]}}
    whole = study(arms={"none": {}, "classical": {}, "acgan": {}}, sweep={**axes, "space": space})
    _, plan = whole_plan(whole)
    assert len(plan.generate) == generated


def test_a_plan_says_what_its_budget_allows() -> None:
    def forecast_with(hours: float | None) -> Forecast:
        spec = study(resources={"checkpoint_every_s": 0, "budget_hours": hours})
        stage = StageCost("classify", 1, 36_000.0, 36_000.0, 36_000.0, 1, 0, 1)
        cost = Estimate(1, 1, (stage,), 1, 1, 0.0, 0.0)
        assert cost.device_hours == 10
        cohort = Survey({"LGG": 1}, ((0, 1),), {"LGG": 1}, 0, 1, None, 0, ())
        return Forecast(spec, cohort, cost, ())

    assert forecast_with(None).budget == ""
    assert forecast_with(12).budget == "within its budget of 12 device-hours"
    assert "it would stop after 25% of them with exit code 75" in forecast_with(2.5).budget
    assert "more than its budget of 2.5 device-hours" in render(forecast_with(2.5))
