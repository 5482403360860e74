"""Which arms a study's search settles on, without a cluster: trials run here, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medaug.errors import TrialsFailed
from medaug.experiment import run_trial
from medaug.spec import TrialConfig, build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.study import choose_arms, make_slices
from medaug.sweep.display import Silent
from medaug.sweep.events import Outcome
from medaug.train.world import World

STUDY: dict[str, Any] = {
    "name": "search",
    "data": {"image_size": 16, "phantom": {"patients": 16, "d_prime": 2.6, "slices": [2, 3]}},
    "split": {"folds": 2},
    "segmenter": None,
    "features": None,
    "arms": {"none": {}, "noise": {}, "duplicate": {}},
    "classifier": {"kind": "linear", "epochs": 2, "early_stop": None},
    "sweep": {
        "n_synthetic": [4, 8],
        "seeds": [0, 1, 2],
        "space": {"noise.sigma": {"loguniform": [0.001, 1.0]}},
        "samples": 6,
        "keep": 2,
    },
}


class Here:
    """A sweep without a cluster, which remembers its waves."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.waves: list[list[str]] = []
        self.losses: dict[float, float] = {}
        """Validation loss of the best epoch, by the drawn value."""

    def run(
        self, trials: Sequence[TrialConfig], *, stopping: object = None, **how: object
    ) -> list[Outcome]:
        self.waves.append([trial.title for trial in trials])
        outcomes = []
        for trial in trials:
            *_, last = run_trial(trial, World.single(), self.storage)
            outcomes.append(Outcome(trial.key, "done", last.epoch, last.result))
            if trial.stage == "classify":
                assert last.result is not None
                self.losses[trial.point["sigma"]] = last.result.best_loss
        return outcomes


@pytest.mark.parametrize("kind", ["optuna", "random"])
def test_a_search_keeps_the_best_points_for_all_seeds_and_folds(tmp_path: Path, kind: str) -> None:
    raw = {**STUDY, "storage": str(tmp_path), "sweep": {**STUDY["sweep"], "search": kind}}
    study = build_study(raw, ARM_CONFIGS)
    sweep = Here(tmp_path)
    slices, _ = make_slices(study, Silent())
    arms = choose_arms(study, slices, None, sweep, Silent())  # type: ignore[arg-type]
    drawn = [arm.point["sigma"] for arm in arms if arm.name == "noise"]
    assert [arm.name for arm in arms if arm.name != "noise"] == ["none", "duplicate"]
    if kind == "random":
        assert len(set(drawn)) == 6
        assert sweep.waves == []
        return
    # Batches of 4 and 2 points; of each, a wave to make rows and one to classify.
    assert [len(wave) for wave in sweep.waves] == [4, 4, 2, 2]
    assert all(t.startswith("noise") for wave in sweep.waves for t in wave)
    assert sorted(drawn) == sorted(sorted(sweep.losses, key=sweep.losses.__getitem__)[:2])


def test_a_search_in_which_nothing_succeeds_says_so(tmp_path: Path) -> None:
    raw = {**STUDY, "storage": str(tmp_path), "sweep": {**STUDY["sweep"], "search": "optuna"}}
    study = build_study(raw, ARM_CONFIGS)

    class Failing(Here):
        def run(self, trials: Sequence[TrialConfig], **how: object) -> list[Outcome]:
            return [Outcome(trial.key, "failed", 0, error="no") for trial in trials]

    slices, _ = make_slices(study, Silent())
    with pytest.raises(TrialsFailed, match=r"sweep\.space: none of 6 points that were tried came"):
        choose_arms(study, slices, None, Failing(tmp_path), Silent())  # type: ignore[arg-type]
