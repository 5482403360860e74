"""What a study could see, before anything is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medaug.errors import UserError
from medaug.metrics.power import (
    assumed_components,
    draws_that_pay,
    smallest_visible_gain,
    with_replicates,
)
from medaug.plan.forecast.pilot import pilot_components
from medaug.plan.power import Power, power_of
from medaug.plan.trials import plan_study
from medaug.results.leaderboard import gains_of
from medaug.spec import StudySpec
from tests.tracking.made_runs import SLICES, made_scores, study


def power(spec: StudySpec, each: int) -> Power:
    found = power_of(spec, [(k, 8) for k in (0, 1) for _ in range(each)], plan_study(spec, SLICES))
    assert found is not None
    return found


def test_more_patients_see_smaller_gains_and_more_rows_hide_them(tmp_path: Path) -> None:
    small, large = power(study(tmp_path / "a"), 30), power(study(tmp_path / "b"), 500)
    assert 0.08 < small.gain < 0.3
    assert large.gain < 0.6 * small.gain
    assert (small.patients, small.seeds, small.draws, small.rows) == ({"LGG": 30, "HGG": 30}, 3, 1, 4)  # fmt: skip
    many = study(tmp_path / "c", sweep={"n_synthetic": list(range(100, 2000, 100))})
    assert power(many, 30).gain > small.gain
    assert "60 patients, 3 seeds, 4 rows with synthetic data" in small.text
    assert json.loads(json.dumps(small.to_json()))["smallest_visible_gain"] == small.gain


def test_sealed_patients_do_not_help(tmp_path: Path) -> None:
    sealed = study(tmp_path / "sealed", split={"folds": 3, "test_fraction": 0.2})
    assert power(sealed, 30).patients == {"LGG": 24, "HGG": 24}
    assert power(sealed, 30).gain > power(study(tmp_path / "open"), 30).gain


def test_without_a_comparison_there_is_no_power(tmp_path: Path) -> None:
    controls = study(tmp_path, arms={"none": {}, "duplicate": {}, "classical": {}})
    plan = plan_study(controls, SLICES)
    assert power_of(controls, [(0, 8), (0, 8), (1, 8), (1, 8)], plan) is None
    spec = study(tmp_path / "few")
    assert power_of(spec, [(0, 8), (0, 8), (1, 8)], plan_study(spec, SLICES)) is None


@pytest.mark.parametrize("each", [30, 300])
def test_the_assumption_is_of_the_right_size(tmp_path: Path, each: int) -> None:
    """Between a tenth and a third for sixty patients; .02 to .08 for six hundred."""
    low, high = {30: (0.1, 0.33), 300: (0.02, 0.09)}[each]
    assert low < power(study(tmp_path), each).gain < high


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = study(tmp_path_factory.mktemp("pilot"))
    return made_scores(spec)


def test_a_pilot_knows_better_than_an_assumption(pilot: Path, tmp_path: Path) -> None:
    gains = gains_of(pilot)
    components = pilot_components(pilot)
    assert components in [gain.components for gain in gains]
    below = sum(gain.error**2 < components.variance() for gain in gains)
    assert below == (len(gains) - 1) // 2, "the middle one"

    spec = study(tmp_path)
    plan, patients = plan_study(spec, SLICES), [(k, 8) for k in (0, 1) for _ in range(200)]
    found = power_of(spec, patients, plan, ("before", components))
    assert found is not None
    assert "by how much the gains of before vary" in found.text
    noisier = replace(components, patient=components.patient + 0.002)
    worse = power_of(spec, patients, plan, ("before", noisier))
    assert worse is not None
    assert worse.gain > found.gain


def test_one_seed_does_not_tell_how_seeds_differ() -> None:
    one = assumed_components([30, 30])
    three = with_replicates(one, n_seeds=3, n_draws=1)
    assert three.seed == assumed_components([30, 30], n_seeds=3).seed > 0
    assert three.draw == 0
    assert with_replicates(three, n_seeds=5, n_draws=1) == three


def test_a_run_that_compares_nothing_is_no_pilot(tmp_path: Path) -> None:
    folder = made_scores(study(tmp_path, arms={"none": {}, "duplicate": {}, "classical": {}}))
    with pytest.raises(UserError, match="compares no row with synthetic data"):
        pilot_components(folder)


def test_draws_are_taken_as_long_as_they_pay() -> None:
    few, many = (
        draws_that_pay(patients, n_seeds=3, rows=6, controls=5)
        for patients in ([18, 51], [969, 1308])
    )
    assert few[0] <= many[0]  # where patients are few, it is they who limit what is seen
    assert few[1] > many[1]
    promised = smallest_visible_gain(
        assumed_components([18, 51], n_seeds=3, n_draws=few[0]), rows=6, controls=5
    )
    assert few[1] == promised
