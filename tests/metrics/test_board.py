"""Variance components, joint resamples and simultaneous bounds."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import polygamma
from scipy.stats import norm
from scipy.stats import t as student

from medaug.metrics.board import Board
from medaug.metrics.bounds import Family, simultaneous_bounds
from medaug.metrics.hits import Hits, hits_of
from medaug.metrics.replicates import inverse_trigamma, moderated
from medaug.metrics.variance import components_of
from tests.metrics.latent import Latent

ROWS = tuple(f"row {i}" for i in range(6))


def crossed(rng, p=40, s=4, d=6, *, sd=(1, 0.5, 0.7, 0.6, 0.8, 0.3, 1.2)):
    """A fully crossed normal table (P, S, D) with these standard deviations of the effects."""
    shapes = [(p, 1, 1), (1, s, 1), (1, 1, d), (p, s, 1), (p, 1, d), (1, s, d), (p, s, d)]
    return sum(rng.normal(0, each, shape) for each, shape in zip(sd, shapes, strict=True))


def parts(components):
    c = components
    return np.array([c.patient * c.n_patients, c.seed, c.draw, c.patient_seed * c.n_patients,
                     c.patient_draw * c.n_patients, c.seed_draw, c.residual * c.n_patients])  # fmt: skip


def test_components_are_those_of_a_crossed_design():
    sd = np.array([1, 0.5, 0.7, 0.6, 0.8, 0.3, 1.2])
    found = []
    for i in range(300):
        x = crossed(np.random.default_rng(i), sd=sd)
        influence = (x - x.mean(axis=0)) / len(x)
        found.append(parts(components_of(influence, x.mean(axis=0), np.zeros(len(x), int))))
    np.testing.assert_allclose(np.mean(found, axis=0), sd**2, rtol=0.12, atol=0.02)


def test_the_variance_is_that_of_a_repeated_study():
    """Not more, as when the counts of patients, seeds and draws are multiplied."""
    means, variances = [], []
    for i in range(400):
        x = crossed(np.random.default_rng(i))
        influence = (x - x.mean(axis=0)) / len(x)
        means.append(x.mean())
        components = components_of(influence, x.mean(axis=0), np.zeros(len(x), int))
        variances.append(components.variance())
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.15)
    doubled = components.variance(n_patients=80, n_seeds=8, n_draws=12)
    assert components.variance() / 8 < doubled < components.variance() / 2
    wanted = components.variance() * 0.9
    assert components.variance(n_patients=components.patients_for(wanted)) == pytest.approx(wanted)
    assert components.variance(n_draws=components.draws_for(wanted)) == pytest.approx(wanted)
    assert components.variance(n_seeds=components.seeds_for(wanted)) == pytest.approx(wanted)
    assert math.isinf(components.patients_for(0.01 * components.variance()))


def test_two_patients_of_fifty_tell_as_little_as_few_do():
    influence = np.zeros((50, 1, 1))
    influence[0], influence[1] = 0.02, -0.02
    few = components_of(influence, np.zeros((1, 1)), np.zeros(50, int))
    assert few.patient_df < 5
    everyone = np.random.default_rng(0).normal(size=(50, 1, 1))
    assert 30 < components_of(everyone, np.zeros((1, 1)), np.zeros(50, int)).patient_df <= 49


def test_moderation_is_complete_for_equal_variances_and_absent_for_unlike_ones():
    rng = np.random.default_rng(0)
    equal = rng.chisquare(2, 200) / 2
    shrunk, df = moderated(equal, 2)
    assert df > 10
    assert shrunk.std() < equal.std() / 4
    assert shrunk.mean() == pytest.approx(1, abs=0.15)
    df = moderated(equal * np.exp(rng.normal(0, 3, 200)), 2)[1]
    assert df < 3
    assert moderated(equal[:3], 2)[1] == 2  # too few to tell


@pytest.mark.parametrize("value", [1e-9, 1e-3, 0.3, np.pi**2 / 6, 40.0, 1e9])
def test_trigamma_is_inverted(value):
    assert polygamma(1, inverse_trigamma(value)) == pytest.approx(value, rel=1e-12)


def test_moderated_variances_recover_their_prior():
    """Smyth's model: s0^2 d0 / chi2(d0) are the rows' variances."""
    rng = np.random.default_rng(1)
    truth = 0.5 * 8 / rng.chisquare(8, 4000)
    sample = truth * rng.chisquare(3, 4000) / 3
    shrunk, df = moderated(sample, 3)
    assert df == pytest.approx(11, rel=0.15)
    assert np.mean((shrunk - truth) ** 2) < 0.6 * np.mean((sample - truth) ** 2)


def test_one_contrast_of_patients_is_a_t_interval():
    """One seed, one draw, one stratum of normal differences: the textbook's paired interval."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 60, 1, 1))
    names, zero = np.arange(60).astype(str), np.zeros(60, int)
    hits = {
        title: Hits(names, zero, np.arange(60), zero, np.zeros(1), np.zeros(1), each, 1)
        for title, each in zip("ab", x, strict=True)
    }
    low, high = Board(hits).contrast("a", "b").bounds()
    d = (x[0] - x[1]).ravel()
    df = Board(hits).contrast("a", "b").components.patient_df
    half = student.ppf(0.975, df) * d.std(ddof=1) / np.sqrt(60)
    assert (low, high) == pytest.approx((d.mean() - half, d.mean() + half))


def test_the_joint_resamples_have_the_components_variance():
    board = Board(Latent(patients=200).hits(np.random.default_rng(0), [*ROWS, "c"]))
    for row in ROWS:
        contrast = board.contrast(row, "c")
        moved = board.resampled(row) - board.resampled("c")
        assert moved.mean() == pytest.approx(contrast.estimate, abs=3 * contrast.error / 40)
        assert moved.std() == pytest.approx(contrast.error, rel=0.25)
        assert board.studentised(row, "c").std() == pytest.approx(1, abs=0.1)


def test_a_board_of_one_pair_needs_no_more_than_a_single_test():
    board = Board(Latent(patients=200).hits(np.random.default_rng(0), ["a", "c"]))
    found = simultaneous_bounds(board, [Family(("a",), ("c",))])["a"]
    contrast = board.contrast("a", "c")
    assert found.low == pytest.approx(contrast.estimate - contrast.reach(0.05), rel=0.1, abs=0.003)
    assert found.gain == contrast.estimate
    assert found.low < found.gain < found.high


def test_many_rows_need_wider_bounds_but_not_bonferronis_for_copies():
    latent = Latent(patients=200)
    hits = latent.hits(np.random.default_rng(0), [*ROWS, "c"])
    one = simultaneous_bounds(Board(hits), [Family(ROWS[:1], ("c",))])[ROWS[0]]
    many = simultaneous_bounds(Board(hits), [Family(ROWS, ("c",))])[ROWS[0]]
    assert many.low < one.low
    error = Board(hits).contrast(ROWS[0], "c").error
    assert (many.gain - many.low) / error < norm.isf(0.05 / 6) + 0.6
    latent = Latent(patients=200, seeds=1, seed=0, draws=1, draw=0, row_draw=0)
    hits = latent.hits(np.random.default_rng(0), ["a", "c"])
    copies = hits | {f"copy {i}": hits["a"] for i in range(20)}
    alone = simultaneous_bounds(Board(hits), [Family(("a",), ("c",))])["a"]
    rows = ("a", *(f"copy {i}" for i in range(20)))
    assert simultaneous_bounds(Board(copies), [Family(rows, ("c",))])["a"].low == alone.low


def test_every_control_must_be_beaten():
    """A row better than two controls and worse than the third has no gain."""
    more = {"row 0": 0.5, "best": 1.0, "poor": -1.0}
    hits = Latent(patients=300).hits(np.random.default_rng(0), ["row 0", "best", "c", "poor"], more)
    found = simultaneous_bounds(Board(hits), [Family(("row 0",), ("c", "best", "poor"))])["row 0"]
    assert found.reference == "best"
    assert found.high < 0
    found = simultaneous_bounds(Board(hits), [Family(("row 0",), ("c", "poor"))])["row 0"]
    assert found.reference == "c"
    assert found.low > 0


def test_rows_of_other_training_sizes_are_compared_with_their_own_controls():
    more = {"small": -0.6, "small none": -0.8}
    titles = ["small", "small none", "large", "large none"]
    board = Board(Latent(patients=300).hits(np.random.default_rng(0), titles, more))
    found = simultaneous_bounds(
        board,
        [Family(("small",), ("small none",)), Family(("large",), ("large none",)), Family((), ())],
    )
    assert {row: each.reference for row, each in found.items()} == {
        "small": "small none",
        "large": "large none",
    }


def test_equal_rows_on_few_patients_prove_nothing_about_a_margin():
    """No patient tells them apart: three of n may be hidden."""
    hits = Latent(patients=40).hits(np.random.default_rng(0), ["a"])
    found = simultaneous_bounds(Board(hits | {"c": hits["a"]}), [Family(("a",), ("c",))])["a"]
    assert (found.gain, found.low) == pytest.approx((0, -found.high), abs=0.01)
    assert found.high == pytest.approx((1 - 0.045 ** (1 / 20)) / 2, abs=0.005)


def test_a_row_without_chance_is_compared_with_every_seed_of_another():
    hits = Latent(patients=100, draws=1).hits(np.random.default_rng(0), ["a", "c"])
    still = Latent(patients=100, draws=1, seeds=1).hits(np.random.default_rng(1), ["c"])["c"]
    contrast = Board({"a": hits["a"], "c": still}).contrast("a", "c")
    assert contrast.components.n_seeds == 3
    assert contrast.estimate == pytest.approx(hits["a"].totals.mean() - still.totals.mean())
    other = Latent(patients=100, draws=1, seeds=4).hits(np.random.default_rng(1), ["c"])["c"]
    with pytest.raises(ValueError, match=r"'a' has the seeds \[0, 1, 2\]"):
        Board({"a": hits["a"], "c": other}).contrast("a", "c")


def test_other_patients_are_not_compared(cohort):
    table = cohort(np.random.default_rng(0))
    with pytest.raises(ValueError, match="patient p-0000"):
        Board.of({"a": table, "b": table.select(table.patient != "p-0000")})


def test_one_patient_in_a_class_has_no_bounds(cohort):
    table = cohort(np.random.default_rng(0), patients=20)
    alone = table.select((table.label == 0) | (table.patient == "p-0001"))
    contrast = Board.of({"a": alone}).contrast("a")
    assert math.isfinite(contrast.estimate)
    assert np.isnan(contrast.bounds()).all()
    found = simultaneous_bounds(Board({"a": hits_of(alone), "c": hits_of(alone)}),
                                [Family(("a",), ("c",))])["a"]  # fmt: skip
    assert math.isnan(found.low)


@pytest.mark.bench
def test_a_large_board_takes_seconds():
    """60 rows x 500 patients x 20 draws, 2,000 resamples."""
    rows, controls = [f"row {i}" for i in range(40)], [f"control {i}" for i in range(20)]
    latent = Latent(patients=500, seeds=1, seed=0, draws=20)
    board = Board(latent.hits(np.random.default_rng(0), [*rows, *controls]))
    start = time.process_time()
    simultaneous_bounds(board, [Family(tuple(rows), tuple(controls))])
    assert time.process_time() - start < 10


def test_intervals_of_scores_cover_and_stay_between_0_and_1():
    """Near the top, where symmetric intervals reach beyond 1 and miss too often."""
    for latent in (Latent(patients=40, signal=1.0), Latent(patients=60, signal=3.0)):
        truth, held = latent.accuracy(), 0
        for i in range(150):
            board = Board(latent.hits(np.random.default_rng(i), ["a"]), resamples=10)
            low, high = board.contrast("a").bounds()
            assert 0 <= low <= board.mean("a") <= high <= 1
            held += low <= truth <= high
        assert held >= 0.9 * 150
    hits = Latent(patients=40, signal=30).hits(np.random.default_rng(0), ["a"])
    low, high = Board(hits).contrast("a").bounds()
    assert (low, high) == pytest.approx((1 - (1 - 0.025 ** (1 / 20)) / 2, 1))


def test_one_class_for_all_patients_is_no_certainty():
    """Everybody is called ill: balanced accuracy one half, of so few patients not exactly."""
    hits = Latent(patients=40).hits(np.random.default_rng(0), ["a"])["a"]
    ill = (hits.label == 1).astype(float)[:, None, None]
    alike = replace(hits, right=np.broadcast_to(ill, hits.right.shape))
    low, high = Board({"a": alike}).contrast("a").bounds()
    unseen = (1 - 0.025 ** (1 / 20)) / 2
    assert (low, high) == pytest.approx((0.5 - unseen, 0.5 + unseen))


def test_no_bound_of_a_gain_is_beyond_what_a_gain_can_be():
    """Four patients, as a published cut may leave: their t quantile alone goes beyond."""
    hits = Latent(patients=4, draws=1, residual=3.0).hits(np.random.default_rng(1), ["a", "c"])
    board = Board(hits)
    contrast = board.contrast("a", "c")
    assert contrast.reach(0.025) > 1, "this study would not show it"
    assert contrast.bounds() == (-1, 1)
    found = simultaneous_bounds(board, [Family(("a",), ("c",))])["a"]
    assert (found.low, found.high) == (-1, 1)


def test_patients_with_slices_of_both_labels_are_drawn_whole():
    """A patient whose slices all look positive is right on one label and wrong on the other."""
    held, widths = 0, []
    for i in range(200):
        rng = np.random.default_rng(i)
        n = 40
        unit, label = np.arange(2 * n) // 2, np.arange(2 * n) % 2
        keep = (label == 0) | (rng.uniform(size=2 * n) < 0.7)  # some have no positive slice
        unit, label = unit[keep], label[keep]
        strata = np.array([label[unit == p].max() for p in range(n)])
        hits = {}
        for title in ("a", "b"):
            lean = rng.normal(0, 1, n)[unit] * (2 * label - 1)
            right = 1 / (1 + np.exp(-(0.5 + lean + rng.normal(0, 0.5, len(unit)))))
            hits[title] = Hits(np.arange(n).astype(str), strata, unit, label, np.zeros(1),
                               np.zeros(1), right[:, None, None], 2)  # fmt: skip
        low, high = Board(hits, resamples=10).contrast("a", "b").bounds()
        held += low <= 0 <= high
        widths.append(high - low)
    assert 0.90 * 200 <= held <= 0.99 * 200
