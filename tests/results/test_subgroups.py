"""Scores of the patients who share a covariate, and what of a table reaches any output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medaug.data.privacy import KEY_ENV
from medaug.metrics.board import Board
from medaug.metrics.hits import hits_of
from medaug.metrics.predictions import Predictions
from medaug.results.leaderboard import leaderboard_of
from medaug.results.report.document import write_report
from medaug.results.rows import Row
from medaug.results.subgroups import groups_of, of_patients, subgroups_of
from medaug.spec import build_study
from medaug.spec.arms import ARM_CONFIGS
from tests.audit.test_score import LABELS, SIDE, picture
from tests.data.folders import table
from tests.integration.in_process import run_here

N, SEEDS = 60, 3
NAMES = [f"p-{i:03d}" for i in range(N)]


def predictions(p_right: np.ndarray, seed: int) -> Predictions:
    """Two slices a patient; each patient is called right with a chance of its own."""
    rng = np.random.default_rng(seed)
    tables = []
    for s in range(SEEDS):
        label = np.arange(N) % 2
        right = rng.random(N) < p_right
        probability = np.where(right == label.astype(bool), 0.8, 0.2)
        names, labels, ps = (np.repeat(x, 2) for x in (np.array(NAMES), label, probability))
        tables.append(Predictions.of_trial(names, labels, ps, seed=s, fold=0))
    return Predictions.concat(tables)


def row(title: str, reference: str | None) -> Row:
    about = {"kind": "none", "synthetic": reference is not None, "point": {}, "n_synthetic": 0}
    numbers = {"train_rows": None, "replicates": 3, "expected": 3, "patients": N}
    scores = {"mean": 0.5, "low": 0.4, "high": 0.6, "reference": reference}
    return Row(arm=title, **about, **numbers, **scores)


@pytest.fixture(scope="module")
def board() -> Board:
    """The candidate is better than the reference where the sex is f, and nowhere else."""
    of_f = np.arange(N) // 2 % 2 == 0
    tables = {"ref": predictions(np.full(N, 0.6), 1)}
    tables["new"] = predictions(np.where(of_f, 0.98, 0.6), 2)
    return Board.of(tables)


CELLS = {
    name: {"sex": "fm"[i // 2 % 2], "age": str(30 + i), "ward": ["A", "B", "C"][min(2, i // 40)]}
    for i, name in enumerate(NAMES)
}


def test_a_subgroups_scores_are_those_of_its_patients(board: Board) -> None:
    rows = [row("ref", None), row("new", "ref")]
    found = subgroups_of(board, rows, ("neg", "pos"), CELLS, ("sex",))
    assert [(g["covariate"], g["group"], g["patients"]) for g in found] == [
        ("sex", "f", 30),
        ("sex", "m", 30),
    ]
    for group in found:
        inside = [n for n in NAMES if CELLS[n]["sex"] == group["group"]]
        for each in group["rows"]:
            hits = board.hits[each["configuration"]]
            per_patient = dict(zip(hits.patients, hits.right.mean(axis=(1, 2)), strict=True))
            label = dict(zip(hits.patients[hits.patient], hits.label, strict=True))
            for k, name in enumerate(("neg", "pos")):
                expected = np.mean([per_patient[p] for p in inside if label[p] == k])
                recall = each["recall"][name]
                assert recall["mean"] == pytest.approx(expected)
                assert 0 <= recall["low"] <= expected <= recall["high"] <= 1
    gains = {g["group"]: g["rows"][1]["gain"] for g in found}
    assert gains["f"]["low"] > 0
    assert gains["m"]["low"] < 0 < gains["m"]["high"] + 0.2
    assert found[0]["rows"][0]["gain"] is None


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """200 worlds of patients and seeds, a group of 20: recall of one class."""
    held = []
    for seed in range(200):
        hits = hits_of(predictions(np.full(N, 0.75), seed))
        part = of_patients(hits, frozenset(NAMES[:20]), label=1)
        low, high = Board({"x": part}).contrast("x").bounds()
        held.append(low <= 0.75 <= high)
    assert np.mean(held) >= 0.92


def test_numbers_are_divided_by_patients() -> None:
    groups = list(groups_of(CELLS, NAMES, ("age",)))
    assert [len(g.patients) for g in groups] == [20, 20, 20]
    assert [g.name for g in groups] == [
        "up to 49 (a third of the patients)",
        "above 49 up to 69 (a third of the patients)",
        "above 69 (a third of the patients)",
    ]
    few = NAMES[:30]
    assert [len(g.patients) for g in groups_of(CELLS, few, ("age",))] == [15, 15]
    tied = {name: {"age": "50" if i < 40 else str(100 + i)} for i, name in enumerate(NAMES)}
    told = [(g.name, len(g.patients)) for g in groups_of(tied, NAMES, ("age",))]
    assert told == [("up to 50", 40), ("above 50", 20)], "equal numbers stay together"
    grades = {name: {"grade": str(i % 3)} for i, name in enumerate(NAMES)}
    assert [g.name for g in groups_of(grades, NAMES, ("grade",))] == ["0", "1", "2"]


def test_every_patient_is_in_one_group_and_rare_values_are_not_named(board: Board) -> None:
    cells = {name: {"x": "common"} for name in NAMES[:40]}
    cells |= {name: {"x": "some"} for name in NAMES[40:48]}
    cells |= {name: {"x": f"only {name}"} for name in NAMES[48:52]} | {NAMES[52]: {"x": "nan"}}
    found = subgroups_of(board, [row("ref", None)], ("neg", "pos"), cells, ("x",))
    assert [(g["group"], g["patients"], bool(g["rows"])) for g in found] == [
        ("common", 40, True),
        ("some", 8, False),
        ("other values", 4, False),
        ("not told", 8, False),
    ]
    assert "only" not in json.dumps(found)


def test_a_group_without_a_class_has_its_other_recall(board: Board) -> None:
    cells = {name: {"y": "even" if i % 2 == 0 else "odd"} for i, name in enumerate(NAMES)}
    rows = [row("ref", None), row("new", "ref")]
    even = subgroups_of(board, rows, ("neg", "pos"), cells, ("y",))[0]["rows"][1]
    assert np.isfinite(even["recall"]["neg"]["mean"])
    assert np.isnan(even["recall"]["pos"]["mean"])
    assert np.isnan(even["gain"]["mean"])


# ------------------------------------------------------------------------------------- a whole run

SECRETS = ("Zebulon Quist", "St. Elsewhere", "1931-02-03", "+49 170 555", "secret_column")


def test_a_run_shows_its_subgroups_and_nothing_else_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, str(tmp_path / "site.key"))
    root = tmp_path / "in"
    lines = []
    for i in range(28):
        picture(root / f"a/{i}.png", f"Quist{i}", i % 2)
        sex, name = "fm"[i // 2 % 2], f"Zebulon Quist {i}"
        more = [name, "St. Elsewhere", "1931-02-03", "+49 170 555"]
        lines.append([f"a/{i}.png", LABELS[i % 2], f"Quist{i}", sex, 40 + i, *more])
    header = "file,class,patient,sex,age,physician,hospital,born,secret_column"
    table(root / "scans.csv", header, lines)
    body = {
        "name": "groups",
        "data": {
            "table": str(root / "scans.csv"),
            "classes": LABELS,
            "image_size": SIDE,
            "covariates": ["sex", "age"],
        },
        "split": {"folds": 2},
        "arms": {"none": {}, "gaussian": {"components": 3}},
        "classifier": {"kind": "probe"},
        "sweep": {"n_synthetic": [16], "seeds": [0]},
        "controls": "none",
        "storage": str(tmp_path / "runs"),
    }
    study = build_study(body, ARM_CONFIGS)
    board, _, _ = run_here(study)
    folder = study.storage / study.name
    groups = json.loads(json.dumps(board.to_json()["subgroups"], allow_nan=False))
    assert [(g["covariate"], g["patients"]) for g in groups] == [
        *(("sex", 14), ("sex", 14)),
        *(("age", 14), ("age", 14)),
    ]
    assert [g["group"] for g in groups[2:]] == [
        "up to 53 (a half of the patients)",
        "above 53 (a half of the patients)",
    ]
    titles = {row.title for row in board.rows}
    assert all({each["configuration"] for each in g["rows"]} == titles for g in groups)
    page = write_report(folder).read_text()
    assert "By sex." in page
    assert "up to 53 (a half of the patients)" in page
    assert leaderboard_of(folder).subgroups == board.subgroups
    for path in study.storage.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            planted = [word for word in (*SECRETS, "Quist") if word.encode() in content]
            # A study says where its table lies; the table's own words are nowhere.
            assert not planted, (path, planted)
