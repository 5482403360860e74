"""Whom to add, from the plan to the leaderboard: one generator, other rows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medaug.experiment.rows import TooFewRows, added_rows, arm_context, training_rows
from medaug.experiment.solve import _Desk
from medaug.plan.trials import Plan, plan_study
from medaug.results.leaderboard import leaderboard_of
from medaug.results.rows import Leaderboard
from medaug.spec import ClassifyTrial, StudySpec, signature
from medaug.spec.per_class import per_class_title
from medaug.storage.artifacts import Artifacts
from medaug.store import Store
from medaug.train.world import World
from tests.audit.small_runs import SLICES, run_trials, study, write_slices

CPU = World.single()
WAYS: list[Any] = ["uniform", "rare_only", "balance", {"HGG": 0.75, "LGG": 0.25}]
EVERY = 4
"""One patient in so many is of the rare class, HGG."""


def imbalanced(storage: Path, **changes: Any) -> StudySpec:
    body: dict[str, Any] = {
        "split": {"folds": 2},
        "arms": {"none": {}, "duplicate": {}, "classical": {}, "smote": {"components": 4}},
        "classifier": {"kind": "probe"},
        "sweep": {"n_synthetic": [16, 24], "seeds": [0, 1, 2], "per_class": WAYS},
    }
    return study(storage, **(body | changes))


def ways(plan: Plan, arm: str) -> list[str]:
    return sorted({per_class_title(t.per_class) for t in plan.classify if t.arm == arm})


def test_one_generator_serves_them_all_and_the_usual_rows_keep_their_names(tmp_path: Path) -> None:
    spec = imbalanced(tmp_path)
    whole = plan_study(spec, SLICES)
    plain = plan_study(
        spec.model_copy(
            update={"sweep": spec.sweep.model_copy(update={"per_class": ("uniform",)})}
        ),
        SLICES,
    )
    assert {t.generator_key for t in whole.generate} == {t.generator_key for t in plain.generate}
    assert {t.n for t in plain.generate} == {24}
    assert {t.n for t in whole.generate} == {48}, "all 24 may be of either class"
    usual = [t for t in whole.classify if t.per_class == "uniform"]
    assert {t.key for t in usual} == {t.key for t in plain.classify}
    assert {t.configuration for t in usual} == {t.configuration for t in plain.classify}
    for trial in usual:
        left_out = {"ranks", "recorded_key", "per_class", *trial.FOR_PEOPLE}
        left_out |= {"rows"} if trial.generator else set()
        left_out |= {"drawn_by"} if trial.train_rows is None else set()
        assert trial.key == signature(trial.model_dump(mode="json", exclude=left_out))
    assert len({t.key for t in whole.classify}) == len(whole.classify)


def test_who_has_the_axis(tmp_path: Path) -> None:
    arms = {
        "smote": {},
        "alone": {"kind": "smote", "real_rows": False},
        "again": {"kind": "duplicate", "classes": "prior"},
    }
    sweep = {"n_synthetic": [8], "train_rows": [12], "per_class": WAYS}
    plan = plan_study(imbalanced(tmp_path, arms=arms, controls="auto", sweep=sweep), SLICES)
    all_of_them = sorted(map(per_class_title, WAYS))
    assert ways(plan, "smote") == ways(plan, "classical") == all_of_them
    for arm in ("none", "class_weights", "logit_adjust", "more_real", "alone", "again"):
        assert ways(plan, arm) == ["uniform"], arm
    own = {k: v for k, v in arms.items() if k != "again"}
    plan = plan_study(imbalanced(tmp_path, arms=own, controls="auto", sweep=sweep), SLICES)
    assert ways(plan, "duplicate") == all_of_them
    titles = {t.title for t in plan.classify if t.arm == "smote"}
    assert {"smote +8 of 12", "smote +8 rare_only of 12", "smote +8 HGG=0.75,LGG=0.25 of 12"} < (
        titles
    )


def test_a_search_looks_at_the_first_way(tmp_path: Path) -> None:
    sweep = {"n_synthetic": [8, 16], "per_class": ["rare_only", "uniform"]}
    plan = plan_study(imbalanced(tmp_path, sweep=sweep), SLICES)
    found = plan.only(0, 0, ["smote", "duplicate"]).classify
    assert sorted(t.title for t in found) == ["duplicate +16 rare_only", "smote +16 rare_only"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudySpec, Path]:
    arms = {"smote": {"components": 4}}
    spec = imbalanced(tmp_path_factory.mktemp("ways"), arms=arms, controls="auto")
    write_slices(spec, every=EVERY)
    return spec, run_trials(spec, SLICES)


def given(spec: StudySpec, trial: ClassifyTrial) -> tuple[Store, Store]:
    """(the trial's real rows, those that it adds)."""
    artifacts = Artifacts(spec.storage)
    features = artifacts.open_store(trial.features)
    context = arm_context(trial, features, CPU, artifacts)
    added = added_rows(trial, features, context, artifacts)
    assert added is not None
    return training_rows(trial, features), added


def counts(store: Store) -> list[int]:
    return np.bincount(store.labels, minlength=2).tolist()


@pytest.mark.parametrize("arm", ["smote", "duplicate", "classical"])
def test_rows_are_shared_out_as_asked(scored: tuple[StudySpec, Path], arm: str) -> None:
    spec, _ = scored
    plan = plan_study(spec, SLICES)
    desk = _Desk(Artifacts(spec.storage), CPU)
    seen: dict[tuple[int, int, str], np.ndarray] = {}
    for trial in (t for t in plan.classify if t.arm == arm and not t.linear):
        real, added = given(spec, trial)
        n, have = trial.n_synthetic, counts(real)
        assert have[1] * 2 < have[0], "HGG is rare"
        level = [max(0, have[0] - have[1]), n]
        wanted = {
            "uniform": [n // 2, n // 2],
            "rare_only": [0, n],
            "balance": [0, n] if n <= level[0] else [(n - level[0]) // 2, (n + level[0]) // 2],
            "HGG=0.75,LGG=0.25": [n // 4, 3 * n // 4],
        }
        way = per_class_title(trial.per_class)
        assert counts(added) == wanted[way], way
        x = added.read(np.arange(n)).x.flatten(1).numpy()
        together = desk._added(trial, *desk._rows_for(trial))
        assert together is not None
        assert np.allclose(together.x, x, atol=1e-5), "many at once are given the same"
        seen[trial.fold, trial.seed, f"{way} {n}"] = x
    for (fold, seed, what), few in seen.items():
        if what.endswith(" 16"):
            more = seen[fold, seed, what.replace(" 16", " 24")]
            assert {row.tobytes() for row in few} <= {row.tobytes() for row in more}, what


def test_too_few_rows_of_a_class_are_a_result_of_the_arm(scored: tuple[StudySpec, Path]) -> None:
    spec, _ = scored
    trial = next(
        t
        for t in plan_study(spec, SLICES).classify
        if t.arm == "smote" and t.per_class == "rare_only"
    )
    with pytest.raises(TooFewRows, match="60 rows of class HGG wanted, but only 24 were made"):
        given(spec, trial.model_copy(update={"n_synthetic": 60}))


def board_without(scored: tuple[StudySpec, Path], kind: str) -> Leaderboard:
    """The board when the controls of a kind with all rows in the rare class are not there."""
    import shutil

    _, folder = scored
    copy = folder.parent / f"without-{kind}"
    if not copy.exists():
        shutil.copytree(folder, copy)
        for trial in plan_study(scored[0], SLICES).classify:
            if trial.kind == kind and trial.per_class == "rare_only":
                shutil.rmtree(copy / "trials" / trial.key)
    return leaderboard_of(copy)


def test_rare_only_stands_beside_what_balances_for_nothing(scored: tuple[StudySpec, Path]) -> None:
    board = leaderboard_of(scored[1])
    rows = {row.title: row for row in board.rows}
    reference = board.reference
    assert reference is not None
    free = {"none", "duplicate", "classical", "class_weights", "logit_adjust"}
    best = max((row for row in board.rows if not row.synthetic), key=lambda row: row.mean)
    for way in ("", " rare_only", " balance", " HGG=0.75,LGG=0.25"):
        row = rows[f"smote +16{way}"]
        assert row.rank is not None, row.flags
        assert rows[row.reference].mean == best.mean, "the best of all that needs no such row"
        assert not [flag for flag in row.flags if flag.startswith("not compared with")]
        assert free <= {other.kind for other in board.rows if other.rank is not None}
        assert rows[f"duplicate +16{way}"].per_class == row.per_class
    assert board.to_json()["rows"][0]["per_class"] in map(per_class_title, WAYS)


@pytest.mark.parametrize("kind", ["duplicate", "classical"])
def test_a_row_needs_the_controls_of_its_own_way(scored: tuple[StudySpec, Path], kind: str) -> None:
    rows = {row.title: row for row in board_without(scored, kind).rows}
    (flag,) = [flag for flag in rows["smote +16 rare_only"].flags if "not rankable" in flag]
    assert flag == f"not rankable: no complete {kind} arm with +16 rare_only"
    assert rows["smote +16"].rank is not None
    assert rows["smote +16 balance"].rank is not None
