"""The leaderboard on a terminal: everything is there, and it fits."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest

from medaug.metrics.conclusion import Conclusion
from medaug.metrics.exchange import ExchangeRate
from medaug.results.numbers import with_interval
from medaug.results.rows import CHANCE, COLLAPSE, REFERENCE, WEAKER, Leaderboard, Row
from medaug.results.table import explanation, render, render_published, spoken

ROW = Row(
    arm="acgan",
    kind="acgan",
    synthetic=True,
    point={"ngf": 512, "ndf": 512},
    n_synthetic=4800,
    train_rows=1000,
    replicates=9,
    expected=9,
    patients=36,
    mean=0.7012,
    low=0.6,
    high=0.8,
    gain=0.021,
    gain_low=-0.0131,
    gain_high=0.0552,
    reference="none",
    scores={"recall/LGG": 0.512, "recall/HGG": 0.89},
    conclusion=Conclusion("undecided", 0.02, patients=340, draws=60),
    worth=ExchangeRate(37.4, -12.0, 300.0, -50.0, 300.0),
    flags=(WEAKER,),
    rank=2,
)
NONE = replace(
    ROW,
    arm="none",
    synthetic=False,
    point={},
    n_synthetic=0,
    train_rows=None,
    gain=0.0,
    gain_low=0.0,
    gain_high=0.0,
    conclusion=None,
    worth=None,
    flags=(REFERENCE,),
    rank=1,
)
LOST = replace(
    ROW,
    mean=math.nan,
    low=math.nan,
    high=math.nan,
    gain=math.nan,
    scores={},
    replicates=0,
    flags=(
        "not rankable: 0 of 9 replicates (failed)",
        "not rankable: no complete duplicate and no classical arm with +4800",
        CHANCE,
        COLLAPSE,
    ),
    conclusion=None,
    worth=None,
    rank=None,
)
BOARD = Leaderboard("demo", "honest", ("LGG", "HGG"), (NONE, ROW, LOST), tried=3, unfinished=4)


SAID = (
    "undecided: about 340 patients or 60 draws would decide",
    "worth 37 [−12, ≥ 300] real rows",
    "weaker than a linear model",
)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_nothing_is_lost_at_any_width(width: int) -> None:
    text = render(BOARD, width)
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    flags = (
        "not rankable: 0 of 9 replicates (failed); no complete duplicate and no classical arm with"
        " +4800 · not better than chance · one-class collapse"
    )
    for part in ("0.701 [0.600, 0.800]", "+0.021 [−0.013, +0.055]", "0.51 0.89 9/9", flags, *SAID):
        assert part in words
    assert words.count("acgan ngf=512 ndf=512 +4800 of") == 2
    assert words.count("1000") == 2


def test_columns_stand_below_their_headers() -> None:
    lines = render(BOARD, 100).splitlines()
    header = next(line for line in lines if "balanced accuracy" in line and "gain" in line)
    first = next(line for line in lines if line.strip().startswith("2"))
    for name, value in (
        ("balanced accuracy", "0.701"),
        ("gain", "+0.021"),
        ("LGG", "0.51"),
        ("n", "9/9"),
    ):
        assert header.rindex(f" {name}") == first.rindex(f" {value}")


def test_best_first_and_the_reference_has_no_gain_of_its_own() -> None:
    lines = render(BOARD, 100).splitlines()
    ranks = [line[0] for line in lines if line[:3].strip() in ("1", "2", "–")]
    assert ranks == ["1", "2", "–"]
    assert "+0.000" not in "".join(lines)


def test_it_says_how_to_read_it() -> None:
    text = explanation(BOARD)
    assert "without synthetic data (none)" in text
    assert "3 configurations were tried" in text
    assert "4 trials are unfinished or failed" in text
    assert "'undecided': neither" in text
    assert "Worth: the further real training rows" in text
    assert f"'{WEAKER}': the best linear model" in text
    assert "reaches 1/2" in text
    clean = explanation(replace(BOARD, rows=(NONE,), unfinished=0))
    assert not any(word in clean for word in ("undecided", "Worth", WEAKER, "unfinished"))
    ended = replace(ROW, conclusion=Conclusion("no gain", 0.01))
    text = explanation(replace(BOARD, rows=(ended,), margin=0.01))
    assert "'no gain above +0.01': the upper bound is below that" in text


def test_colour_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in render(BOARD)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" in render(BOARD, 100)


def test_a_run_without_scores_says_so() -> None:
    text = render(replace(BOARD, rows=()))
    assert text == "demo: no configuration has been scored yet (4 trials are unfinished or failed)"


def test_the_papers_tables_have_their_flags_and_flaws() -> None:
    text = " ".join(render_published(100).split())
    for paper in "ABCD":
        assert f"Study {paper}:" in text
    study_a = text[: text.index("Study B")]
    assert "acgan +1158 (HGG 0.57, LGG 0.38) 0.524" in study_a
    assert study_a.count(CHANCE) == 2
    assert "always answering HGG scores .635 accuracy" in study_a
    assert text.count("Known flaws:") == 4


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((0.5, 0.4, 0.6), "0.500 [0.400, 0.600]"),
        ((0.5, math.nan, math.nan), "0.500"),
        ((math.nan, 0.1, 0.2), ""),
    ],
)
def test_a_number_with_its_interval(bounds: tuple[float, float, float], text: str) -> None:
    assert with_interval(*bounds) == text


def test_reasons_are_said_in_one() -> None:
    flags = ["not rankable: a", CHANCE, "not rankable: b"]
    assert spoken(flags) == ["not rankable: a; b", CHANCE]
    assert spoken([]) == []
