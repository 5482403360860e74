"""The three ends, exchange rates and power."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression

from medaug.metrics.board import Board
from medaug.metrics.bounds import Bounds, Family, simultaneous_bounds
from medaug.metrics.conclusion import Conclusion, conclude
from medaug.metrics.exchange import exchange_rate, nondecreasing
from medaug.metrics.power import assumed_components, smallest_visible_gain
from tests.metrics.latent import Latent


def bounds_of(low: float, gain: float, high: float, latent: Latent | None = None) -> Bounds:
    hits = (latent or Latent()).hits(np.random.default_rng(0), ["a", "c"])
    return Bounds(gain, low, high, "c", Board(hits).contrast("a", "c"))


def test_bounds_end_in_one_of_three_ways():
    assert conclude(bounds_of(0.001, 0.03, 0.06)).text == "gain"
    assert conclude(bounds_of(-0.05, -0.02, 0.019)).text == "no gain above +0.02"
    assert conclude(bounds_of(-0.05, -0.02, 0.019), margin=0.01).end == "undecided"
    assert conclude(bounds_of(-0.05, 0.01, 0.04)).end == "undecided"
    assert conclude(bounds_of(math.nan, 0.01, math.nan)) is None


def test_patients_shrink_errors_as_their_root():
    one = Latent(patients=100, seeds=1, seed=0, draws=1, draw=0)
    bounds = bounds_of(-0.04, 0.01, 0.06, one)
    end = conclude(bounds, margin=0.02)
    needed = 100 * ((0.05 + 0.8416 * bounds.contrast.error) / 0.02) ** 2
    assert needed < end.patients < 1.1 * needed
    assert (end.draws, end.seeds) == (None, None)
    likely = conclude(bounds_of(-0.01, 0.05, 0.11, one), margin=0.02)  # nearly a gain
    assert 100 < likely.patients < 500


def test_where_draws_matter_most_draws_are_named_first_to_help():
    noisy = Latent(patients=2000, seeds=1, seed=0, draws=5, row_draw=0.5)
    end = conclude(bounds_of(-0.05, 0.0, 0.05, noisy))
    assert end.patients is None
    assert end.draws is not None
    assert end.text == f"undecided: about {end.draws} draws would decide"
    calm = Latent(patients=60, seeds=1, seed=0, draws=20, draw=0, row_draw=0)
    end = conclude(bounds_of(-0.03, 0.0, 0.03, calm))
    assert end.patients is not None
    assert end.draws is None or end.draws > 20


def test_where_neither_alone_is_enough_both_are_named():
    both = Latent(patients=100, draws=10, seeds=1, seed=0, row_draw=0.3)
    end = conclude(bounds_of(-0.2, 0.0, 0.2, both))
    assert end.together
    assert end.text == f"undecided: about {end.patients:,} patients with {end.draws:,} draws" \
        " would decide"  # fmt: skip
    parts = bounds_of(-0.2, 0.0, 0.2, both).contrast.components
    reach = 0.2 + 0.8416 * math.sqrt(parts.variance())
    wanted = parts.variance() * (0.02 / reach) ** 2
    assert parts.variance(n_patients=end.patients, n_draws=end.draws) < wanted


def test_what_is_named_does_decide():
    """A study of about as many patients as a small one asks for."""
    latent = Latent(patients=100, seeds=1, seed=0, draws=1, draw=0, row_draw=0, row_patient=0.2)
    ends = [end_of(latent, number) for number in range(12)]
    asked = [end.patients for end in ends if end.end == "undecided"]
    assert len(asked) > 6
    decided = [
        end_of(replace(latent, patients=size), number).end != "undecided"
        for size in asked[::2]
        for number in range(20, 28)
    ]
    assert 0.75 < np.mean(decided) < 0.97


def end_of(latent: Latent, number: int) -> Conclusion:
    board = Board(latent.hits(np.random.default_rng(number), ["a", "c"]), resamples=400)
    end = conclude(simultaneous_bounds(board, [Family(("a",), ("c",))])["a"])
    assert end is not None
    return end


def test_nondecreasing_fits_are_isotonic_regressions():
    scores = np.random.default_rng(0).normal(size=(50, 6))
    ours = nondecreasing(scores)
    for row, fitted in zip(scores, ours, strict=True):
        np.testing.assert_allclose(fitted, IsotonicRegression().fit_transform(range(6), row))


SIZES = [60, 120, 240, 480]
CURVE = np.array([0.60, 0.70, 0.76, 0.78])


def rate(gain: float, start: int = 60, noise: float = 0.004, sizes=SIZES, curve=CURVE):
    rng = np.random.default_rng(0)
    resampled = curve + rng.normal(0, noise, (2000, len(curve)))
    return exchange_rate(sizes, curve, resampled, gain, gain + rng.normal(0, noise, 2000), start)


def test_a_gain_is_worth_the_rows_that_raise_the_curve_as_much():
    exact = rate(0.10)
    assert exact.rows == pytest.approx(60)
    assert exact.low < 60 < exact.high
    half = rate(0.05)  # half way up to 120 rows, in log n
    assert half.rows == pytest.approx(60 * math.sqrt(2) - 60)
    assert rate(0.03, start=240).text.startswith("≥ 240 [")
    assert rate(0.0).rows == 0
    assert rate(0.5).text == "≥ 420"


def test_a_loss_is_worth_rows_left_out_as_far_down_as_the_curve_reaches():
    assert rate(-0.06, start=240).rows == pytest.approx(-120)
    assert rate(-0.05).text == "≤ 0"
    assert rate(-0.10, start=120, noise=1e-6).rows == pytest.approx(-60)


def test_on_a_curve_that_does_not_rise_a_gain_is_worth_anything():
    flat = rate(0.002, curve=np.array([0.7, 0.7, 0.69, 0.7]))
    assert (flat.low, flat.high) == (0, 420)


def test_two_sizes_are_a_line_in_log_n():
    two = rate(0.05, sizes=[60, 240], curve=np.array([0.6, 0.7]))
    assert two.rows == pytest.approx(60)


def test_the_interval_holds_the_truth():
    truth, held = 37, 0
    curve = 0.9 - 0.4 * np.exp(-np.array(SIZES) / 100)  # saturates: no power law
    gain = 0.4 * (np.exp(-0.6) - np.exp(-(60 + truth) / 100))
    for i in range(200):
        rng = np.random.default_rng(i)
        seen = curve + rng.normal(0, 0.008, 4)
        lift = gain + rng.normal(0, 0.006)
        found = exchange_rate(
            SIZES,
            seen,
            seen + rng.normal(0, 0.008, (400, 4)),
            lift,
            lift + rng.normal(0, 0.006, 400),
            60,
        )
        held += found.low <= truth <= found.high
    assert held >= 0.9 * 200


def test_power_of_one_comparison_is_the_textbooks():
    """(z_.95 + z_.80) standard errors, for many patients and a single row."""
    components = assumed_components([5000, 5000], accuracy=0.8, correlation=0.5)
    error = math.sqrt(2 * 0.8 * 0.2 * 0.5 * (2 / 5000) / 4)
    assert math.sqrt(components.variance()) == pytest.approx(error)
    expected = (norm.ppf(0.95) + norm.ppf(0.8)) * error
    assert smallest_visible_gain(components) == pytest.approx(expected, rel=0.02)


def test_more_rows_and_controls_hide_a_gain_and_more_patients_show_it():
    components = assumed_components([50, 50], n_draws=5, n_seeds=3)
    alone = smallest_visible_gain(components)
    assert alone < smallest_visible_gain(components, rows=10)
    assert smallest_visible_gain(components, controls=5) > alone
    assert smallest_visible_gain(components, n_patients=400) < alone
    assert smallest_visible_gain(components, n_draws=20, n_seeds=10) < alone
    assert smallest_visible_gain(assumed_components([50, 50])) > smallest_visible_gain(
        assumed_components([50, 50], n_draws=20)
    )
    assert smallest_visible_gain(components, power=0.9) > alone
