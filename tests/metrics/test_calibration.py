"""The referee on boards whose truth is known; the numbers of docs/calibration.md.

``pytest -m slow -s tests/metrics/test_calibration.py`` prints them.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from medaug.metrics.board import Board
from medaug.metrics.bounds import Bounds, Family, simultaneous_bounds
from medaug.metrics.power import smallest_visible_gain
from tests.metrics.latent import Latent

pytestmark = pytest.mark.slow

BOARDS = 200
ROWS = tuple(f"row {i}" for i in range(10))
ONE_DRAW = {"draws": 1, "draw": 0.0, "row_draw": 0.0}


def counted(count: int, of: int) -> str:
    """``8 of 200 [.017, .077]``, with Clopper and Pearson's interval."""
    exact = binomtest(count, of).proportion_ci(method="exact")
    return f"{count} of {of} [{exact.low:.3f}, {exact.high:.3f}]"


def consistent(count: int, of: int, at_most: float) -> bool:
    """Whether so many are compatible, at 2.5 % one-sided, with a rate of at most this."""
    return bool(binomtest(count, of, at_most, alternative="greater").pvalue > 0.025)


def judged(
    latent: Latent, number: int, controls: int = 1, worse: float = 0.0, planted: float = 0.0
) -> dict[str, Bounds]:
    """Bounds of one board of ten rows; controls but the first are worse, the first row better."""
    names = tuple(f"control {i}" for i in range(controls))
    more = dict.fromkeys(names[1:], -worse) | {ROWS[0]: planted}
    rng = np.random.default_rng([7, number])
    board = Board(latent.hits(rng, [*ROWS, *names], more), resamples=1000)
    return simultaneous_bounds(board, [Family(ROWS, names)])


@pytest.mark.parametrize(
    ("name", "latent", "controls", "worse"),
    [
        ("no signal (d' = 0), one control", Latent(signal=0.0), 1, 0.0),
        ("no signal (d' = 0), five controls", Latent(signal=0.0), 5, 0.0),
        ("signal, one control", Latent(), 1, 0.0),
        ("signal, five equal controls", Latent(), 5, 0.0),
        ("signal, five controls, one is best", Latent(), 5, 0.6),
        ("one draw, three seeds", Latent(**ONE_DRAW), 1, 0.0),
        ("one draw, seeds matter", Latent(**ONE_DRAW, seed=0.3, patients=200), 1, 0.0),
        ("20 patients, one draw", Latent(**ONE_DRAW, patients=20), 1, 0.0),
        ("20 draws, one seed", Latent(draws=20, seeds=1, seed=0.0, patients=200), 1, 0.0),
        ("5 draws that matter, one seed",
         Latent(seeds=1, seed=0.0, row_draw=0.4, patients=200), 1, 0.0),
        ("one draw, seeds of every other row matter four times as much",
         Latent(**ONE_DRAW, seed=0.1, restless=4.0, patients=200, signal=0.0), 1, 0.0),
        ("draws of every other row matter four times as much, one seed",
         Latent(seeds=1, seed=0.0, row_draw=0.1, restless=4.0, patients=200, signal=0.0), 1, 0.0),
        ("rows that hardly differ", Latent(**ONE_DRAW, row_patient=0.05, residual=0.05), 1, 0.0),
    ],
)  # fmt: skip
def test_boards_without_a_gain_show_one_in_one_of_twenty(name, latent, controls, worse):
    boards = [judged(latent, number, controls, worse) for number in range(BOARDS)]
    false_gains = sum(any(row.low > 0 for row in board.values()) for board in boards)
    too_low = sum(any(row.high < 0 for row in board.values()) for board in boards)
    half = np.mean([row.gain - row.low for board in boards for row in board.values()])
    print(
        f"\n{name}: any false gain {counted(false_gains, BOARDS)}, any upper bound below the truth"
        f" {counted(too_low, BOARDS)}, mean half width {half:.3f}"
    )
    assert consistent(false_gains, BOARDS, 0.05)
    assert consistent(too_low, BOARDS, 0.05)


def test_one_draw_says_nothing_of_other_draws():
    """The limit of what data can tell: draws matter, and the study has one."""
    boards = [judged(Latent(draws=1), number) for number in range(BOARDS)]
    false_gains = sum(any(row.low > 0 for row in board.values()) for board in boards)
    print(f"\none draw of draws that matter: any false gain {counted(false_gains, BOARDS)}")
    assert not consistent(false_gains, BOARDS, 0.05)


@pytest.mark.parametrize(
    ("name", "latent", "controls"),
    [
        ("60 patients, 5 draws, 3 seeds, one control", Latent(), 1),
        ("60 patients, 5 draws, 3 seeds, five equal controls", Latent(), 5),
        ("200 patients, one draw, 5 seeds", Latent(**ONE_DRAW, patients=200, seeds=5), 1),
        ("200 patients, 20 draws, one seed",
         Latent(patients=200, draws=20, seeds=1, seed=0.0), 1),
    ],
)  # fmt: skip
def test_a_gain_of_the_promised_size_is_seen_in_eight_of_ten(name, latent, controls):
    """The components come from one rehearsal of the same size, averaged over its rows."""
    rehearsal = Board(latent.hits(np.random.default_rng(1), [*ROWS, "control"]), resamples=500)
    promises = []
    for row in ROWS:
        components = rehearsal.contrast(row, "control").components
        assert components is not None
        promises.append(smallest_visible_gain(components, rows=len(ROWS), controls=controls))
    gain = float(np.median(promises))
    planted = latent.signal_for(gain)
    boards = [judged(latent, n, controls, planted=planted) for n in range(BOARDS)]
    seen = sum(board[ROWS[0]].low > 0 for board in boards)
    print(f"\n{name}: promised +{gain:.3f}, seen in {counted(seen, BOARDS)}")
    assert consistent(BOARDS - seen, BOARDS, 0.2)
    assert seen < BOARDS  # a promise far too careful would be no use
