"""Device-hours: counted by hand, over drivers, and the end of a sweep that has spent them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_trials import config, count

from medaug.errors import Interrupted, UserError
from medaug.spec import ResourceSpec, build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.json_files import read_json
from medaug.sweep import Outcome, Sweep
from medaug.sweep.budget import MARK, SPENT, Budget
from medaug.sweep.cluster.start import Cluster
from medaug.sweep.trial.bundle import Bundle


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def ended(key: str) -> Outcome:
    return Outcome(key, "done", 1)


def test_each_rank_counts_from_start_to_end(tmp_path: Path) -> None:
    clock = Clock()
    budget = Budget(tmp_path, 2.0, clock)
    one, two = config("one"), config("two", ranks=3)
    clock.now_s += 500  # nothing is held
    budget.on_trial_start(one)
    clock.now_s += 600
    budget.on_trial_start(two)
    clock.now_s += 1200
    budget.on_trial_start(two)  # again after a restart: still three ranks
    budget.on_trial_end(ended(one.key))
    clock.now_s += 300
    assert budget.spent_hours == pytest.approx((600 + 4 * 1200 + 3 * 300) / 3600)
    assert not budget.is_set()
    assert budget.text == "1.75 of 2 device-hours are spent"
    clock.now_s += 301
    assert budget.is_set()
    budget.on_trial_end(ended(two.key))
    clock.now_s += 9999
    assert budget.spent_hours == pytest.approx((600 + 4 * 1200 + 3 * 601) / 3600)


def test_a_part_of_a_gpu_is_a_part_of_a_device(tmp_path: Path) -> None:
    clock = Clock()
    budget = Budget(tmp_path, 2.0, clock)
    bundle = Bundle((config("one", ranks=2), config("two")))
    budget.use(0.25)
    budget.on_bundle_start(bundle)
    clock.now_s += 3600
    budget.on_trial_end(ended(bundle.trials[1].key))  # of the bundle: that goes on
    clock.now_s += 3600
    budget.on_bundle_end(bundle)
    assert budget.spent_hours == pytest.approx(2 * 2 * 0.25)
    budget.on_trial_start(bundle.trials[0])
    budget.on_wave_end()  # whatever Tune has let go without a word
    clock.now_s += 3600
    assert budget.spent_hours == pytest.approx(1.0)


def test_a_later_driver_goes_on_from_there_also_without_a_budget_before(tmp_path: Path) -> None:
    clock = Clock()
    first = Budget(tmp_path, None, clock)
    first.open()
    first.on_trial_start(config("one"))
    clock.now_s += 5400
    assert not first.is_set()
    assert first.text == ""
    first.save_when_due()
    assert read_json(tmp_path / SPENT) == {"device_seconds": 5400.0}
    second = Budget(tmp_path, 1.0, clock)
    second.open()
    assert second.is_set()
    second.mark()
    assert (tmp_path / MARK).read_text() == "1.50 of 1 device-hours are spent\n"
    third = Budget(tmp_path, 2.0, clock)
    third.open()
    assert not third.is_set()
    assert not (tmp_path / MARK).exists()


def test_a_budget_of_nothing_is_a_mistake() -> None:
    body: dict[str, Any] = {"name": "s", "arms": {"smote": {}}, "resources": {"budget_hours": 0}}
    with pytest.raises(UserError, match=r"resources\.budget_hours: should be greater than 0"):
        build_study(body, ARM_CONFIGS)


@pytest.mark.ray
def test_a_spent_budget_ends_a_sweep_and_more_goes_on(ray_cluster: Cluster, tmp_path: Path) -> None:
    trials = [config(f"t{i}", epochs=4, seconds=0.5) for i in range(4)]

    def run(hours: float | None) -> list[Outcome]:
        resources = ResourceSpec(checkpoint_every_s=0, budget_hours=hours, max_concurrent=1)
        with Sweep(tmp_path / "experiment", tmp_path, resources) as sweep:
            return sweep.run(trials, work=count)

    with pytest.raises(Interrupted, match=r"of 0\.0005 device-hours are spent") as spent:
        run(0.0005)  # 1.8 seconds
    assert spent.value.exit_code == 75
    assert "medaug resume experiment --set resources.budget_hours=" in str(spent.value)
    assert (tmp_path / "experiment" / MARK).exists()
    held = read_json(tmp_path / "experiment" / SPENT)
    assert held is not None
    assert held["device_seconds"] >= 1.8
    with pytest.raises(Interrupted, match="are spent"):
        run(0.0005)  # at once
    assert [outcome.status for outcome in run(None)] == ["done"] * 4
    assert not (tmp_path / "experiment" / MARK).exists()
    again = read_json(tmp_path / "experiment" / SPENT)
    assert again is not None
    assert again["device_seconds"] > held["device_seconds"]
    assert {o.status for o in run(0.0005)} == {"reused"}, "what is finished needs no budget"
