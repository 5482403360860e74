"""Studies B, C and D on their real data, every stage in both protocols, at toy size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medaug.results.rows import Leaderboard, Row
from medaug.spec import load_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.store import Store
from tests.integration.in_process import Ended, run_here

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"

TOY_GAN = {"epochs": 1, "width": 8}
HONEST = {"split.folds": 2, "sweep.seeds": [0], "controls": "none", "classifiers": {}}
B = {
    "classifier.epochs": 1,
    "sweep.n_synthetic": [32],
    **{f"arms.{arm}.{key}": v for arm in ("dcgan", "synthetic_only") for key, v in TOY_GAN.items()},
}
C = {
    "data.max_patients": 12,
    "data.image_size": 16,
    "classifier.epochs": 1,
    "sweep.n_synthetic": [90],
}
D = {
    "data.max_patients": 40,
    "data.image_size": 32,
    "classifier.epochs": 2,
    "sweep.n_synthetic": [24],
    **{f"arms.dcgan.{key}": v for key, v in TOY_GAN.items()},
}

Run = Callable[..., tuple[Leaderboard, list[Ended], Store]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run some arms of a job in this process; its leaderboard, its results and its slices."""

    def go(job: str, folder: str, settings: dict[str, Any], arms: set[str]) -> Any:
        if not (DATA / folder).is_dir():
            pytest.skip(f"no {DATA / folder}: the real data are not here")
        places = {"data.root": str(DATA / folder), "storage": str(tmp_path)}
        options = [f"{key}={json.dumps(value)}" for key, value in (settings | places).items()]
        study = load_study(ROOT / "jobs" / f"{job}.yaml", ARM_CONFIGS, options)
        kept = {name: arm for name, arm in study.arms.items() if name in arms}
        return run_here(study.model_copy(update={"arms": kept}))

    return go


def row_of(board: Leaderboard, title: str) -> Row:
    return next(row for row in board.rows if row.title == title)


def said(row: Row) -> str:
    return " / ".join(row.flags)


def generated(results: list[Ended], arm: str) -> list[Ended]:
    return [r for r in results if r.config.stage == "generate" and r.config.arm == arm]


def test_head_ct_is_scored_on_groups_that_nothing_has_seen(run: Run) -> None:
    arms = {"none", "dcgan", "synthetic_only"}
    board, results, _ = run("head_ct", "head_ct_hemorrhage", B | HONEST, arms)
    assert {row.title for row in board.rows} == {"none", "dcgan +32", "synthetic_only +32"}
    assert all(row.replicates == row.expected == 2 for row in board.rows)
    # Both arms share their generators, and only one of them the real rows.
    assert not generated(results, "synthetic_only")
    makers, scored = (
        generated(results, "dcgan"),
        [r for r in results if r.config.stage == "classify"],
    )
    assert len(makers) == 2
    for result in scored:
        assert (result.result.train_rows == 0) == (result.config.arm == "synthetic_only")
    for maker in makers:
        assert maker.result.extractor == "random-modulus-512"
        assert {"fd", "fd_null", "rows_train", "rows_fake"} <= maker.result.scores.keys()
        assert maker.result.scores["fd"] > maker.result.scores["fd_null"]  # one epoch is noise
    for result in scored:
        assert result.result.lineage == "proven"
        seen = {way: n.patients for way, n in result.result.exposure}
        assert seen.pop("scored") > 0
        assert set(seen.values()) == {0}
    assert len({result.result.steps for result in scored}) <= 2  # one number for each fold


def test_head_ct_as_published_has_groups_on_both_sides(run: Run) -> None:
    settings = B | {"classifier.kind": "linear"}
    board, results, slices = run(
        "head_ct_as_published", "head_ct_hemorrhage", settings, {"none", "dcgan"}
    )
    sizes = {role: len(slices.split(role, 0)) for role in ("train", "val", "eval")}
    assert sum(sizes.values()) == len(slices)
    assert sizes["eval"] / len(slices) == pytest.approx(0.11, abs=0.01)
    assert sizes["val"] / len(slices) == pytest.approx(34 / 200, abs=0.01)
    train, held_out = (set(slices.split(role, 0).patients) for role in ("train", "eval"))
    both = len(train & held_out)
    assert both > 0
    scored = {r.config.arm: r for r in results if r.config.stage == "classify"}
    for arm, result in scored.items():
        assert result.result.lineage == "violated as published"
        exposure = result.result.exposure
        assert exposure.scored.model_dump() == {"patients": len(held_out), "images": sizes["eval"]}
        assert exposure.trained_on.model_dump() == {"patients": both, "images": 0}
        by_generator = {"patients": both if arm == "dcgan" else 0, "images": 0}
        assert exposure.seen_by_generator.model_dump() == by_generator
    assert scored["dcgan"].result.steps > scored["none"].result.steps
    text = f"protocol as_published: of {len(held_out)} test patients"
    assert all(text in said(row) and row.rank is None for row in board.rows)
    assert "not the same number of optimiser steps" in said(row_of(board, "dcgan +32"))


def test_brain_ct_gives_all_arms_the_same_steps(run: Run) -> None:
    board, results, _ = run("brain_ct", "ct_ich", C | HONEST, {"none", "times4"})
    assert {row.title for row in board.rows} == {"none", "times4 +90"}
    assert {r.result.lineage for r in results if r.config.stage == "classify"} == {"proven"}
    assert all("optimiser steps" not in said(row) for row in board.rows)
    assert {r.result.extractor for r in generated(results, "times4")} == {None}  # no synthetic rows


def test_brain_ct_as_published_steps_more_and_chooses_on_its_test_images(run: Run) -> None:
    settings = C | {"sweep.train_rows": [30]}
    board, results, slices = run("brain_ct_as_published", "ct_ich", settings, {"none", "times4"})
    assert len(slices.split("val", 0)) == 0
    scored = {r.config.arm: r for r in results if r.config.stage == "classify"}
    assert {result.result.train_rows for result in scored.values()} == {30}
    # 120 rows in batches of 32 against 30
    assert scored["times4"].result.steps == 3 * scored["none"].result.steps
    for result in scored.values():
        assert result.result.exposure.chose == result.result.exposure.scored
        assert result.result.predictions.probability.shape[1] == 2  # the third neuron is left out
    assert all("chose epoch and threshold" in said(row) for row in board.rows)


def test_chest_xray_has_the_row_that_the_paper_lacks(run: Run) -> None:
    settings = D | HONEST | {"sweep.train_rows": [16]}
    board, results, _ = run(
        "chest_xray", "chest_xray_pneumonia", settings, {"none", "flip", "dcgan"}
    )
    titles = {"none of 16", "flip +24 of 16", "dcgan +24 of 16"}
    assert {row.title for row in board.rows} == titles
    scored = [r for r in results if r.config.stage == "classify"]
    assert {r.result.lineage for r in scored} == {"proven"}
    assert all(16 <= r.result.train_rows < 30 for r in scored)  # whole patients


def test_chest_xray_as_published_shows_its_gan_test_images(run: Run) -> None:
    board, results, slices = run(
        "chest_xray_as_published", "chest_xray_pneumonia", D, {"flip", "dcgan"}
    )
    held_out = slices.split("eval", 0)
    parts = slices.manifest["extra"]["parts"]
    shown = sum("train" in parts[unit] for unit in held_out.units.tolist())
    scored = {r.config.arm: r for r in results if r.config.stage == "classify"}
    exposure = scored["dcgan"].result.exposure
    assert exposure.seen_by_generator.images == shown > len(held_out) / 2
    assert scored["flip"].result.exposure.seen_by_generator.model_dump() == {
        "patients": 0,
        "images": 0,
    }
    assert scored["dcgan"].result.train_rows == len(slices.split("train", 0))
    assert "seen by the generator" in said(row_of(board, "dcgan +24"))
    assert "lineage violated as published" in said(row_of(board, "dcgan +24"))
