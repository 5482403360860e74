"""A longer ratio axis: rows are added to, generators are not trained again, classifiers stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medaug.experiment import generator_name, output_name, run_together, run_trial
from medaug.plan.trials import Plan, plan_study
from medaug.results.leaderboard import leaderboard_of
from medaug.spec import ClassifyTrial, GenerateTrial
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import GenerateResult
from medaug.sweep.trial.replicates import folded
from medaug.train.world import World
from tests.audit.small_runs import SLICES, run, study
from tests.experiment.test_together import ACGAN, ALONE, storage, trial

__all__ = ["storage"]

ARMS: list[dict[str, Any]] = [
    ACGAN,
    {"kind": "flow", "components": 4, "epochs": 2, "steps_per_epoch": 3, "hidden": 8},
    {"kind": "gaussian", "components": 4},
    {"kind": "smote", "components": 4},
]


def changed(config: Any, **keys: Any) -> Any:
    """The same trial but for ``keys``; a copy would have the name of the first."""
    return type(config).model_validate(config.model_dump() | keys)


def result_of(config: GenerateTrial, storage: Path) -> tuple[int, GenerateResult]:
    """Epochs that it took, and what came of it."""
    *epochs, last = run_trial(config, ALONE, storage)
    assert isinstance(last.result, GenerateResult)
    return len(epochs), last.result


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm["kind"])
def test_more_rows_of_a_generator_that_is_there(storage: Path, arm: dict[str, Any]) -> None:
    few, more = trial(arm), changed(trial(arm), n=33)
    assert generator_name(few) == generator_name(more)
    assert output_name(few) != output_name(more)
    trained, first = result_of(few, storage)
    again, second = result_of(more, storage)
    assert again == 0, "it is not trained again"
    assert trained == arm.get("epochs", 0)
    assert (first.generator, first.history) == (second.generator, second.history)
    assert (first.n, second.n) == (20, 33)
    artifacts = Artifacts(storage)
    old, new = (artifacts.open_store(each.output) for each in (first, second))
    assert np.array_equal(new.read(slice(0, 20)).x, old.read().x), "the first rows are the same"
    assert np.array_equal(new.labels[:20], old.labels)
    assert new.provenance.fitted_on == old.provenance.fitted_on
    told = {key: value for key, value in second.scores.items() if key == "pca_explained"}
    assert told.items() <= first.scores.items()


def test_another_seed_or_key_is_another_generator() -> None:
    first = trial(ACGAN)
    for other in (trial(ACGAN, seed=1), trial(ACGAN, fold=1), trial(ACGAN | {"epochs": 3})):
        assert generator_name(other) != generator_name(first)


def test_replicates_together_train_only_those_that_are_new(storage: Path) -> None:
    known, new = trial(ACGAN), trial(ACGAN, seed=1)
    result_of(known, storage)
    longer = [changed(t, n=33) for t in (known, new)]
    runs = run_together(longer, ALONE, storage, [None, None])
    steps = [len(list(each)) for each in runs]
    assert steps == [1, 1 + ACGAN["epochs"]]

    (storage / "runs").mkdir()
    third = changed(trial(ACGAN, seed=2), n=40)
    wanted = [changed(longer[0], n=40), third]
    assert folded(wanted, storage / "exp") == [], "one alone has no peers, one is trained"


def plan_of(storage: Path, sizes: list[int]) -> Plan:
    arms = {"none": {}, "duplicate": {}, "classical": {}, "gaussian": {"components": 4}}
    return plan_study(
        study(storage, arms=arms, sweep={"n_synthetic": sizes, "seeds": [0, 1, 2]}), SLICES
    )


def test_classifiers_of_the_shorter_axis_keep_their_names(tmp_path: Path) -> None:
    short, long = plan_of(tmp_path, [24]), plan_of(tmp_path, [24, 48])
    old, new = ({t.key: t for t in plan.classify} for plan in (short, long))
    assert old.keys() < new.keys()
    assert {new[key].n_synthetic for key in new.keys() - old.keys()} == {48}
    rows = {t.rows for t in long.classify if t.rows}
    assert rows == {output_name(t) for t in long.generate}
    other = next(t for t in long.classify if t.generator)
    assert changed(other, generator="generator-else").key != other.key


def test_a_lengthened_study_costs_what_is_new(tmp_path: Path) -> None:
    """The board of [24] lengthened to [24, 48] is that of [24, 48] run at once."""
    arms = {"none": {}, "duplicate": {}, "classical": {}, "gaussian": {"components": 4}}
    keys: dict[str, Any] = {"arms": arms, "classifier": {"kind": "probe"}}

    def spec(storage: Path, sizes: list[int]) -> Any:
        return study(storage, sweep={"n_synthetic": sizes, "seeds": [0, 1, 2]}, **keys)

    run(spec(tmp_path / "grown", [24]))
    whole = spec(tmp_path / "grown", [24, 48])
    folder = tmp_path / "grown" / "small"
    made = 0
    for _, trials in plan_study(whole, SLICES).waves():
        for config in trials:
            place = folder / "trials" / config.key
            if getattr(config, "linear", False) or getattr(config, "encoder", None):
                continue
            if (place / "result.json").exists():
                continue
            *epochs, last = run_trial(config, World.single(), whole.storage)
            assert not epochs or isinstance(config, ClassifyTrial)
            place.mkdir(parents=True)
            (place / "config.json").write_text(config.model_dump_json())
            (place / "result.json").write_text(last.result.model_dump_json())  # type: ignore[union-attr]
            made += isinstance(config, ClassifyTrial)
    (folder / "study.json").write_text(json.dumps(whole.canonical()))
    assert made == 3 * 3 * 2, "three arms, three seeds and two folds, with 48 rows"
    grown = leaderboard_of(folder)
    at_once = leaderboard_of(run(spec(tmp_path / "whole", [24, 48])))
    assert [(r.title, r.mean, r.low, r.gain, r.flags) for r in grown.rows] == [
        (r.title, r.mean, r.low, r.gain, r.flags) for r in at_once.rows
    ]
