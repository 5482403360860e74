"""What may be ranked, and what each row is called: on runs whose truth is known."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medaug.errors import UserError
from medaug.plan.trials import plan_study
from medaug.results.leaderboard import leaderboard_of
from medaug.results.published import published
from medaug.results.records import read_study
from medaug.results.report.answer import answer
from medaug.results.rows import (
    BELOW_GAUSSIAN,
    CHANCE,
    COLLAPSE,
    MODE_COLLAPSE,
    NO_GAIN,
    REFERENCE,
    UNKNOWN,
    Leaderboard,
    Row,
)
from medaug.results.table import render
from medaug.spec import ClassifyTrial
from tests.tracking.made_runs import SLICES, config_in, made_scores, start, study, write_trial

Result = dict[str, Any]


def acgan_helps(labels: Mapping[str, Any], seed: int) -> float:
    """The truth of most runs here: 300 rows of the ACGAN help, nothing else does anything."""
    return 1.2 if (labels["arm"], labels["n_synthetic"]) == ("acgan", 300) else 0.0


def row_of(board: Leaderboard, title: str) -> Row:
    (row,) = (row for row in board.rows if row.title == title)
    return row


def reasons(row: Row) -> str:
    return " / ".join(flag for flag in row.flags if flag.startswith("not rankable"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_scores(study(tmp_path_factory.mktemp("planted")), acgan_helps)


def edited(folder: Path, tmp_path: Path, edit: Any) -> Leaderboard:
    """The leaderboard of a copy of a run in which ``edit(config, result)`` changed results; when
    it gives None, the trial loses its own."""
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    for trial in (copy / "trials").iterdir():
        config = config_in(trial)
        result = edit(config, json.loads((trial / "result.json").read_text()))
        if result is None:
            (trial / "result.json").unlink()
        else:
            (trial / "result.json").write_text(json.dumps(result))
    return leaderboard_of(copy)


def test_a_planted_gain_ranks_first_and_nothing_else_has_one(planted: Path) -> None:
    board = leaderboard_of(planted)
    best = board.rows[0]
    assert (best.title, best.rank, best.ending) == ("acgan +300", 1, "gain")
    assert best.flags == ("not compared with class_weights and logit_adjust",)
    assert best.gain_low > 0
    assert best.gain == pytest.approx(best.mean - row_of(board, best.reference or "").mean)
    others = [row for row in board.rows[1:] if row.synthetic]
    assert len(others) == 3
    assert all(row.conclusion and row.conclusion.end != "gain" for row in others)
    assert not any(row.conclusion for row in board.rows if not row.synthetic)
    assert sum(REFERENCE in row.flags for row in board.rows) == 1
    assert [row.rank for row in board.rows] == list(range(1, 10))
    keys = [(CHANCE in row.flags, -row.gain_low) for row in board.rows]
    assert keys == sorted(keys)


def test_scores_are_those_of_all_folds_together(planted: Path) -> None:
    row = leaderboard_of(planted).rows[0]
    recalls = [row.scores["recall/LGG"], row.scores["recall/HGG"]]
    assert np.mean(recalls) == pytest.approx(row.mean)
    assert row.scores["balanced_accuracy"] == pytest.approx(row.mean)
    assert row.scores["slice_balanced_accuracy"] < row.mean  # slices vote
    assert row.scores["ece"] == pytest.approx(0.1)  # what is not pooled is a mean of trials
    assert (row.replicates, row.expected, row.patients) == (9, 9, 36)
    assert row.device_hours == pytest.approx(9 * 2.25 / 3600)
    assert len(row.trials) == 9


def test_no_effect_at_all_is_called_that(tmp_path: Path) -> None:
    board = leaderboard_of(made_scores(study(tmp_path)))
    assert all(row.rank for row in board.rows)
    assert not any(row.gain_low > 0 for row in board.rows)
    ends = [row.conclusion.end for row in board.rows if row.conclusion]
    assert len(ends) == 4
    assert "gain" not in ends


@pytest.mark.parametrize("status", ["diverged", "failed", "unfinished", "stopped"])
def test_a_replicate_that_is_missing_makes_its_row_unrankable(status: str, tmp_path: Path) -> None:
    def lose_one(config: ClassifyTrial, result: Result) -> Result | None:
        lost = config.arm == "acgan" and (config.seed, config.fold) == (1, 2)
        if not lost:
            return result
        return (
            {"status": "diverged", "why": "diverged in epoch 3"} if status == "diverged" else None
        )

    folder = made_scores(study(tmp_path), acgan_helps, lose_one)
    if status in ("failed", "stopped"):
        name = {"failed": "failure.json", "stopped": "stopped.json"}[status]
        for trial in (folder / "trials").iterdir():
            if not (trial / "result.json").exists():
                (trial / name).write_text(json.dumps({"error": "lost", "epoch": 1, "metrics": {}}))
    board = leaderboard_of(folder)
    row = row_of(board, "acgan +300")
    assert row.rank is None
    said = "1 stopped early" if status == "stopped" else status
    assert f"8 of 9 replicates ({said})" in reasons(row)
    assert row.replicates == 8
    assert math.isnan(row.gain)
    assert board.unfinished == (2 if status in ("failed", "unfinished") else 0)
    assert row_of(board, "gaussian +300").rank is not None


def test_a_synthetic_row_needs_its_complete_controls(planted: Path, tmp_path: Path) -> None:
    def break_controls(config: ClassifyTrial, result: Result) -> Result | None:
        labels = (config.arm, config.n_synthetic, config.seed)
        return None if labels == ("duplicate", 300, 0) else result

    board = edited(planted, tmp_path, break_controls)
    assert "no complete duplicate arm with +300" in reasons(row_of(board, "acgan +300"))
    assert row_of(board, "acgan +100").rank is not None

    arms = {"none": {}, "classical": {}, "gaussian": {}}
    board = leaderboard_of(made_scores(study(tmp_path / "without", arms=arms)))
    assert "no complete duplicate arm with +100" in reasons(row_of(board, "gaussian +100"))
    assert row_of(board, "classical +100").rank is not None  # a control needs no other

    arms = {"duplicate": {}, "classical": {}, "gaussian": {}}
    board = leaderboard_of(made_scores(study(tmp_path / "alone", arms=arms)))
    assert all("no complete arm 'none'" in reasons(row) for row in board.rows)


def test_rows_that_trained_longer_are_not_ranked(planted: Path, tmp_path: Path) -> None:
    def longer(config: ClassifyTrial, result: Result) -> Result:
        return result | {"steps": 480} if config.n_synthetic == 300 else result

    board = edited(planted, tmp_path, longer)
    assert "optimiser steps" in reasons(row_of(board, "acgan +300"))
    assert row_of(board, "acgan +100").rank is not None


def test_a_gain_of_unknown_lineage_is_ranked_and_not_concluded(
    planted: Path, tmp_path: Path
) -> None:
    def of_lineage(what: str) -> Leaderboard:
        def told(config: ClassifyTrial, result: Result) -> Result:
            return result | {"lineage": what} if config.arm == "acgan" else result

        return edited(planted, tmp_path / what, told)

    board = of_lineage("unknown")
    row = row_of(board, "acgan +300")
    assert (row.rank, row.ending, row.worth) == (1, "", None)
    assert row.gain_low > 0
    assert UNKNOWN in row.flags
    assert UNKNOWN in render(board)
    assert "no gain is concluded of it" in render(board).replace("\n", " ")
    assert answer(board).headline != "A gain from synthetic data is shown on these patients."
    assert UNKNOWN not in row_of(board, "gaussian +300").flags

    row = row_of(of_lineage("declared"), "acgan +300")
    assert (row.rank, row.ending) == (1, "gain")
    assert UNKNOWN not in row.flags


def test_a_network_below_the_gaussian_is_told(planted: Path, tmp_path: Path) -> None:
    """The mean lead over the folds counts, by more than its standard error."""

    def board_of(name: str, leads: list[float], kind: str = "acgan") -> Leaderboard:
        copy = tmp_path / name
        shutil.copytree(planted, copy)
        for trial in plan_study(read_study(copy), SLICES).generate:
            if trial.arm == kind:
                scores = {"tstr": 0.7 + leads[trial.fold], "tstr_gaussian": 0.7}
                made = {"stage": "generate", "output": "r", "generator": "g", "n": 300}
                write_trial(copy, trial, made | {"scores": scores})
        return leaderboard_of(copy)

    assert BELOW_GAUSSIAN in row_of(board_of("below", [-0.1, -0.2, -0.1]), "acgan +100").flags
    below = row_of(board_of("again", [-0.1, -0.2, -0.1]), "acgan +300")
    assert (below.rank, below.ending) == (1, "gain"), "it says more of the generator than of rows"
    assert below.quality["tstr_gaussian"] == pytest.approx(0.7)
    assert BELOW_GAUSSIAN in render(board_of("said", [-0.1, -0.2, -0.1]))
    for name, leads in (("above", [0.1, 0.2, 0.0]), ("unsure", [-0.1, 0.08, -0.02])):
        assert BELOW_GAUSSIAN not in row_of(board_of(name, leads), "acgan +300").flags


def test_generators_without_variety_are_counted(planted: Path, tmp_path: Path) -> None:
    copy = tmp_path / "collapsed"
    shutil.copytree(planted, copy)
    trials = [t for t in plan_study(read_study(copy), SLICES).generate if t.arm == "acgan"]
    keys = sorted({trial.generator_key for trial in trials})
    for trial in trials:
        made = {"stage": "generate", "output": "r", "generator": "g", "n": 300, "scores": {}}
        if trial.generator_key in keys[:2]:
            made |= {"collapsed": "diversity 0.10, below 0.3 of the real rows'"}
        write_trial(copy, trial, made)
    flag = f"{MODE_COLLAPSE} in 2 of {len(keys)} generators"
    board = leaderboard_of(copy)
    assert flag in row_of(board, "acgan +300").flags
    assert not any(MODE_COLLAPSE in flag for flag in row_of(board, "classical +300").flags)
    assert f"'{MODE_COLLAPSE}': rows of so many" in render(board)


def test_unproven_lineage_and_another_split_are_not_ranked(planted: Path, tmp_path: Path) -> None:
    def unproven(config: ClassifyTrial, result: Result) -> Result:
        return result | {"lineage": "hearsay"} if config.arm == "acgan" else result

    board = edited(planted, tmp_path / "lineage", unproven)
    assert "lineage not proven" in reasons(row_of(board, "acgan +300"))
    assert row_of(board, "gaussian +300").rank is not None

    def other_split(config: ClassifyTrial, result: Result) -> Result:
        return result | {"split": "another"} if config.arm == "acgan" else result

    board = edited(planted, tmp_path / "split", other_split)
    assert all("not the same split" in reasons(row) for row in board.rows)
    assert math.isnan(row_of(board, "acgan +300").gain)


def test_few_seeds_and_the_published_protocol_are_not_ranked(tmp_path: Path) -> None:
    few = study(tmp_path / "few", sweep={"n_synthetic": [100], "seeds": [0, 1]})
    assert all("2 seeds, fewer than 3" in reasons(r) for r in leaderboard_of(made_scores(few)).rows)
    split = {"scheme": "published", "eval_fraction": 0.5}
    as_published = study(tmp_path / "published", protocol="as_published", split=split)
    nobody = {"patients": 0, "images": 0}
    exposure = {"scored": {"patients": 18, "images": 144}, "chose": {"patients": 18, "images": 144},
                "trained_on": nobody, "seen_by_generator": {"patients": 16, "images": 90}}  # fmt: skip

    def seen(config: ClassifyTrial, result: Result) -> Result:
        lineage = "violated as published" if config.synthetic else "proven"
        return result | {"exposure": exposure, "lineage": lineage}

    board = leaderboard_of(made_scores(as_published, acgan_helps, seen))
    said = (
        "protocol as_published: of 18 test patients 18 chose epoch and threshold, "
        "16 were seen by the generator"
    )
    assert all(said in reasons(row) for row in board.rows)
    for row in board.rows:
        assert ("lineage violated as published" in reasons(row)) == row.synthetic
    assert row_of(board, "acgan +300").gain > 0  # shown all the same
    assert not any(row.conclusion for row in board.rows)


def test_chance_and_collapse_are_named_and_rank_last(planted: Path, tmp_path: Path) -> None:
    def spoil(config: ClassifyTrial, result: Result) -> Result:
        rows = result["predictions"]
        if config.arm == "acgan":
            constant = [[0.1, 0.9]] * len(rows["label"])
            return result | {"predictions": rows | {"probability": constant}}
        if config.arm == "gaussian":
            rng = np.random.default_rng(config.seed)
            noise = [[1 - p, p] for p in rng.uniform(size=len(rows["label"])).tolist()]
            return result | {"predictions": rows | {"probability": noise}}
        return result

    board = edited(planted, tmp_path, spoil)
    assert {CHANCE, COLLAPSE} <= set(row_of(board, "acgan +300").flags)
    noisy = row_of(board, "gaussian +300")
    assert CHANCE in noisy.flags
    assert COLLAPSE not in noisy.flags
    assert [row.arm for row in board.rows[-4:]].count("acgan") == 2
    assert [row.arm for row in board.rows[-4:]].count("gaussian") == 2
    assert REFERENCE in board.rows[0].flags


def test_ties_go_to_less_data(planted: Path, tmp_path: Path) -> None:
    same: dict[tuple[int, int], Any] = {}
    for trial in sorted((planted / "trials").iterdir()):
        config = config_in(trial)
        if (config.arm, config.n_synthetic) == ("acgan", 300):
            result = json.loads((trial / "result.json").read_text())
            same[config.seed, config.fold] = result["predictions"]

    def equal(config: ClassifyTrial, result: Result) -> Result:
        if config.synthetic:
            return result | {"predictions": same[config.seed, config.fold]}
        return result

    titles = [row.title for row in edited(planted, tmp_path, equal).rows[:4]]
    assert sorted(titles[:2]) == ["acgan +100", "gaussian +100"]
    assert sorted(titles[2:]) == ["acgan +300", "gaussian +300"]


def test_after_the_data_changed_only_the_later_trials_count(tmp_path: Path) -> None:
    spec = study(tmp_path, sweep={"n_synthetic": [100], "seeds": [0, 1, 2]})
    folder = made_scores(spec, lambda labels, seed: -3.0)  # the old data: all predictions wrong
    old = leaderboard_of(folder)
    newer = made_scores(study(tmp_path, name="newer", sweep=spec.sweep.canonical()))
    for trial in (newer / "trials").iterdir():
        config = config_in(trial)
        moved = ClassifyTrial.model_validate(
            config.model_dump() | {"features": "features-of-other-data"}
        )
        result = json.loads((trial / "result.json").read_text())
        write_trial(folder, moved, result, begun=1e6)
    board, expected = leaderboard_of(folder), leaderboard_of(newer)
    assert [row.mean for row in board.rows] == [row.mean for row in expected.rows]
    assert board.rows[0].mean > old.rows[0].mean
    assert all(row.replicates == 9 for row in board.rows)


def test_training_set_sizes_are_compared_with_their_own_reference(tmp_path: Path) -> None:
    sweep = {"n_synthetic": [100], "train_rows": [40, 160], "seeds": [0, 1, 2]}

    def larger_is_better(labels: Mapping[str, Any], seed: int) -> float:
        return 1.5 if labels["train_rows"] == 160 else 0.0

    board = leaderboard_of(made_scores(study(tmp_path, sweep=sweep), larger_is_better))
    assert row_of(board, "acgan +100 of 160").mean > row_of(board, "acgan +100 of 40").mean
    for row in board.rows:
        assert row.reference is not None
        assert row.reference.endswith(f"of {row.train_rows}")
        assert not row.gain_low > 0


def test_an_unfinished_run_has_a_leaderboard(tmp_path: Path) -> None:
    folder, plan = start(study(tmp_path))
    assert leaderboard_of(folder).rows == ()
    write_trial(folder, plan.classify[0], None)
    board = leaderboard_of(folder)
    (row,) = board.rows
    assert math.isnan(row.mean)
    assert row.rank is None
    assert board.unfinished == 1
    assert json.loads(json.dumps(board.to_json(), allow_nan=False))["rows"][0]["mean"] is None


def test_no_such_run_names_those_that_there_are(planted: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: no such run; have made"):
        leaderboard_of(planted.parent / "nothing")


def test_study_a_as_published_is_not_better_than_chance() -> None:
    without, with_acgan = published("A")
    assert CHANCE in with_acgan.flags
    assert CHANCE in without.flags
    assert COLLAPSE in without.flags
    assert with_acgan.balanced_accuracy is not None
    assert with_acgan.balanced_accuracy[0] == pytest.approx(0.4765)
    assert NO_GAIN in with_acgan.flags


def test_no_published_row_can_be_ranked_and_no_gan_shows_a_gain() -> None:
    rows = published()
    assert {judged.row.paper for judged in rows} == {"A", "B", "C", "D"}
    for judged in rows:
        assert any(flag.startswith("not rankable") for flag in judged.flags)
        assert not judged.row.synthetic or NO_GAIN in judged.flags
        json.dumps(judged.to_json(), allow_nan=False)
    (gan,) = (judged for judged in rows if (judged.row.paper, judged.row.arm) == ("D", "dcgan"))
    assert gan.gain is not None
    assert gan.gain[0] == pytest.approx((1119 - 1112) / 1172)
    assert gan.gain[1] < 0 < gan.gain[2]
