"""Several classifiers, draws, the positive control and exchange rates, on runs whose truth is
known: trials of a study's plan, written again under other classifiers, arms and draws."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from medaug.results.leaderboard import leaderboard_of
from medaug.results.report.answer import answer
from medaug.results.report.exchange import worth
from medaug.results.rows import POSITIVE, REFERENCE, WEAKER, Leaderboard, Row
from medaug.results.table import explanation, render
from medaug.spec import ClassifyTrial, MeanSpec, NetworkSpec, ProbeSpec, StudySpec
from tests.tracking.made_runs import classified, start, study, write_trial

PROBE, MEAN = ProbeSpec(), MeanSpec(kind="class_mean")
PATIENTS = 240
BIG = {"data": {"image_size": 32, "phantom": {"patients": PATIENTS, "d_prime": 2.6}}}
FEW = {"n_synthetic": [100], "seeds": [0, 1, 2]}
ARMS = {"none": {}, "duplicate": {}, "classical": {}, "gaussian": {}, "smote": {}}


def row_of(board: Leaderboard, title: str) -> Row:
    (row,) = (row for row in board.rows if row.title == title)
    return row


class Made:
    """A run that is written configuration by configuration."""

    def __init__(self, spec: StudySpec) -> None:
        self.study = spec
        self.folder, plan = start(spec)
        self.plan = plan.classify

    def write(
        self,
        of: str,
        effect: float,
        *,
        draws: Iterable[int] = (0,),
        real_rows: int = 192,
        **changes: Any,
    ) -> None:
        """All replicates of an arm's first configuration, changed, with this effect."""
        first = next(trial for trial in self.plan if trial.arm == of)
        for trial in self.plan:
            if trial.configuration != first.configuration or trial.draw:
                continue
            for draw in draws:
                written = {k: v for k, v in dict(trial).items() if k != "key"}
                config = ClassifyTrial(**{**written, "draw": draw, **changes})
                result = classified(self.study, config, lambda labels, seed: effect)
                write_trial(self.folder, config, result | {"train_rows": real_rows})

    def board(self) -> Leaderboard:
        return leaderboard_of(self.folder)


@pytest.fixture(scope="module")
def sighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that a linear model outdoes, generators that do and do not help the linear model,
    real rows that were held back, and a second, smaller training set."""
    made = Made(study(tmp_path_factory.mktemp("sighted"), arms=ARMS, sweep=FEW, **BIG))
    for arm in ARMS:
        made.write(arm, 0.0, classifier_name="cnn")
    probe = {"classifier": PROBE, "classifier_name": "probe"}
    for arm in ("none", "duplicate", "classical"):
        made.write(arm, 0.9, **probe, linear=arm == "none")
    for kind in ("class_weights", "logit_adjust"):
        weighed = probe | {"classifier": ProbeSpec(weighting=kind)}
        made.write("none", 0.9, **weighed, arm=kind, kind=kind, control=True)
    made.write("gaussian", 1.9, **probe)
    made.write("smote", 0.9, **probe)
    more = {"arm": "more_real", "kind": "more_real", "control": True, "n_synthetic": 96}
    made.write("none", 1.7, **probe, **more)
    more["n_synthetic"] = 288
    made.write("none", 2.6, **probe, **more)
    return made.folder


def test_the_reference_is_the_best_of_all_classifiers_without_synthetic_rows(sighted: Path) -> None:
    board = leaderboard_of(sighted)
    assert board.reference is not None
    assert board.reference.classifier == "probe"
    assert board.reference.kind in ("none", "duplicate", "classical", "class_weights",
                                    "logit_adjust")  # fmt: skip
    others = {row.reference for row in board.rows if row not in board.positive_controls}
    assert others == {board.reference.title}
    assert sum(REFERENCE in row.flags for row in board.rows) == 1


def test_rows_end_in_gain_no_gain_or_undecided(sighted: Path) -> None:
    board = leaderboard_of(sighted)
    helped = row_of(board, "gaussian +100 by probe")
    assert helped.ending == "gain"
    assert helped.gain_low > 0
    assert helped.flags == ()
    assert board.rows[0] == helped
    for title in ("gaussian +100 by cnn", "smote +100 by cnn"):
        assert row_of(board, title).ending == "no gain above +0.02"
    neutral = row_of(board, "smote +100 by probe")
    assert neutral.conclusion is not None
    assert neutral.conclusion.end in ("no gain", "undecided")


def test_networks_that_a_linear_model_outdoes_say_so_first(sighted: Path) -> None:
    board = leaderboard_of(sighted)
    for row in board.rows:
        assert (WEAKER in row.flags) == (row.classifier == "cnn")
    weak = row_of(board, "none by cnn")
    assert weak.weaker_by is not None
    title, lead, low, high = weak.weaker_by
    assert title == "none by probe"
    assert lead == pytest.approx(row_of(board, title).mean - weak.mean)
    assert 0 < low < lead < high
    said = answer(board)
    assert said.headline == "A gain from synthetic data is shown on these patients."
    assert said.sentences[0].startswith("5 of 14 configurations are weaker than a linear model")
    assert WEAKER in explanation(board)


def test_the_positive_control_stands_apart(sighted: Path) -> None:
    board = leaderboard_of(sighted)
    assert [row.n_synthetic for row in board.positive_controls] == [288, 96]
    most = board.positive_controls[0]
    assert most.rank is None
    assert POSITIVE in most.flags
    assert most.ending == "gain"
    assert most.real_rows == 192 + 288
    assert any("this study can see a gain" in text for text in answer(board).sentences)
    assert most.mean > board.rows[0].mean  # and still does not rank


def test_real_rows_may_help_a_classifier_that_stays_below_the_reference(tmp_path: Path) -> None:
    made = Made(study(tmp_path, arms=ARMS, sweep=FEW, **BIG))
    for arm in ("none", "duplicate", "classical", "gaussian"):
        made.write(arm, 0.0, classifier_name="cnn")
    more = {"arm": "more_real", "kind": "more_real", "n_synthetic": 96}
    made.write("none", 1.0, classifier_name="cnn", **more)
    made.write("none", 2.5, classifier=PROBE, classifier_name="probe", linear=True)
    board = made.board()
    (control,) = board.positive_controls
    assert control.mean < board.reference.mean
    assert control.reference == "none by cnn"
    assert control.ending == "gain"
    (said,) = (text for text in answer(board).sentences if text.startswith("Positive control"))
    assert "changes its own classifier by +0." in said
    assert "real rows do not take that classifier past the best" in said


def test_a_gain_is_worth_real_rows(sighted: Path) -> None:
    board = leaderboard_of(sighted)
    helped, neutral = (row_of(board, f"{a} +100 by probe") for a in ("gaussian", "smote"))
    assert helped.worth is not None
    assert neutral.worth is not None
    assert 48 < helped.worth.rows <= 288
    assert neutral.worth.rows < helped.worth.low
    assert "worth" in render(board, 100)
    assert worth(board) is not None
    body = json.loads(json.dumps(board.to_json(), allow_nan=False))
    row = next(row for row in body["rows"] if row["title"] == helped.title)
    assert row["conclusion"]["text"] == "gain"
    assert row["worth"]["text"] == helped.worth.text
    lost = next(row for row in body["rows"] if row["title"] == "none by cnn")
    assert lost["weaker_by"]["title"] == "none by probe"


def test_without_a_second_size_nothing_is_worth_anything(tmp_path: Path) -> None:
    made = Made(study(tmp_path, sweep=FEW))
    for arm in ("none", "duplicate", "classical", "gaussian"):
        made.write(arm, 0.5)
    board = made.board()
    assert row_of(board, "gaussian +100").worth is None
    assert worth(board) is None


def test_balancing_controls_are_missed(tmp_path: Path) -> None:
    made = Made(study(tmp_path, sweep=FEW))
    for arm in ("none", "duplicate", "classical", "gaussian"):
        made.write(arm, 0.5)
    assert row_of(made.board(), "gaussian +100").flags[-1:] == (
        "not compared with class_weights and logit_adjust",
    )
    weighed = NetworkSpec(weighting="class_weights")
    made.write("none", 0.5, classifier=weighed, arm="class_weights", kind="class_weights")
    assert row_of(made.board(), "gaussian +100").flags[-1] == "not compared with logit_adjust"


def test_a_solved_classifier_on_real_rows_needs_one_seed(tmp_path: Path) -> None:
    made = Made(study(tmp_path, sweep={"n_synthetic": [100], "seeds": [0]}))
    made.write("none", 0.5, classifier=PROBE)
    made.write("none", 0.5, classifier_name="cnn")
    made.write("gaussian", 0.5, classifier=PROBE)
    board = made.board()
    assert row_of(board, "none").rank is not None
    assert "1 seed, fewer than 3" in " ".join(row_of(board, "none by cnn").flags)
    assert "1 seed, fewer than 3" in " ".join(row_of(board, "gaussian +100").flags)


def test_solved_classifiers_take_no_steps_to_compare(tmp_path: Path) -> None:
    made = Made(study(tmp_path, sweep=FEW))
    made.write("none", 0.5, classifier=MEAN)
    for arm in ("duplicate", "classical", "gaussian"):
        made.write(arm, 0.5, classifier=PROBE)
    for trial in (made.folder / "trials").iterdir():
        config = json.loads((trial / "config.json").read_text())
        result = json.loads((trial / "result.json").read_text())
        steps = {"steps": 7 if config["arm"] == "gaussian" else 0}
        (trial / "result.json").write_text(json.dumps(result | steps))
    assert row_of(made.board(), "gaussian +100").rank is not None


def test_draws_are_replicates(tmp_path: Path) -> None:
    """One seed, four draws of forty rows: rankable, and a wider interval than of one draw."""
    sweep = {"n_synthetic": [100], "train_rows": [40], "seeds": [0], "draws": 4}
    made = Made(study(tmp_path, sweep=sweep))
    for arm in ("none", "duplicate", "classical", "gaussian"):
        made.write(arm, 0.5, draws=range(4), classifier=PROBE)
    board = made.board()
    row = row_of(board, "gaussian +100 of 40")
    assert (row.replicates, row.expected, row.draws) == (12, 12, 4)
    assert row.rank is not None
    next((made.folder / "trials").glob("*/result.json")).unlink()
    assert "11 of 12 replicates" in str([row.flags for row in made.board().rows])
